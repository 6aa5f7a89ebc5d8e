"""The laboratory: specimens against theory, experiments at small sizes, the page made of them.

Everything but times and random seeds follows from fixed seeds, so nothing here is left to chance.
"""

import csv
import dataclasses
import importlib.util
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem import ChainingTable, cli
from hashmem.cli import main
from hashmem.errors import TableFullError
from hashmem.laboratory import attack, birthday, collisions, probes, specimens, theory
from hashmem.laboratory import occupancy as occupancy_experiment
from hashmem.laboratory.experiment import Experiment, Sizes, told
from hashmem.tables.fit import Fit, goodness_of_fit, thinned

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last, so that the installed hashmem goes before the checkout's

from bench import collisions as bench  # noqa: E402 needs the path

SEED = 20_240_829
SIZE = 1 << 16


def homes_of(n, size=SIZE, seed=SEED):
    return np.random.default_rng(seed).integers(0, size, n)


def mean_of(shares):
    return float(shares @ np.arange(len(shares)))


# ------------------------------------------------------------------------------------- specimens

small = st.integers(1, 40).flatmap(
    lambda size: st.tuples(st.just(size), st.lists(st.integers(0, size - 1), max_size=size))
)


def linear_by_hand(homes, size):
    slots = []
    for home in homes:
        slots.append(next(s % size for s in itertools.count(home) if s % size not in slots))
    return slots


def robin_hood_by_hand(homes, size):
    held = [None] * size  # each slot: how far its entry is from home
    for home in homes:
        far = 0
        while held[(home + far) % size] is not None:
            at = (home + far) % size
            if held[at] < far:
                home, far, held[at] = (at - held[at]) % size, held[at], far
            far += 1
        held[(home + far) % size] = far
    return sorted(far + 1 for far in held if far is not None)


@given(small)
def test_linear_probing_is_a_walk_to_the_next_free_slot(drawn):
    size, homes = drawn
    slots, probes = specimens.linear_probing(np.array(homes, np.int64), size)
    assert slots.tolist() == linear_by_hand(homes, size)
    table = np.full(size, -1)
    table[slots] = np.arange(len(homes))
    walked = specimens.find_linear(np.arange(len(homes)), table, np.array(homes, np.int64))
    assert walked.tolist() == probes.tolist()
    if len(homes) < size:
        every = np.arange(size)
        missed = specimens.find_linear(np.full(size, size), table, every)
        assert missed.tolist() == specimens.miss_probes(slots, size).tolist()


@given(small)
def test_robin_hood_is_that_of_entries_that_push_each_other_on(drawn):
    size, homes = drawn
    found = specimens.robin_hood(np.array(homes, np.int64), size)
    assert sorted(found.tolist()) == robin_hood_by_hand(homes, size)


@pytest.mark.parametrize("insert", [specimens.linear_probing, specimens.robin_hood])
def test_specimens_that_are_full_say_so(insert):
    with pytest.raises(TableFullError, match="3 entries do not fit into 2 slots"):
        insert(np.zeros(3, np.int64), 2)
    with pytest.raises(TableFullError, match="never ends"):
        specimens.miss_probes(np.arange(4), 4)


# ---------------------------------------------------------------------------------------- theory


@pytest.mark.parametrize("load", [0.1, 0.5, 0.8, 0.9, 0.95])
def test_distributions_have_the_means_of_the_books(load):
    hit, miss = theory.linear_probing_means(load)
    hits, misses = theory.linear_probing_hits(load), theory.linear_probing_misses(load)
    robin = theory.robin_hood_hits(load)
    for shares in (hits, misses, robin):
        assert shares.sum() == pytest.approx(1, abs=1e-9)
    assert mean_of(hits) == pytest.approx(hit, rel=1e-6)
    assert mean_of(misses) == pytest.approx(miss, rel=1e-6)
    mean, variance = theory.robin_hood_moments(load)
    assert mean == pytest.approx(hit)  # a policy shares out the same sum
    assert mean_of(robin) == pytest.approx(mean)
    spread = float(robin @ (np.arange(len(robin)) - mean) ** 2)
    assert spread == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_specimens_are_as_theory_has_them(load):
    n = int(load * SIZE)
    slots, probes = specimens.linear_probing(homes_of(n), SIZE)
    missed, robin = specimens.miss_probes(slots, SIZE), specimens.robin_hood(homes_of(n), SIZE)
    alone = int(SIZE * (1 - load) ** 2 / 32)
    for observed, shares in (
        (probes, theory.linear_probing_hits(load)),
        (missed, theory.linear_probing_misses(load)),
        (robin, theory.robin_hood_hits(load)),
    ):
        sample = thinned(np.bincount(observed), max(alone, 100), SEED)
        assert goodness_of_fit(sample, sample.sum() * shares).fits
    # The other policy's hits do not fit, where there is much to tell them apart.
    if load == 0.8:
        sample = thinned(np.bincount(robin), 5000, SEED)
        assert not goodness_of_fit(sample, 5000 * theory.linear_probing_hits(load)).fits


