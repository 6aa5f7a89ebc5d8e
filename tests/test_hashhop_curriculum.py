"""Training data: the same example by any way to it, masks that cover the answers, schedules."""

import hashlib
import pickle
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem.hashhop import HashHop, solve
from hashmem.hashhop.curriculum import Curriculum, Stage, three_stages
from hashmem.hashhop.schedules import Constant, Linear, Staircase, bounds
from hashmem.hashhop.tokens import tokenise
from hashmem.hashhop.torch_data import batches

GOLDEN = "1c56b75dfb44733785094072b7d04f70d818f189d47e358f472462d6a78d4f96"
numbers = st.integers(-50, 50)
progresses = st.floats(0, 1)


@st.composite
def stages(draw, last=False):
    hops = draw(st.integers(1, 5)), draw(st.integers(5, 7))
    lines = draw(st.integers(24, 30)), draw(st.integers(30, 40))
    examples = draw(st.integers(1, 12) | (st.none() if last else st.nothing()))
    either = st.sampled_from
    mode = draw(either(["step", "direct", "skip"]))
    if mode == "skip":
        hops = max(3, hops[0]), hops[1]
    ways = [lambda a, b: b, lambda a, b: (a, b)]
    if examples is not None:
        ways += [Linear, Staircase, lambda a, b: (a, Linear(a, b)), lambda a, b: (a, Constant(b))]
    length = draw(st.integers(2, 12))
    unit = draw(either(["lines", "characters"]))
    width = 1 if unit == "lines" else 2 * length + 4
    return Stage(
        hops=draw(either(ways))(*hops),
        **{unit: draw(either(ways))(*(width * n for n in lines))},
        examples=examples,
        queries=draw(st.integers(1, 3)),
        hash_length=length,
        mode=mode,
    )


@st.composite
def curricula(draw):
    found = [*draw(st.lists(stages(), max_size=2)), draw(stages(last=True))]
    return Curriculum(
        found,
        seed=draw(st.integers(-(2**70), 2**70)),
        counted=draw(st.sampled_from(["answers", "ends", "completion"])),
        question=draw(st.booleans()),
    )


