"""Replies → answers → marks: what models write around hashes must not change what they get."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashmem.hashhop import HashHop, score
from hashmem.hashhop.score import ERROR_KINDS, wilson_interval

STEP = HashHop(characters=40_000, hops=4, queries=20, seed=1)
DIRECT = HashHop(characters=40_000, hops=4, queries=20, seed=1, mode="direct")
SKIP = HashHop(characters=40_000, hops=5, queries=20, seed=1, mode="skip", stride=2)
SAMPLES = [STEP, DIRECT, SKIP]

SHAPES = {
    "as asked": lambda q, a: f"{q} = {' = '.join(a)}",
    "the public format": lambda q, a: f"{q} = '{' = '.join(a)}'",
    "arrows": lambda q, a: f"{q} → {' → '.join(a)}",
    "ascii arrows": lambda q, a: f"{q}->{'->'.join(a)}",
    "json": lambda q, a: json.dumps({q: a}),
    "a list": lambda q, a: f"3. **{q}**\n" + "".join(f"   - `{hash_}`\n" for hash_ in a),
    "pairs": lambda q, a: "\n".join(f"{x} = {y}" for x, y in zip([q, *a[:-1]], a, strict=True)),
    "prose": lambda q, a: f"Starting at {q}, we get {', then '.join(a)}. Understandable!",
    "a summary after": lambda q, a: f"{q} = {' = '.join(a)}\nSo the end is '{a[-1]}'.",
    "echoed twice": lambda q, a: f"Query: {q}\n{q} = {' = '.join(a)}",
    "tables": lambda q, a: f"| {q} | {' | '.join(a)} |",
    "words of that length": lambda q, a: f"{q} = {' = '.join(a)} (straightforwards)",
}


def wanted(sample):
    return {chain[0]: [chain[i] for i in sample.positions] for chain in sample.chains}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.mode)
@pytest.mark.parametrize("shape", SHAPES)
def test_right_answers_count_however_they_are_written(sample, shape):
    write = SHAPES[shape]
    written = {query: write(query, answer) for query, answer in wanted(sample).items()}
    assert score(sample, written).correct == 20
    assert score(sample, "\n".join(written.values())).correct == 20
    backwards = "Here they are.\n" + "\n\n".join(reversed(written.values()))
    assert score(sample, backwards).correct == 20


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.mode)
def test_the_wanted_reply_scores_full_marks(sample):
    result = score(sample, sample.completion)
    assert result.accuracy == 1
    assert set(result.by_hop.values()) == {1.0}
    assert set(result.errors.values()) == {0}
    assert result.shown_steps == 0


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.mode)
def test_a_single_reply_needs_no_echo(sample):
    replies = {query: " ".join(answer) for query, answer in wanted(sample).items()}
    assert score(sample, replies).correct == 20


@pytest.mark.parametrize(
    "thinking",
    ["<think>{}</think>\n{}", "<thinking>{}</thinking>{}", "{}</think>{}", "{1}\n<think>{0}"],
)
def test_thinking_is_not_the_answer(thinking):
    (query, answer), (_, other) = list(wanted(STEP).items())[:2]
    wrong, right = f"\n{query} = {' = '.join(other)}\n", f"{query} = {' = '.join(answer)}"
    assert score(STEP, {query: thinking.format(wrong, right)}).correct == 1
    assert score(STEP, {query: thinking.format(right, wrong)}).correct == 0


def test_replies_that_run_in_circles_are_read_once():
    query, answer = next(iter(wanted(STEP).items()))
    right = f"{query} = {' = '.join(answer)}"
    assert score(STEP, {query: "<think>" * 200_000}).errors["empty"] == 1
    assert score(STEP, {query: "<think>" * 200_000 + "</think>" + right}).correct == 1
    assert score(STEP, {query: "<think>a</think>" * 100_000 + right}).correct == 1
    assert score(STEP, {query: f"{query} = " * 50_000 + " = ".join(answer)}).correct == 1


def test_an_answer_may_stand_before_its_query():
    chain = DIRECT.chains[0]
    assert score(DIRECT, {chain[0]: f"The end is {chain[-1]} (from {chain[0]})."}).correct == 1


def test_the_last_answer_counts():
    (query, answer), (_, other) = list(wanted(STEP).items())[:2]
    wrong, right = f"{query} = {' = '.join(other)}\n", f"{query} = {' = '.join(answer)}\n"
    assert score(STEP, {query: wrong + "No, wait:\n" + right}).correct == 1
    assert score(STEP, {query: right + "No, wait:\n" + wrong}).correct == 0
    leads = f"{query} leads to {answer[-1]}\n"
    assert score(STEP, {query: right + leads}).correct == 1


def test_steps_before_a_direct_answer_are_counted_apart():
    chain = DIRECT.chains[0]
    result = score(DIRECT, {chain[0]: " = ".join(chain)})
    assert (result.correct, result.shown_steps) == (1, 1)


def first_error(sample, reply):
    query = sample.chains[0][0]
    result = score(sample, {query: reply})
    assert result.failed == 19
    (mark,) = result.marks
    assert result.errors == {kind: int(kind == mark.error) for kind in ERROR_KINDS}
    return mark


def test_kinds_of_error():
    query, *chain = DIRECT.chains[0]
    other = DIRECT.chains[1]
    assert first_error(DIRECT, chain[-1]).error is None
    for text in chain[:-1]:
        assert first_error(DIRECT, text).error == "intermediate"
    assert first_error(DIRECT, f"It leads back to {query}: {query}").error == "intermediate"
    assert first_error(DIRECT, other[-1]).error == "wrong_chain"
    assert first_error(DIRECT, other[0]).error == "wrong_chain"
    assert first_error(DIRECT, "aBcDeFgHiJkLmNoP").error == "invented"
    assert first_error(DIRECT, "I’m sorry, the hash does not appear.").error == "refused"
    assert first_error(DIRECT, "I can't find it").error == "refused"
    assert first_error(DIRECT, "").error == "empty"
    assert first_error(DIRECT, "= = =").error == "empty"
    assert first_error(DIRECT, f"<think>{chain[-1]}").error == "empty"


def test_steps_are_marked_hop_by_hop():
    query, *chain = STEP.chains[0]
    other = STEP.chains[1]

    def mark(*answer):
        found = first_error(STEP, " = ".join([query, *answer]))
        return found.right, found.first_broken, found.error

    assert mark(*chain) == ((True,) * 4, None, None)
    assert mark(*chain[:2]) == ((True, True, False, False), 3, "intermediate")
    assert mark(chain[0], chain[2]) == ((True, False, False, False), 2, "intermediate")
    assert mark(*chain[:3], other[2]) == ((True, True, True, False), 4, "wrong_chain")
    assert mark("aBcDeFgHiJkLmNoP", *chain[1:]) == ((False, True, True, True), 1, "invented")
    assert mark(*chain, other[1]) == ((True,) * 4, None, "wrong_chain")
    assert mark(*chain, "aBcDeFgHiJkLmNoP") == ((True,) * 4, None, "invented")


@given(st.data(), st.sampled_from(SAMPLES))
def test_a_score_adds_up(data, sample):
    pool = [*(h for c in sample.chains[:3] for h in c), "aBcDeFgHiJkLmNoP", "sorry", "", "=", "\n"]
    parts = st.lists(st.sampled_from(pool), max_size=8).map(" ".join)
    replies = {c[0]: data.draw(st.none() | parts) for c in sample.chains[:6]}
    result = score(sample, replies)
    answered = sum(reply is not None for reply in replies.values())
    assert len(result.marks) == answered
    assert result.failed == 20 - answered
    assert result.correct + sum(result.errors.values()) == answered
    for mark in result.marks:
        assert mark.correct <= all(mark.right)
        assert (mark.first_broken is None) == all(mark.right)
    if answered:
        low, high = result.interval
        assert 0 <= low <= result.accuracy <= high <= 1
        broken = sum(result.first_broken.values())
        assert broken == sum(not all(mark.right) for mark in result.marks)
        assert result.by_hop[sample.hops] >= result.accuracy
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()
    assert f"{result.correct} of {answered}" in result.table()


@given(st.text())
def test_no_reply_breaks_the_scorer(reply):
    result = score(STEP, reply)
    assert len(result.marks) == 20
    assert result.correct == 0


def test_without_replies_there_is_nothing_to_share():
    result = score(STEP, {})
    assert math.isnan(result.accuracy)
    assert result.to_dict()["accuracy"] is None
    assert (result.failed, result.interval) == (20, (0.0, 1.0))
    assert "nan" in result.table()


def test_a_reply_to_another_sample_is_refused():
    with pytest.raises(ValueError, match="is not a query of this sample"):
        score(STEP, {"aBcDeFgHiJkLmNoP": "x"})


@given(st.integers(1, 3000), st.data())
def test_the_wilson_interval_solves_its_equation(total, data):
    """Its bounds p are where |share - p| = z · sqrt(p · (1 - p) / total)."""
    correct = data.draw(st.integers(0, total))
    for bound in wilson_interval(correct, total):
        reach = 1.959963984540054 * math.sqrt(bound * (1 - bound) / total)
        assert math.isclose(abs(correct / total - bound), reach, abs_tol=1e-9)
