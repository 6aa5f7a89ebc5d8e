"""Histograms of any table beside theory, and the test that tells whether they fit."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashmem import ChainingTable, DigestMultimap, FrozenTable, OpenAddressingTable
from hashmem.tables import fit
from hashmem.tables.statistics import (
    Fit,
    chaining_histogram,
    chaining_theory,
    expected_occupancy,
    expected_probe_histogram,
    goodness_of_fit,
    occupancy,
    probe_histogram,
    thinned,
    two_choice_histogram,
    two_choice_theory,
)

SEED = 20_240_829


def filled(kind, entries, load, seed=7):
    digests = np.random.default_rng(SEED).integers(0, 256, (entries, 16), dtype=np.uint8)
    table = kind(width=16, seed=seed, max_load=load, capacity=entries)
    # Theory has entries come one by one; within a batch the reference kernels place them in rounds.
    for start in range(0, entries, 500):
        table.insert(digests[start : start + 500], np.arange(entries)[start : start + 500])
    return table


# ------------------------------------------------------------------------------- the test itself


@pytest.mark.parametrize(
    ("degrees", "statistic", "tail"),  # from the tables of every textbook
    [(1, 3.841459, 0.05), (1, 10.827566, 0.001), (2, 5.991465, 0.05), (5, 20.515006, 0.001),
     (10, 18.307038, 0.05), (30, 59.703064, 0.001), (100, 124.342113, 0.05)],
)  # fmt: skip
def test_tail_of_chi_square_is_that_of_the_tables(degrees, statistic, tail):
    assert fit.chi_square_tail(statistic, degrees) == pytest.approx(tail, rel=1e-5)


@given(st.integers(1, 300), st.floats(0, 2000))
def test_tail_falls_with_the_statistic_and_rises_with_freedom(degrees, statistic):
    tail = fit.chi_square_tail(statistic, degrees)
    assert 0 <= tail <= 1
    assert fit.chi_square_tail(statistic + 1, degrees) <= tail + 1e-12
    assert fit.chi_square_tail(statistic, degrees + 1) >= tail - 1e-12
    # Two degrees more add one term of a Poisson distribution.
    half = statistic / 2
    term = (
        math.exp(degrees / 2 * math.log(half) - half - math.lgamma(degrees / 2 + 1)) if half else 0
    )
    assert fit.chi_square_tail(statistic, degrees + 2) == pytest.approx(
        min(1, tail + term), abs=1e-9
    )


counts = st.lists(st.integers(0, 10_000), min_size=2, max_size=40)


@given(counts, st.integers(0, 2**32))
def test_statistic_is_that_of_the_pooled_cells(expected, seed):
    expected = np.array(expected, float)
    observed = np.random.default_rng(seed).permutation(expected)
    starts = fit._pooled(expected)
    if len(starts) < 2:
        with pytest.raises(ValueError, match="nothing to compare"):
            goodness_of_fit(observed, expected)
        return
    pooled = np.add.reduceat(expected, starts)
    assert (pooled >= fit.LEAST_EXPECTED).all()
    assert pooled.sum() == expected.sum()
    seen = np.add.reduceat(observed, starts)
    found = goodness_of_fit(observed, expected)
    assert found.degrees == len(starts) - 1
    assert found.statistic == pytest.approx(sum((seen - pooled) ** 2 / pooled))
    assert goodness_of_fit(expected, expected) == Fit(0.0, len(starts) - 1, 1.0)


def test_right_counts_are_called_wrong_as_often_as_stated():
    random, shares = np.random.default_rng(SEED), np.array([0.5, 0.25, 0.15, 0.1])
    p_values = np.array(
        [
            goodness_of_fit(random.multinomial(4000, shares), 4000 * shares).p_value
            for _ in range(4000)
        ]
    )
    # p-values of right counts are uniform: three standard errors
    for level in (fit.SIGNIFICANCE, 0.01, 0.1, 0.5):
        assert abs((p_values < level).mean() - level) < 3 * math.sqrt(level / 4000)


def test_counts_of_another_law_do_not_fit():
    random = np.random.default_rng(SEED)
    drawn = random.poisson(2.0, 20_000)
    right, wrong = expected_occupancy(40_000, 20_000), expected_occupancy(42_000, 20_000)
    assert goodness_of_fit(np.bincount(drawn), right).fits
    assert not goodness_of_fit(np.bincount(drawn), wrong).fits


@pytest.mark.parametrize(
    ("observed", "expected", "said"),
    [([[1]], [[1]], "one dimension"), ([10, -1], [9, 0], "not be negative"),
     ([10, 20], [10, 21], "30 were observed and 31 expected"), ([math.nan, 1], [1, 1], "finite"),
     ([3, 3], [3, 3], "nothing to compare"), ([30, 30], [20, 40], "nothing to compare")],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(observed, expected, said):
    with pytest.raises(ValueError, match=said):
        goodness_of_fit(observed, expected, fitted=1)


@given(counts, st.integers(0, 500))
def test_thinning_draws_what_was_there(whole, sample):
    drawn = thinned(whole, sample)
    assert drawn.sum() == min(sample, sum(whole))
    assert (drawn <= whole).all()


# -------------------------------------------------------------------------------------- theories


@pytest.mark.parametrize("load", [0.1, 0.5, 1.0, 2.0, 8.0])
def test_chaining_histogram_has_the_mean_of_its_theory(load):
    entries, buckets = int(100_000 * load), 100_000
    expected = chaining_histogram(entries, buckets)
    assert expected.sum() == pytest.approx(entries)
    mean = expected @ np.arange(len(expected)) / entries
    assert mean == pytest.approx(chaining_theory(entries, buckets)[0], rel=1e-4)
    occupied = expected_occupancy(entries, buckets)
    assert occupied.sum() == pytest.approx(buckets)
    assert occupied @ np.arange(len(occupied)) == pytest.approx(entries, rel=1e-4)


@pytest.mark.parametrize("load", [0.1, 0.5, 0.9, 0.98])
def test_two_choice_histogram_has_the_mean_of_its_theory(load):
    entries, buckets = int(12_000 * load), 1000
    expected = two_choice_histogram(entries, buckets, 12)
    assert expected.sum() == pytest.approx(entries)
    mean = expected @ np.arange(3) / entries
    assert mean == pytest.approx(two_choice_theory(entries, buckets, 12)[0], rel=1e-9)


@pytest.mark.parametrize("entries", [0, 1, 11])
@pytest.mark.parametrize("kind", [ChainingTable, OpenAddressingTable])
def test_nearly_empty_tables_have_histograms(kind, entries):
    table = filled(kind, entries, 0.5)
    assert probe_histogram(table).sum() == entries
    assert expected_probe_histogram(table).sum() == pytest.approx(entries)


# ---------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("load", [0.5, 1.0, 2.0])
def test_chains_are_as_long_as_poisson_has_them(load):
    table = filled(ChainingTable, 40_000, load)
    found = table.statistics()
    lengths = occupancy(table)
    assert lengths.sum() == found.buckets
    assert lengths @ np.arange(len(lengths)) == 40_000
    assert goodness_of_fit(lengths, expected_occupancy(40_000, found.buckets), fitted=1).fits
    again = expected_probe_histogram(table)
    assert goodness_of_fit(thinned(probe_histogram(table), 4000), again / 10).fits


@pytest.mark.parametrize("load", [0.6, 0.7, 0.8, 0.9, 0.95])
def test_probes_of_open_addressing_are_as_theory_has_them(load):
    table = filled(OpenAddressingTable, 60_000, load)
    expected = expected_probe_histogram(table)
    assert goodness_of_fit(thinned(probe_histogram(table), 3000), expected / 20).fits


def test_nearly_full_more_entries_are_away_than_theory_has():
    """It leaves out ways of more than one move."""
    found = filled(OpenAddressingTable, 60_000, 0.98).statistics()
    assert found.load > 0.979
    assert 0.004 < found.hit_mean - found.hit_mean_expected < 0.012
    assert found.longest == 2


def test_a_table_that_is_not_random_does_not_fit():
    """Half as many chains as it claims: what a hash that loses a bit does."""

    class Claims:
        def __init__(self, statistics):
            self.__dict__.update(vars(statistics), buckets=2 * statistics.buckets)
            self.load = statistics.load / 2

        def statistics(self):
            return self

    table = Claims(filled(ChainingTable, 40_000, 2.0).statistics())
    expected = expected_occupancy(40_000, table.buckets)
    assert not goodness_of_fit(occupancy(table), expected, fitted=1).fits


def test_the_table_below_a_multimap_is_a_table_too():
    places = DigestMultimap(width=8, seed=1)
    keys = np.arange(300, dtype="<u8").view(np.uint8).reshape(300, 8)
    places.add(keys, np.arange(300))
    below = places.statistics().table
    assert probe_histogram(places).tolist() == below.hit_probes.tolist()
    assert probe_histogram(places).sum() == 300
    assert expected_probe_histogram(places).sum() == pytest.approx(300)
    if below.theory == "chaining":
        assert occupancy(places) @ np.arange(len(occupancy(places))) == 300


@pytest.mark.parametrize("entries", [0, 1, 100])
def test_open_addressing_does_not_tell_its_occupancy(entries):
    with pytest.raises(ValueError, match="take probe_histogram"):
        occupancy(filled(OpenAddressingTable, entries, 0.5))


def test_all_buckets_of_an_empty_table_are_empty():
    table = ChainingTable(width=8)
    assert occupancy(table).tolist() == [table.statistics().buckets]
    emptied = filled(ChainingTable, 1, 1.0)
    emptied.delete(emptied.digests.copy())
    assert occupancy(emptied).tolist() == [emptied.statistics().buckets]


def test_statistics_name_their_theory_and_the_slots_it_needs():
    chains = filled(ChainingTable, 100, 1.0).statistics()
    assert (chains.theory, chains.slots) == ("chaining", 1)
    open_ = filled(OpenAddressingTable, 100, 0.5).statistics()
    assert open_.theory == "two choices"
    assert open_.slots == round(open_.entries / (open_.load * open_.buckets))


class Linear:
    """Someone's linear probing: a bucket is a slot, and so the load is by bucket, as of chains."""

    def statistics(self):
        return SimpleNamespace(
            entries=90, buckets=100, load=0.9, hit_probes=np.array([0, 40, 20, 10, 20])
        )


def test_a_table_of_another_kind_is_not_held_against_a_theory_that_is_not_its_own():
    assert probe_histogram(Linear()).sum() == 90
    for function in (expected_probe_histogram, occupancy):
        with pytest.raises(ValueError, match="chaining_histogram and two_choice_histogram take"):
            function(Linear())


def test_what_has_no_probes_says_so():
    frozen = FrozenTable(filled(OpenAddressingTable, 100, 0.5).freeze())
    for function in (probe_histogram, expected_probe_histogram, occupancy):
        with pytest.raises(TypeError, match="a frozen table has no probes: every find looks at"):
            function(frozen)

    class Bare:
        def statistics(self):
            return SimpleNamespace(entries=1)

    with pytest.raises(TypeError, match="statistics of a Bare have no hit_probes"):
        probe_histogram(Bare())