@given(st.lists(st.integers(0, 30), max_size=60))
def test_pairs_are_counted_as_pairs(numbers):
    ordered = np.sort(np.array(numbers, np.uint64))
    expected = sum(a == b for a, b in itertools.combinations(numbers, 2))
    assert birthday.pairs_that_agree(ordered) == expected


@pytest.mark.parametrize("mean", [0.01, 3.0, 40.0])
def test_two_sided_poisson_is_the_sum_of_its_terms(mean):
    terms = [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(400)]
    for pairs in (0, 1, 5, 40, 80):
        most, least = sum(terms[: pairs + 1]), sum(terms[pairs:])
        found = birthday.two_sided(pairs, mean, mean)
        assert found == pytest.approx(min(1, 2 * min(most, least)), abs=1e-9)


def test_an_approximation_takes_over_where_it_is_as_good():
    exact = birthday.two_sided(1040, birthday.MANY - 1e-9, birthday.MANY)
    assert birthday.two_sided(1040, birthday.MANY, birthday.MANY) == pytest.approx(exact, rel=0.05)


# ----------------------------------------------------------------------------------- experiments


@pytest.fixture(scope="module")
def found():
    return {experiment.name: experiment for experiment in collisions.run(Sizes.quick())}


def test_every_histogram_fits_its_theory(found):
    tested = [row for row in found["probes"].summary if row["fits"] is not None]
    assert {row["table"] for row in tested} == {row["table"] for row in found["probes"].summary}
    assert [row for row in tested if not row["fits"]] == []
    for row in found["probes"].rows:
        assert row["observed"] >= 0
        assert row["probes from"] <= row["to"]
    for (table, load, searches), rows in itertools.groupby(
        found["probes"].rows, lambda row: (row["table"], row["load"], row["searches"])
    ):
        total = sum(row["observed"] for row in rows)
        same = [r for r in found["probes"].summary if r["table"] == table and r["load"] == load]
        assert total in [row["counted"] for row in same if row["searches"] == searches]


def test_only_hashes_fill_buckets_at_random(found):
    for row in found["occupancy"].summary:
        random = row["digest"] in {"sha256", "xxh3_128", "xxh3_64"}
        assert row["fits"] == (random or row["bucket by"] == "mixed"), row


def test_last_row_of_an_occupancy_says_how_far_it_goes(found):
    for (digest, way), rows in itertools.groupby(
        found["occupancy"].rows, lambda row: (row["digest"], row["bucket by"])
    ):
        *exact, last = rows
        assert [(row["digests from"], row["to"]) for row in exact] == [(k, k) for k in range(12)]
        (fullest,) = [
            row["fullest"]
            for row in found["occupancy"].summary
            if (row["digest"], row["bucket by"]) == (digest, way)
        ]
        assert (last["digests from"], last["to"]) == (12, max(12, fullest))


def test_tables_near_full_are_counted_together(found):
    for row in found["probes"].summary:
        specimen = row["table"] in {"linear probing", "Robin Hood"}
        assert row["tables"] == (probes.TABLES if specimen and row["load"] > 0.9 else 1)
        assert (row["sample"] is None) == (row["fits"] is None)
        if specimen and row["searches"] == "misses":
            assert row["counted"] == row["tables"] * Sizes.quick().slots


def test_digests_of_the_weak_kinds_are_distinct():
    for make in occupancy_experiment.DIGESTS.values():
        assert len(np.unique(make(20_000), axis=0)) == 20_000


def test_pairs_come_as_the_birthday_bound_has_them(found):
    assert all(row["fits"] for row in found["birthday"].rows)
    widest = [row for row in found["birthday"].rows if row["bits"] == 64]
    assert {row["pairs"] for row in widest} == {0}


@pytest.mark.parametrize(("truncated", "exponents"), [(1024, [10]), (1 << 13, [11, 13])])
def test_largest_set_is_all_that_is_digested(truncated, exponents):
    counted = birthday.measure(Sizes(truncated=truncated))
    assert sorted({row["digests"] for row in counted.rows}) == [1 << e for e in exponents]
    assert {row["digests"] for row in counted.summary} == {truncated}


