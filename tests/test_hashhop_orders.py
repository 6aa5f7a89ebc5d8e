"""Order and place: where edges lie, accuracy by place, and the paired test over orders."""

import math
import random
from fractions import Fraction
from itertools import combinations, product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem.hashhop import HashHop, MultiHopEval, orders, score
from hashmem.hashhop.heatmaps import count_edges, heatmaps, place_answers
from hashmem.hashhop.orders import cochran_q, cochran_test, compare_orders, holm, mcnemar_test
from hashmem.hashhop.places import find_places

SAMPLE = HashHop(characters=40_000, hops=4, queries=40, seed=1)


@st.composite
def samples(draw):
    hops = draw(st.integers(1, 6))
    lines = draw(st.integers(2 * hops, 300))
    length = draw(st.integers(2, 64))
    return HashHop(
        characters=(2 * lines + 4) * (2 * length + 4),
        hops=hops,
        hash_length=length,
        queries=draw(st.integers(1, lines // (hops + 1))),
        seed=draw(st.integers(0, 99)),
        order=draw(st.integers(0, 5)),
        mode=draw(st.sampled_from(["step", "direct"])),
        overwritten=draw(st.sampled_from([0, 0.5])),
        branches=draw(st.sampled_from([0, 0.5])),
    )


def public(length, hops, chain_of_thought=True):
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the format's own generator
    return MultiHopEval.make_one(6_000, 10, hops, length, chain_of_thought)


def replies(sample, rng, skill):
    """Each hop is right with chance `skill` as long as those before it were."""
    answers = {}
    for chain in sample.chains:
        broken = next((i for i in range(1, len(chain)) if rng.random() > skill), len(chain))
        hashes = [h if i < broken else "aBcDeFgHiJkLmNoP" for i, h in enumerate(chain)]
        answers[chain[0]] = " = ".join([chain[0], *(hashes[i] for i in sample.positions)])
    return answers


# ------------------------------------------------------------------------------------ places


@given(samples())
@settings(max_examples=25, deadline=None)
def test_computed_places_are_those_in_the_text(sample):
    computed = find_places(sample)
    read = find_places(SimpleNamespace(chains=sample.chains, text=sample.text))
    assert np.array_equal(computed.lines, read.lines)
    assert computed.total == read.total == len(sample)
    for chain, lines in zip(sample.chains, computed.lines, strict=True):
        for hop, line in enumerate(lines.tolist()):
            assert sample.line(line) == f"{chain[hop]} = {chain[hop + 1]}"


@pytest.mark.parametrize(("length", "hops"), [(4, 3), (16, 2), (64, 1), (70, 4)])
def test_places_in_the_public_format(length, hops):
    sample = public(length, hops)
    lines = sample.prompt.split("\n")
    places = find_places(sample)
    assert places.total == len(lines)
    assert places.lines.shape == (10, hops)
    for chain, row in zip(sample.chains, places.lines.tolist(), strict=True):
        for hop, line in enumerate(row):
            quote = "'" if hop == hops - 1 else ""
            assert lines[line] == f"{chain[hop]} = {quote}{chain[hop + 1]}{quote}"


def test_depth_and_distance_of_places():
    text = "aa = bb\nbb = cc\nee = ff\ncc = dd\naa = bb\n"  # of two equal lines the last counts
    chains = [("aa", "bb", "cc", "dd"), ("ee", "ff"), ("bb", "cc", "xx"), ("q", "r")]
    places = find_places(SimpleNamespace(chains=chains, text=lambda: text))
    assert places.lines.tolist() == [[4, 1, 3], [2, -1, -1], [1, -1, -1], [-1, -1, -1]]
    assert places.depths[0].tolist() == [1, 0.25, 0.75]
    assert places.distances[0].tolist() == [-3, 2]
    assert np.isnan(places.distances[1:]).all()
    assert np.isnan(places.depths).tolist() == (places.lines < 0).tolist()


def test_places_of_nothing():
    sample = SimpleNamespace(chains=[], text=lambda: "aa = bb\n")
    assert find_places(sample).lines.shape == (0, 0)
    assert find_places(sample).distances.shape == (0, 0)
    with pytest.raises(ValueError, match="line 1 of the text is not"):
        find_places(SimpleNamespace(chains=[("aa", "bb")], text=lambda: "Call me Ishmael."))


def test_places_of_a_long_text_take_no_text(monkeypatch):
    sample = HashHop(tokens=100_000_000, hops=6, queries=50)
    monkeypatch.setattr(sample, "_block", None)  # which makes every line
    lines = find_places(sample).lines
    monkeypatch.undo()
    chain, row = sample.chains[7], lines[7].tolist()
    assert sample.line(row[5]) == f"{chain[5]} = {chain[6]}"


# ---------------------------------------------------------------------------------- heatmaps


@given(samples(), st.integers(1, 12), st.integers(0, 9), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_heatmaps_count_every_edge_once(sample, bins, seed, skill):
    given_replies = replies(sample, random.Random(seed), skill)
    given_replies[sample.chains[0][0]] = None
    result = score(sample, given_replies)
    placed = place_answers(result, sample)
    maps = heatmaps(placed, bins=bins)
    if len(sample.chains) == 1:
        assert maps is None
        return
    hits, counts = np.zeros((2, sample.hops, bins), int)
    apart, apart_hits = np.zeros((2, max(sample.hops - 1, 0), bins), int)
    lines = find_places(sample).lines.tolist()[1:]
    for mark, row in zip(result.marks, lines, strict=True):
        for hop, line in enumerate(row):
            right = mark.right[hop if sample.mode == "step" else 0]
            counts[hop, math.floor(Fraction(line * bins, len(sample)))] += 1
            hits[hop, math.floor(Fraction(line * bins, len(sample)))] += right
            if hop:
                share = Fraction(line - row[hop - 1], len(sample))
                apart[hop - 1, math.floor((share + 1) / 2 * bins)] += 1
                apart_hits[hop - 1, math.floor((share + 1) / 2 * bins)] += right
    assert np.array_equal(maps.depth.counts, counts)
    assert np.array_equal(maps.depth.hits, hits)
    assert np.array_equal(maps.distance.counts, apart)
    assert np.array_equal(maps.distance.hits, apart_hits)
    both = maps.depth_distance
    assert np.array_equal(both.counts.sum(axis=0), apart.sum(axis=0))
    assert np.array_equal(both.counts.sum(axis=1), counts[1:].sum(axis=0))
    assert both.hits.sum() == apart_hits.sum()
    for heatmap in (maps.depth, maps.distance, both):
        assert (heatmap.hits <= heatmap.counts).all()
        assert np.array_equal(np.isnan(heatmap.accuracy), heatmap.counts == 0)
        assert len(heatmap.columns) == bins + 1
    if sample.mode == "step":
        assert maps.depth.by_row == pytest.approx(list(result.by_hop.values()))
    else:
        assert maps.depth.by_row == pytest.approx(result.accuracy)
    twice = heatmaps(placed, placed, bins=bins)
    assert np.array_equal(twice.depth.counts, 2 * counts)


def test_skips_mark_the_edges_they_jump_over():
    sample = HashHop(characters=40_000, hops=5, queries=3, mode="skip", stride=2)
    query, *chain = sample.chains[0]
    reply = f"{query} = {chain[1]} = {chain[0]} = {chain[4]}"  # asked for: hops 2, 4 and 5
    (answer,) = place_answers(score(sample, {query: reply}), sample)["answers"]
    assert answer["edges"] == [True, True, False, False, True]
    assert answer["lines"] == find_places(sample).lines[0].tolist()


def test_heatmaps_show_where_a_model_is_blind():
    """One that overlooks the middle third of the text is worst there, and only there."""
    sample = HashHop(characters=200_000, hops=3, queries=500, seed=4)
    depths = find_places(sample).depths
    answers = {}
    for chain, row in zip(sample.chains, depths, strict=True):
        # Invented ones that differ: a hash said twice in a row would count once.
        seen = [h if not 1 / 3 < d < 2 / 3 else f"aBcDeFgHiJkLmNo{end}"
                for h, d, end in zip(chain[1:], row, "PQR", strict=True)]  # fmt: skip
        answers[chain[0]] = " = ".join([chain[0], *seen])
    maps = heatmaps(place_answers(score(sample, answers), sample), bins=9)
    assert maps.depth.by_column.tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 1]


def test_heatmaps_of_bad_input():
    lines = np.array([[0, 5]])
    with pytest.raises(ValueError, match="at least 1 bin, not 0"):
        count_edges(lines, lines > 0, 6, bins=0)
    with pytest.raises(ValueError, match="line 5 is not one of the 5 lines"):
        count_edges(lines, lines > 0, 5)
    other = HashHop(characters=40_000, hops=4, queries=5, seed=2)
    with pytest.raises(ValueError, match="the score is of another sample"):
        place_answers(score(SAMPLE, SAMPLE.completion), other)
    short = HashHop(characters=40_000, hops=2, queries=5, seed=2)
    placed = [place_answers(score(s, s.completion), s) for s in (other, short)]
    with pytest.raises(ValueError, match="different lengths are not counted together"):
        heatmaps(*placed)
    assert heatmaps(score(SAMPLE, SAMPLE.completion).to_dict()) is None


# -------------------------------------------------------------------------------- statistics

tables = st.integers(2, 4).flatmap(
    lambda k: st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=1, max_size=6)
)


def exact_p(table):
    """The share of all tables with the same rows' sums that have a Q as large, one by one."""
    k = len(table[0])
    rows = [list(combinations(range(k), sum(row))) for row in table]

    def spread(columns):
        return sum(c * c for c in columns)

    observed = spread([sum(column) for column in zip(*table, strict=True)])
    every = [
        spread([sum(j in row for row in chosen) for j in range(k)]) for chosen in product(*rows)
    ]
    return Fraction(sum(one >= observed for one in every), len(every))


@given(tables)
@settings(max_examples=60, deadline=None)
def test_p_of_cochran_is_that_of_all_tables(table):
    statistic, p, draws = cochran_test(table)
    assert draws == 0
    assert p == pytest.approx(float(exact_p(table)))
    # Q by its definition: columns' sums about their mean, over what rows make of it by chance.
    k, rows = len(table[0]), [sum(row) for row in table]
    columns = [sum(column) for column in zip(*table, strict=True)]
    mean = Fraction(sum(rows), k)
    chance = k * sum(rows) - sum(r * r for r in rows)
    if chance:
        wanted = k * (k - 1) * sum((c - mean) ** 2 for c in columns) / chance
        assert statistic == pytest.approx(float(wanted))
    else:
        assert (statistic, p) == (0, 1)


def test_drawn_p_is_near_the_exact_one(monkeypatch):
    rng = np.random.default_rng(3)
    for k, queries in [(3, 8), (4, 6), (5, 9)]:
        table = rng.random((queries, k)) < np.linspace(0.3, 0.7, k)
        _, exact, none = cochran_test(table)
        assert none == 0
        monkeypatch.setattr(orders, "_STEPS", 0)
        _, drawn, draws = cochran_test(table, rounds=20_000, seed=1)
        assert draws == 20_000
        assert abs(drawn - exact) < 5 * math.sqrt(exact * (1 - exact) / draws) + 1 / draws
        assert cochran_test(table, rounds=100, seed=1) == cochran_test(table, rounds=100, seed=1)
        monkeypatch.undo()


@given(st.dictionaries(st.integers(1, 4), st.integers(1, 30)), st.integers(0, 99))
def test_drawn_tables_have_as_many_right_answers(telling, seed):
    drawn = orders._draw_columns(telling, 5, 50, np.random.default_rng(seed))
    assert set(drawn.sum(axis=1)) == {sum(right * rows for right, rows in telling.items())}
    assert drawn.min() >= 0
    assert drawn.max() <= sum(telling.values())


def test_queries_that_are_alike_under_all_orders_say_nothing():
    table = [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    more = table + [[1, 1, 1]] * 7 + [[0, 0, 0]] * 5
    assert cochran_test(more) == pytest.approx(cochran_test(table))


def test_a_huge_table_is_drawn_quickly_and_no_order_is_too_many():
    table = np.random.default_rng(0).random((200, 40)) < 0.5
    statistic, p, draws = cochran_test(table, rounds=200)
    assert draws == 200
    assert 1 / 201 <= p <= 1
    assert statistic > 0
    table[:, 0] = True
    assert cochran_test(table, rounds=200)[1] == 1 / 201


def test_under_the_null_p_is_seldom_small():
    """At most a share α of tables has p ≤ α: 600 tables, and a bound of four deviations."""
    rng = np.random.default_rng(11)
    p_values = []
    for _ in range(600):
        chance = rng.random((12, 1))  # queries differ in how hard they are, orders do not
        p_values.append(cochran_test(rng.random((12, 3)) < chance)[1])
    for alpha in (0.01, 0.05, 0.2):
        share = np.mean(np.array(p_values) <= alpha)
        assert share <= alpha + 4 * math.sqrt(alpha * (1 - alpha) / 600)
    assert np.mean(np.array(p_values) <= 0.5) > 0.2  # it is no test that never says anything


def test_an_order_that_matters_is_found():
    rng = np.random.default_rng(2)
    table = rng.random((60, 4)) < np.array([0.8, 0.8, 0.8, 0.4])
    assert cochran_test(table)[1] < 0.001


@given(st.integers(0, 9), st.integers(0, 9))
def test_mcnemar_counts_all_signs(first, second):
    """Under the null each query that differs is right under either order with chance a half."""
    n, apart = first + second, abs(first - second)
    as_far = sum(math.comb(n, i) for i in range(n + 1) if abs(n - 2 * i) >= apart)
    assert mcnemar_test(first, second) == pytest.approx(as_far / 2**n)
    table = [[1, 0]] * first + [[0, 1]] * second + [[1, 1]]
    assert cochran_test(table)[1] == mcnemar_test(first, second)
    assert mcnemar_test(first, second) == pytest.approx(float(exact_p(table[-10:])) if n <= 9
                                                        else as_far / 2**n)  # fmt: skip


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_step_by_step(p_values, alpha):
    """Smallest first, each against alpha / those left; the first to stay ends it."""
    rejected, left = set(), len(p_values)
    for i in sorted(range(left), key=lambda i: p_values[i]):
        if p_values[i] * left > alpha:
            break
        rejected.add(i)
        left -= 1
    adjusted = holm(p_values)
    assert {i for i, p in enumerate(adjusted) if p <= alpha} == rejected
    assert all(a >= p and a <= 1 for a, p in zip(adjusted, p_values, strict=True))


@pytest.mark.parametrize("table", [[[1], [0]], [1, 0, 1], [[[1, 0]]]])
def test_a_test_takes_at_least_two_orders(table):
    with pytest.raises(ValueError, match="at least 2 orders"):
        cochran_test(table)


def test_a_test_draws_at_least_once():
    with pytest.raises(ValueError, match="at least 1 round"):
        cochran_test([[1, 0]], rounds=0)


def test_q_of_an_example_by_hand():
    # Columns 3, 2, 0; rows 2, 1, 2, 0: Q = 2 · (3 · 13 - 25) / (3 · 5 - 9)
    assert cochran_q([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]]) == pytest.approx(14 / 3)


# ---------------------------------------------------------------------------- whole comparisons


def shuffled(skills, queries=40, mode="step"):
    rng = random.Random(8)
    scores = []
    for order, skill in enumerate(skills):
        sample = HashHop(
            characters=40_000, hops=4, queries=queries, seed=1, order=order, mode=mode
        )  # fmt: skip
        scores.append(score(sample, replies(sample, rng, skill)))
    return scores


@pytest.mark.parametrize("mode", ["step", "direct"])
def test_orders_are_compared_query_by_query(mode):
    scores = shuffled([0.95, 0.95, 0.6], mode=mode)
    found = compare_orders(scores)
    assert found.orders == (0, 1, 2)
    assert found.correct.shape == (40, 3)
    assert found.correct.sum(axis=0).tolist() == [one.correct for one in scores]
    marks = [{mark.query: mark.correct for mark in one.marks} for one in scores]
    for row, query in zip(found.correct.tolist(), found.queries, strict=True):
        assert row == [mark[query] for mark in marks]
    assert found.accuracy == {i: (s.accuracy, *s.interval) for i, s in enumerate(scores)}
    assert found.left_out == 0
    assert found.p < 0.01
    assert [(p.first, p.second) for p in found.pairs] == [(0, 1), (0, 2), (1, 2)]
    for pair in found.pairs:
        difference = scores[pair.first].correct - scores[pair.second].correct
        assert pair.only_first - pair.only_second == difference
        assert pair.p <= pair.adjusted_p
    as_json = compare_orders([one.to_dict() for one in scores])
    assert (as_json.p, as_json.pairs) == (found.p, found.pairs)


def test_queries_without_a_reply_are_left_out_of_all_orders():
    first, second = (HashHop(characters=9_000, hops=2, queries=9, order=k) for k in (0, 7))
    queries = list(first.targets)
    one = {q: first.targets[q] for q in queries[:6]}
    two = {q: second.targets[q] for q in queries[2:8]}
    found = compare_orders({"a model": [score(first, one), score(second, two)]})
    assert found.queries == tuple(queries[2:6])
    assert found.left_out == 5
    nothing = compare_orders([score(first, {}), score(second, {})])
    assert (nothing.p, nothing.statistic, nothing.left_out) == (1, 0, 9)
    assert math.isnan(nothing.accuracy[7][0])


def test_only_orders_of_one_sample_are_compared():
    scores = shuffled([1, 1])
    with pytest.raises(ValueError, match="at least two"):
        compare_orders(scores[:1])
    with pytest.raises(ValueError, match="order 0 was given twice"):
        compare_orders([scores[0], scores[1], scores[0]])
    other = HashHop(characters=40_000, hops=4, queries=40, seed=2, order=5)
    with pytest.raises(ValueError, match="differ in 'seed'"):
        compare_orders([scores[0], score(other, other.completion)])
    strange = public(16, 2)
    with pytest.raises(ValueError, match="the public format has no order"):
        compare_orders([score(strange, strange.completion)] * 2)
