"""The public generator's format, character by character and draw by draw."""

import hashlib
import json
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashmem.hashhop import MultiHopEval, score, solve


def seeded(seed, *config):
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the generator that the format draws from
    return MultiHopEval.make_one(*config)


# Made with the public generator itself (magicproduct/hash-hop at 2e635ae, NumPy 2.4.6): the second
# sample after random.seed(11) and numpy.random.seed(12), and what both generators give next.
GOLDEN = [
    ((1000, 5, 2, 16, False), "a74622e6b85c2d7c554e97d61e84e7cb", 3343678671, 1522111361),
    ((1000, 3, 1, 8, True), "498124dad4c5a4c32bdb2518e779bf0d", 2280643179, 112447523),
    ((20000, 5, 3, 2, True), "0c252dbda92a85434428c462fa849ae7", 4279450116, 1284513603),
    ((20000, 5, 6, 8, True), "935a7762ddf448ba35a4d965f02eabe3", 498318842, 1130017899),
    ((100000, 7, 4, 16, False), "20895b10c9c0432206c6c8bf71c11d2c", 2364356929, 175432603),
]


@pytest.mark.parametrize(("config", "sha256", "next_random", "next_numpy"), GOLDEN)
def test_the_same_seeds_give_the_public_generators_samples(config, sha256, next_random, next_numpy):
    random.seed(11)
    np.random.seed(12)  # noqa: NPY002 - the generator that the format draws from
    MultiHopEval.make_one(*config)
    sample = MultiHopEval.make_one(*config)
    made = json.dumps([sample.prompt, sample.completion, list(sample.targets.items())])
    assert hashlib.sha256(made.encode()).hexdigest()[:32] == sha256
    assert random.getrandbits(32) == next_random
    assert np.random.randint(2**31) == next_numpy  # noqa: NPY002 - see above


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(6, 20), st.booleans())
def test_the_format_is_as_documented(seed, hops, length, steps):
    characters = 2_000
    sample = seeded(seed, characters, 3, hops, length, steps)
    chains = math.ceil(characters / ((2 * length + 3) * hops))
    assert len(sample.prompt) == chains * ((2 * length + 4) * hops + 2) - 1
    assert len(sample.targets) == chains
    lines = sample.prompt.split("\n")
    assert sum(line.endswith("'") for line in lines) == chains
    head, _, answers = sample.completion.partition("\n\nCoT=")
    assert head == f"COMPLETION:\nHops={hops}"
    assert answers.splitlines()[0] == str(steps)
    expected = [f"{query} = '{answer}'" for query, answer in list(sample.targets.items())[:3]]
    assert answers.splitlines()[2:] == expected
    assert sample.completion.endswith("'\n")
    for chain in sample.chains:
        assert len(chain) == hops + 1
        wanted = " = ".join(chain[1:]) if steps else chain[-1]
        assert sample.targets[chain[0]] == wanted
    assert not set(sample.targets) & {line.split(" = ")[1].strip("'") for line in lines}


@given(st.integers(0, 2**32), st.integers(1, 6), st.booleans())
def test_it_is_scored_and_solved_like_any_sample(seed, hops, steps):
    sample = seeded(seed, 3_000, 4, hops, 12, steps)
    assert solve(sample, "dictionary").correct == 4
    assert score(sample, sample.completion).accuracy == 1
    assert sample.metadata()["format"] == "public"
    assert sample.metadata()["mode"] == ("step" if steps else "direct")


@pytest.mark.parametrize("seed", range(5))
def test_equal_hashes_leave_no_answer_to_score(seed):
    sample = seeded(seed, 3_000, 5, 6, 1, False)
    with pytest.raises(ValueError, match="make it with longer hashes"):
        score(sample, sample.completion)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ((1000, 5, 0, 8, False), "at least 1 hop"),
        ((1000, 5, -1, 8, False), "at least 1 hop"),
        ((1000, 5, 2, 0, False), "at least 1 letter"),
        ((1000, 28, 2, 8, False), "make 27 chains of 2 hops"),
        ((1000, -1, 2, 8, False), "fewer queries"),
        ((-1000, 1, 2, 8, False), "make 0 chains"),
        ((0, 0, 2, 8, False), "more characters"),
        ((3000, 60, 1, 1, False), "equal hashes of 1 letters left"),
    ],
)
def test_bad_input_is_refused_with_what_would_work(config, says):
    with pytest.raises(ValueError, match=says):
        seeded(0, *config)