def test_too_few_digests_to_truncate_are_refused():
    with pytest.raises(ValueError, match="truncated must be 1024 or more, not 1023"):
        Sizes(truncated=1023)


def test_an_attack_needs_a_table_without_a_secret(found):
    rows = {(r["table"], r["seed"], r["digests"]): r for r in found["attack"].rows}
    n = Sizes.quick().attacked
    shared = f"sharing {attack.SHARED_BITS} low bits"
    unseeded = rows[attack.UNSEEDED, "none", shared]
    assert unseeded["probes"] == (n + 1) / 2  # each found behind all that came before
    assert unseeded["longest"] == n
    for (table, seed, digests), row in rows.items():
        assert (row["insert (ns)"] is None) == (table == attack.UNSEEDED)  # it does not walk
        assert row["find (ns)"] > 0
        assert row["n"] == (n if "ground" not in digests else Sizes.quick().aimed)
        if table != attack.UNSEEDED:
            # Longer with a probability below one in a million for both kinds at these sizes.
            assert row["longest"] <= 24, (table, digests)
            # What agrees in the bytes hashed makes a table hash all. What was ground for one bucket
            # may, or find room in its other ones; a secret seed leaves nothing to notice.
            if not digests.startswith("ground") or seed == attack.SECRET:
                hostile = digests.startswith("agreeing")
                assert row["hashed"] == (attack.WIDTH if hostile else attack.HASHED), digests
            assert row["reseeds"] == 0


def test_samples_last_longer_than_the_noise(monkeypatch):
    calls = []
    monkeypatch.setattr(attack, "seconds", lambda call: call() or attack.LEAST / 3.5)
    took = attack._sample(lambda: calls.append("call"), lambda: calls.append("before"))
    assert calls == ["before", "call"] * 5  # one to warm up, then as many as take LEAST
    assert took == pytest.approx(attack.LEAST / 3.5)


def test_sets_take_turns_in_every_round(monkeypatch):
    turns = []
    monkeypatch.setattr(attack._Tried, "time", lambda tried: turns.append(tried))
    monkeypatch.setattr(attack._Tried, "row", lambda tried: tried)
    sets = [attack.Set(name, attack.sharing_low_bits(4), 0.0) for name in "ab"]
    tried = attack._defended(ChainingTable, sets, 8, rounds=3)
    assert len(tried) == 4
    assert turns == tried * 3


def test_ground_digests_share_the_bucket_they_were_ground_for():
    digests, tried = attack.sharing_one_bucket(50, seed=5, buckets=300)
    assert digests.shape == (50, attack.WIDTH)
    assert not attack.home_buckets(digests, 5, 300).any()
    assert 50 * 300 / 2 < tried < 50 * 300 * 2
    # The table itself says the same: all in one chain.
    table = ChainingTable(width=attack.WIDTH, seed=5, max_load=2.0, capacity=600)
    assert table.statistics().buckets == 300
    table.insert(digests, np.arange(50))
    assert table.statistics().longest == 50
    assert len(np.unique(attack.home_buckets(digests, 6, 300))) > 30
    low = attack.sharing_low_bits(100).view("<u8")[:, 0] % (1 << attack.SHARED_BITS)
    assert len(np.unique(low)) == 1


def test_times_are_told_for_every_load_that_can_be(found):
    rows = found["throughput"].rows
    assert {row["table"] for row in rows} == {"ChainingTable", "OpenAddressingTable"}
    assert all(row[column] > 0 for row in rows for column in ("insert (ns)", "hits (ns)"))


@settings(max_examples=20)
@given(st.sampled_from(list(collisions.EXPERIMENTS)))
def test_rows_of_one_experiment_have_the_same_columns(found, name):
    for rows in (found[name].rows, found[name].summary):
        assert len({tuple(row) for row in rows}) == bool(rows)


def test_experiments_follow_from_their_seeds(found):
    for name in ("probes", "occupancy", "birthday"):
        (again,) = collisions.run(Sizes.quick(), [name])
        assert again == found[name]
    with pytest.raises(ValueError, match="no experiment is called nothing: there are probes"):
        collisions.run(Sizes.quick(), ["nothing"])


def test_what_could_not_be_tested_is_left_empty():
    assert set(told(None).values()) == {None}
    assert told(Fit(3.0, 2, 0.2))["fits"] is True


# ------------------------------------------------------------------------------- files and pages