@given(curricula(), st.integers(0, 30), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_an_example_is_the_same_by_any_way_to_it(curriculum, start, step):
    count = 12 if curriculum.examples is None else curriculum.examples
    whole = list(islice(curriculum, count))
    assert [example.index for example in whole] == list(range(count))
    again = Curriculum(
        curriculum.stages,
        seed=curriculum.seed,
        counted=curriculum.counted,
        question=curriculum.question,
    )
    for i in reversed(range(count)):
        assert again[i] == whole[i]
    shards = [list(islice(curriculum.iterate(w, step), count)) for w in range(step)]
    if curriculum.examples is not None:
        assert len(curriculum) == count
        assert sorted((e for shard in shards for e in shard), key=lambda e: e.index) == whole
        assert list(curriculum.iterate(start)) == whole[start:]
    for w, shard in enumerate(shards):
        assert [e.index for e in shard] == [w + k * step for k in range(len(shard))]
        assert [e for e in shard if e.index < count] == whole[w::step]


@given(curricula(), st.data())
@settings(max_examples=40, deadline=None)
def test_an_example_is_a_sample_of_its_stage(curriculum, data):
    i = data.draw(st.integers(0, min(curriculum.examples or 40, 40) - 1))
    example = curriculum[i]
    stage = curriculum.stages[example.stage]
    made = dict(example.metadata)
    sample = HashHop(
        **{name: made[name] for name in ("characters", "hops", "hash_length", "queries", "seed")},
        mode=stage.mode,
    )
    assert solve(sample, "dictionary").correct == stage.queries
    assert example.completion == sample.completion
    assert example.prompt == (sample.prompt if curriculum.question else sample.text() + "\n")
    before = sum(s.examples for s in curriculum.stages[: example.stage])
    progress = (i - before) / (stage.examples - 1) if (stage.examples or 1) > 1 else 0
    asked = stage.at(progress)
    assert asked["hops"][0] <= sample.hops <= asked["hops"][1]
    unit, (low, high) = list(asked.items())[1]
    width = 1 if unit == "lines" else sample.line_length
    assert low // width <= len(sample) <= high // width


@given(curricula(), st.data())
@settings(max_examples=40, deadline=None)
def test_the_mask_covers_exactly_what_counts(curriculum, data):
    example = curriculum[data.draw(st.integers(0, min(curriculum.examples or 40, 40) - 1))]
    masked = [c if counts else " " for c, counts in zip(example.completion, example.mask, strict=1)]
    stage = curriculum.stages[example.stage]
    named = [line.split(" = ")[1:] for line in example.completion.splitlines()]
    assert len(named) == stage.queries
    assert all(len(hashes) == len(example.metadata["positions"]) for hashes in named)
    if curriculum.counted == "completion":
        assert "".join(masked) == example.completion
    else:
        keep = slice(-1, None) if curriculum.counted == "ends" else slice(None)
        assert "".join(masked).split() == [h for hashes in named for h in hashes[keep]]
        assert example.mask.sum() == stage.hash_length * sum(len(h[keep]) for h in named)


def test_examples_stay_the_same_byte_for_byte():
    curriculum = Curriculum(three_stages(30, hops=4, lines=(16, 32), queries=2), seed=7)
    text = "".join(f"{example.prompt}{example.completion}" for example in curriculum)
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN


def test_options_reach_the_sample():
    plain, other = (Stage(hops=1, lines=20, options=o) for o in ({}, {"order": 3}))
    example, shuffled = Curriculum([plain])[0], Curriculum([other])[0]
    own = {"order": 3, "sha256": shuffled.metadata["sha256"]}
    assert shuffled.metadata == {**example.metadata, **own}
    assert shuffled.completion == example.completion
    assert shuffled.prompt != example.prompt


def test_examples_differ_with_their_number_and_seed():
    curricula = [Curriculum([Stage(hops=1, lines=8, examples=20)], seed=seed) for seed in (0, 1)]
    texts = {example.prompt for curriculum in curricula for example in curriculum}
    assert len(texts) == 40


@given(st.integers(2, 9), st.integers(3, 30), st.sampled_from(["skip", "direct"]))
@settings(max_examples=20, deadline=None)
def test_the_three_stages_go_from_pairs_over_steps_to_skips(hops, examples, mode):
    if mode == "skip" and hops < 3:
        with pytest.raises(ValueError, match="stride of 2 over 2 hops"):
            three_stages(examples, hops=hops, mode=mode)
        return
    curriculum = Curriculum(three_stages(examples, hops=hops, mode=mode, hash_length=8))
    assert len(curriculum) == examples
    asked = [(e.stage, e.metadata["hops"], e.metadata["mode"]) for e in curriculum]
    assert [stage for stage, _, _ in asked] == sorted(stage for stage, _, _ in asked)
    assert {(h, m) for stage, h, m in asked if stage == 0} == {(1, "step")}
    assert {m for stage, _, m in asked if stage == 1} == {"step"}
    assert {m for stage, _, m in asked if stage == 2} == {mode}
    assert all(h <= hops for _, h, _ in asked)


def test_draws_reach_all_of_their_range_evenly():
    stage = Stage(hops=(1, 4), lines=(8, 11), examples=640, hash_length=3)
    made = [e.metadata for e in Curriculum([stage])]
    counts = np.zeros((4, 4))
    for one in made:
        counts[one["hops"] - 1, one["lines"] - 8] += 1
    # 40 expected in each of 16 cells: the sum is chi-square of 15, above 45 once in 13 000
    assert ((counts - 40) ** 2 / 40).sum() < 45


# ----------------------------------------------------------------------------- schedules


@given(numbers, numbers, progresses, progresses)
def test_a_line_is_monotone_and_keeps_to_its_range(start, end, p, q):
    p, q = sorted((p, q))
    line = Linear(start, end)
    assert (line(0), line(1)) == (start, end)
    assert min(start, end) <= line(p) <= max(start, end)
    assert (line(q) - line(p)) * (end - start) >= -1e-9


@given(st.lists(numbers, min_size=1), progresses, progresses)
def test_a_staircase_takes_its_steps_in_order(values, p, q):
    p, q = sorted((p, q))
    stairs = Staircase(*values)
    assert (stairs(0), stairs(1)) == (values[0], values[-1])
    numbered = Staircase(*range(len(values)))
    assert stairs(p) == values[numbered(p)]
    assert numbered(p) <= numbered(q)
    assert abs(numbered(p) - p * len(values)) <= 1


@given(numbers, progresses)
def test_a_constant_is_one(value, progress):
    assert Constant(value)(progress) == value
    assert bounds(value, progress, "hops") == (value, value)


def test_schedules_say_what_they_are_and_travel():
    for schedule in (Constant(3), Linear(1, 6), Staircase(1, 2, 6)):
        assert pickle.loads(pickle.dumps(schedule)) == schedule
        assert type(schedule).__name__ in repr(schedule)
    curriculum = Curriculum(three_stages(9))
    assert pickle.loads(pickle.dumps(curriculum))[8] == curriculum[8]


def test_any_function_of_progress_is_a_schedule():
    stage = Stage(hops=lambda p: 1 + 3 * p**2, lines=20, examples=11)
    assert [e.metadata["hops"] for e in Curriculum([stage])] == [1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4]


# ----------------------------------------------------------------------------- tokens


def encode_bytes(text):
    return list(text.encode())


def encode_words(text):
    """As byte-pair encodings do: a space goes with the letters after it, three to a token."""
    ids, offsets = [], []
    at = 0
    while at < len(text):
        stop = at + 1
        while stop < min(at + 3, len(text)) and text[stop].isalpha():
            stop += 1
        ids.append(sum(b << 8 * i for i, b in enumerate(text[at:stop].encode())))
        offsets.append((at, stop))
        at = stop
    return ids, offsets


def spell(ids):
    return "".join(int(i).to_bytes(4, "little").rstrip(b"\0").decode() for i in ids)


@given(curricula())
@settings(max_examples=30, deadline=None)
def test_tokens_spell_the_example_and_their_mask_is_its_mask(curriculum):
    example = curriculum[0]
    for encode in (encode_bytes, encode_words, lambda text: np.array(encode_words(text)[0], int)):
        tokens = tokenise(example, encode)
        assert len(tokens.ids) == len(tokens.mask)
        assert spell(tokens.ids[: tokens.prompt]) == example.prompt
        assert spell(tokens.ids[tokens.prompt :]) == example.completion
        assert not tokens.mask[: tokens.prompt].any()
        at = 0
        for token, counts in zip(
            tokens.ids[tokens.prompt :], tokens.mask[tokens.prompt :], strict=True
        ):
            length = len(spell([token]))
            assert counts == example.mask[at : at + length].any()
            if encode is not encode_words:
                assert counts == example.mask[at : at + length].all()
            at += length


def test_with_offsets_the_completion_is_encoded_whole():
    example = Curriculum([Stage(hops=1, lines=4, hash_length=4)])[0]
    tokens = tokenise(example, encode_words)
    assert tokens.ids[tokens.prompt :].tolist() == encode_words(example.completion)[0]


@pytest.mark.parametrize(
    ("encode", "says"),
    [
        (lambda t: [1, *t.encode()], "adds 1 tokens to an empty text"),
        (lambda t: [float(b) for b in t.encode()], "whole numbers"),
        (lambda t: [[b] for b in t.encode()], "a flat list"),
        (lambda t: tuple(t.encode()) if t else [], "a tuple of"),
        (lambda t: (list(t.encode()), []), "and 0 offsets: one for each"),
        (lambda t: (list(t.encode()), [(0, 999_999)] * len(t)), "outside the text's"),
        (lambda t: (list(t.encode()), [(0, 0)] * len(t)), "leave out character 7"),
        (lambda t: [] if t.isalpha() else encode_bytes(t), "no token for"),
        (lambda t: encode_words(t) if "\n\n" in t else encode_bytes(t), "none for the completion"),
    ],
)
def test_what_a_tokenizer_does_wrong_is_said(encode, says):
    example = Curriculum([Stage(hops=1, lines=4, hash_length=4)])[0]
    with pytest.raises(ValueError, match=says):
        tokenise(example, encode)


# ----------------------------------------------------------------------------- batches


@given(
    st.integers(0, 60), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(0, 4)
)
def test_batches_come_in_order_once_whatever_the_workers(total, size, world, workers, start):
    def steps(rank, workers, **more):
        """What a loader gives to one process: its workers' batches in turn."""
        share = {"batch_size": size, "rank": rank, "world_size": world, "workers": workers}
        left = [list(batches(total, **share, worker=w, **more)) for w in range(workers)]
        return [left[t % workers][t // workers] for t in range(sum(map(len, left)))]

    ranks = [steps(rank, workers) for rank in range(world)]
    assert ranks == [steps(rank, 1) for rank in range(world)]
    turns = max(map(len, ranks))
    given_ = [i for t in range(turns) for rank in ranks for i in (rank[t] if t < len(rank) else ())]
    assert given_ == list(range(total))
    assert [steps(rank, workers, start=start) for rank in range(world)] == [
        rank[start:] for rank in ranks
    ]
    even = [steps(rank, workers, drop_last=True) for rank in range(world)]
    assert {len(rank) for rank in even} == {total // (size * world)}
    assert all(len(batch) == size for rank in even for batch in rank)
    assert all(rank[: len(kept)] == kept for rank, kept in zip(ranks, even, strict=True))


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
def test_batches_without_end_leave_nothing_out(size, world, workers):
    found = [
        list(
            islice(
                batches(None, size, rank=r, world_size=world, worker=w, workers=workers), workers
            )
        )
        for r in range(world)
        for w in range(workers)
    ]
    given_ = sorted(i for worker in found for batch in worker for i in batch)
    assert given_ == list(range(size * world * workers * workers))


@pytest.mark.parametrize(
    ("share", "says"),
    [
        ({"batch_size": 0}, "at least 1 example"),
        ({"batch_size": 2, "start": -1}, "from step -1"),
        ({"batch_size": 2, "rank": 2, "world_size": 2}, "rank 2 of 2: they are numbered from 0"),
        ({"batch_size": 2, "worker": -1}, "worker -1 of 1"),
    ],
)
def test_shares_that_there_are_not_are_refused(share, says):
    with pytest.raises(ValueError, match=says):
        next(batches(10, **share))


# ----------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"hops": 1}, "either lines or characters"),
        ({"hops": 1, "lines": 9, "characters": 90}, "either lines or characters"),
        ({"hops": 1, "lines": 9, "examples": 0}, "at least one example, not 0"),
        ({"hops": 1, "lines": 9, "examples": 1e3}, "pass a whole number"),
        ({"hops": Linear(1, 2), "lines": 9}, "pass examples=, or fixed"),
        ({"hops": 1, "lines": (2, Staircase(4, 8))}, "pass examples=, or fixed"),
        ({"hops": (3, 2), "lines": 9}, "give the lower bound first"),
        ({"hops": (3, Linear(4, 1)), "lines": 90, "examples": 9}, "from 3 to 1 at progress 1"),
        ({"hops": 1.5, "lines": 9}, "hops are a whole number, a schedule or a pair"),
        ({"hops": (1, 2, 3), "lines": 9}, "or a pair"),
        ({"hops": 5, "lines": 9}, "at most 4 hops"),
        ({"hops": Linear(1, 5), "lines": 9, "examples": 2}, "at most 4 hops"),
        ({"hops": 1, "lines": (9, 60), "hash_length": 1}, "take hash_length 2"),
        ({"hops": 1, "lines": 9, "queries": 5}, "take 1 to 4 queries"),
        ({"hops": (2, 5), "lines": 20, "mode": "skip"}, "take at least 3 hops"),
        ({"hops": 2, "lines": 20, "mode": "jump"}, "'step', 'direct' or 'skip'"),
    ],
)
def test_stages_that_cannot_be_made_are_refused_with_what_would_work(given_, says):
    with pytest.raises(ValueError, match=says):
        Stage(**given_)


def test_curricula_that_cannot_be_are_refused_with_what_would_work():
    endless = Stage(hops=1, lines=9)
    with pytest.raises(ValueError, match="at least one stage"):
        Curriculum([])
    with pytest.raises(ValueError, match="stage 0 has no end"):
        Curriculum([endless, endless])
    with pytest.raises(ValueError, match="count 'answers', 'ends' or 'completion'"):
        Curriculum([endless], counted="all")
    with pytest.raises(TypeError, match="no end"):
        len(Curriculum([endless]))
    with pytest.raises(IndexError, match="example 3 is none of those there are, 0 to 2"):
        Curriculum([Stage(hops=1, lines=9, examples=3)])[3]
    with pytest.raises(IndexError, match="counted from 0"):
        Curriculum([endless])[-1]
    for start, step in ((-1, 1), (0, 0)):
        with pytest.raises(ValueError, match=f"not from {start} by {step}"):
            Curriculum([endless]).iterate(start, step)
    with pytest.raises(ValueError, match="at least 3 examples"):
        three_stages(2)
    with pytest.raises(ValueError, match="at least 2 hops"):
        three_stages(9, hops=1)


def test_an_example_that_cannot_be_made_is_named():
    """A function may stray between its ends, where alone a stage can be tried."""
    stage = Stage(hops=lambda p: 1 if p in (0, 1) else 9, lines=9, examples=3)
    with pytest.raises(ValueError, match="example 1, in stage 0 at progress 0.5, .*at most 4 hops"):
        Curriculum([stage])[1]