def test_files_hold_the_rows(found, tmp_path):
    for name, experiment in found.items():
        collisions.write(experiment, tmp_path)
        with (tmp_path / f"{name}.csv").open(encoding="utf-8") as file:
            read = list(csv.DictReader(file))
        assert len(read) == len(experiment.rows)
        assert list(read[0]) == list(experiment.rows[0])
        if importlib.util.find_spec("matplotlib"):
            drawn = (tmp_path / f"{name}.png").read_bytes()
            assert drawn.startswith(b"\x89PNG")
            assert len(drawn) < 300_000


def test_command_writes_what_it_says(tmp_path, capsys):
    out = tmp_path / "new" / "figures"
    arguments = ["bench", "--out", str(out), "--size", "quick", "--json"]
    assert main([*arguments, "--only", "occupancy", "--only", "birthday"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in told] == ["occupancy", "birthday"]
    assert json.loads((out / "collisions.json").read_text(encoding="utf-8")) == told
    assert {path for one in told for path in one["files"]} | {str(out / "collisions.json")} == {
        str(path) for path in out.iterdir()
    }


def test_some_experiments_replace_only_themselves(tmp_path, capsys):
    arguments = ["bench", "collisions", "--out", str(tmp_path), "--size", "quick", "--only"]
    path = tmp_path / "collisions.json"
    old = [{"name": "occupancy", "title": "old"}, {"name": "attack", "title": "kept"}]
    path.write_text(json.dumps(old), encoding="utf-8")
    assert main([*arguments, "occupancy"]) == 0
    new, kept = json.loads(path.read_text(encoding="utf-8"))
    assert (new["name"], new["size"]) == ("occupancy", "quick")
    assert new["title"] != "old"
    assert kept == old[1]
    shown = capsys.readouterr().out
    assert new["title"] in shown
    assert "kept" not in shown
    path.write_text('{"a": 1}', encoding="utf-8")
    assert main([*arguments, "occupancy"]) == 2
    assert "holds no results to add to" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == '{"a": 1}'


def test_command_knows_the_experiments(tmp_path, capsys):
    assert tuple(collisions.EXPERIMENTS) == cli.EXPERIMENTS
    with pytest.raises(SystemExit) as left:
        main(["bench", "--out", str(tmp_path / "none"), "--only", "nothing"])
    assert left.value.code == 2
    assert "invalid choice: 'nothing'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    assert main(["bench", "--out", str(tmp_path / "file"), "--size", "quick"]) == 2


def test_readings_come_one_by_one(tmp_path, monkeypatch, capsys):
    shown = []
    experiment = Experiment("occupancy", "Title", "Method", "Reading", [{"a": 1}])

    def run(sizes, names):
        yield experiment
        shown.append(capsys.readouterr())
        yield dataclasses.replace(experiment, name="probes")

    monkeypatch.setattr(collisions, "run", run)
    monkeypatch.setattr(collisions, "has_plots", lambda: False)
    assert main(["bench", "--out", str(tmp_path)]) == 0
    assert "Title\nReading\n" in shown[0].out
    assert "hashmem[plots]" in shown[0].err


def test_without_matplotlib_there_are_data_and_a_word(tmp_path):
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'matplotlib' else find(name, *a)\n"
        "sys.modules['matplotlib'] = None\n"
        "from hashmem.cli import main\n"
        f"sys.exit(main(['bench', 'collisions', '--out', {str(tmp_path)!r}, '--size', 'quick',"
        " '--only', 'occupancy']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "hashmem[plots]" in done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"occupancy.csv", "occupancy-summary.csv", "collisions.json"}


def test_page_is_what_the_results_render_to(found, tmp_path):
    path = bench.harness.RESULTS / "collisions.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    assert bench.PAGE.read_text(encoding="utf-8") == bench.render(result)
    for experiment in result["experiments"]:
        assert (bench.FIGURES / f"{experiment['name']}.png").exists()
        Experiment(**experiment).write(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in bench.FIGURES.glob("*.csv")}
    assert [experiment["name"] for experiment in result["experiments"]] == list(found)


def test_bench_writes_figures_page_and_results(tmp_path, monkeypatch):
    monkeypatch.setattr(collisions, "has_plots", lambda: False)  # plots are tested above
    monkeypatch.setattr(sys, "argv", ["collisions", "--quick", "--results", str(tmp_path)])
    bench.main()
    result = json.loads((tmp_path / "collisions.json").read_text(encoding="utf-8"))
    page = (tmp_path / "collisions.md").read_text(encoding="utf-8")
    for experiment in result["experiments"]:
        assert experiment["reading"] in page
        assert (tmp_path / "figures" / f"{experiment['name']}.csv").exists()
