"""HashHop samples: the keyed bijections, the lines, their exact length, and no shortcut."""

import doctest
import hashlib
import importlib
import io
import json
import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem.hashhop import HashHop
from hashmem.hashhop.names import ALPHABET, HashNames
from hashmem.hashhop.permutation import Permutation, round_keys

MASK = (1 << 64) - 1


@st.composite
def samples(draw):
    length = draw(st.integers(1, 64))
    hops = draw(st.integers(1, 9))
    width = 2 * length + 4
    least, most = max(2 * hops, hops + 1), min(400, 52**length)
    lines = draw(st.integers(least, max(least, most)))
    mode = draw(st.sampled_from(["step", "direct", "skip"] if hops > 2 else ["step", "direct"]))
    return HashHop(
        characters=lines * width + draw(st.integers(0, width - 1)),
        hops=hops,
        hash_length=length,
        queries=draw(st.integers(1, lines // (hops + 1))),
        seed=draw(st.integers(-(2**80), 2**80)),
        order=draw(st.integers(0, 3)),
        mode=mode,
        stride=draw(st.integers(2, max(2, hops - 1))),
    )


def read(sample):
    return dict(line.split(" = ") for line in sample.text().splitlines())


def permute_slowly(value, size, keys):
    """The bijection in Python's own integers, one value at a time."""
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)

    def fraction(half, key, modulus):
        mixed = (half + key) * 0x9E3779B97F4A7C15 & MASK
        mixed = (mixed ^ mixed >> 32) * 0xD1B54A32D192ED03 & MASK
        return (mixed >> 32) * modulus >> 32

    while True:
        left, right = divmod(value, b)
        for i in (0, 2, 4):
            left = (left + fraction(right, keys[i], a)) % a
            right = (right + fraction(left, keys[i + 1], b)) % b
        value = left * b + right
        if value < size:
            return value


@given(st.integers(1, 3000), st.integers())
def test_a_permutation_is_a_bijection_that_inverse_undoes(size, key):
    places = Permutation(size, round_keys("test", key))
    values = np.arange(size, dtype=np.uint64)
    moved = places.forward(values)
    assert sorted(moved.tolist()) == list(range(size))
    assert np.array_equal(places.inverse(moved), values)


@given(st.integers(1, 1 << 63), st.integers(), st.data())
def test_a_permutation_of_any_size_is_what_its_formula_says(size, key, data):
    keys = round_keys("test", key)
    values = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20))
    places = Permutation(size, keys)
    moved = places.forward(np.array(values, np.uint64))
    assert moved.tolist() == [permute_slowly(v, size, keys.tolist()) for v in values]
    assert places.inverse(moved).tolist() == values


@pytest.mark.parametrize("size", [0, -1, (1 << 63) + 1])
def test_a_permutation_needs_places(size):
    with pytest.raises(ValueError, match="1 to 2\\^63 places"):
        Permutation(size, round_keys())


def test_permutations_scatter_evenly():
    """Each value goes to each place equally often, and neighbours land apart."""
    size, keys = 52, 2600
    values = np.arange(size, dtype=np.uint64)
    moved = np.array([Permutation(size, round_keys(k)).forward(values) for k in range(keys)])
    moved = moved.astype(np.int64)
    counts = np.array([np.bincount(column, minlength=size) for column in moved.T])
    assert standardised_chi_square(counts, (size - 1) ** 2) < 4
    apart = (moved[:, 1:] - moved[:, :-1]) % size
    assert standardised_chi_square(np.bincount(apart.ravel())[1:], size - 2) < 4


def standardised_chi_square(counts, freedom):
    expected = counts.mean()
    return (((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


@given(st.integers(1, 64), st.integers(), st.integers(0, 52**10 - 200))
def test_every_node_has_its_own_hash_and_back(length, seed, first):
    names = HashNames(length, seed)
    last = min(first + 200, 52 ** min(length, 10))
    nodes = np.arange(min(first, last - 1), last, dtype=np.uint64)
    letters = names.letters(nodes)
    assert letters.shape == (len(nodes), length)
    assert set(letters.tobytes().decode()) <= set(ALPHABET)
    assert len({row.tobytes() for row in letters}) == len(nodes)
    assert np.array_equal(names.nodes(letters), nodes.astype(np.int64))


def test_all_hashes_of_two_letters_are_given_once():
    letters = HashNames(2, 5).letters(np.arange(52**2, dtype=np.uint64))
    assert len({row.tobytes() for row in letters}) == 52**2


def test_letters_are_even_at_every_place():
    letters = HashNames(24, 1).letters(np.arange(50_000, dtype=np.uint64))
    for column in letters.T:
        counts = np.bincount(column, minlength=128)[list(ALPHABET.encode())]
        assert standardised_chi_square(counts, 51) < 4


@given(samples(), st.data())
@settings(max_examples=60)
def test_any_piece_is_that_piece_of_the_whole(sample, data):
    text = sample.text()
    lines = text.splitlines()
    assert len(lines) == len(sample)
    i = data.draw(st.integers(0, len(sample) - 1))
    assert sample.line(i) == lines[i]
    a, b = sorted(data.draw(st.lists(st.integers(0, len(sample)), min_size=2, max_size=2)))
    assert sample.lines(a, b) == "".join(line + "\n" for line in lines[a:b])
    sources, targets = sample.pairs(a, b)
    assert [bytes(s).rstrip(b"\0").decode() for s in sources] == [x.split()[0] for x in lines[a:b]]
    assert [bytes(t).rstrip(b"\0").decode() for t in targets] == [x.split()[2] for x in lines[a:b]]
    assert sources.shape == targets.shape == (b - a, max(8, sample.hash_length))
    file = io.BytesIO()
    sample.write(file)
    assert file.getvalue().decode() == text


def test_pieces_join_across_blocks():
    sample = HashHop(characters=900_000, hash_length=8)
    text = sample.text()
    assert len(text) == sample.characters
    width = sample.line_length
    assert sample.lines(16_000, 17_000) == text[16_000 * width : 17_000 * width]
    sources, _ = sample.pairs(16_000, 17_000)
    assert sources[999].tobytes().decode() == text[16_999 * width :][:8]


@given(st.integers(100, 20_000), st.integers(3, 40))
def test_the_length_is_the_most_that_fits(characters, length):
    try:
        sample = HashHop(characters=characters, hash_length=length, hops=1, queries=1)
    except ValueError:
        assert characters < 2 * (2 * length + 4)
        return
    assert len(sample.text()) == sample.characters
    assert 0 <= characters - sample.characters < 2 * length + 4
    again = HashHop(characters=sample.characters, hash_length=length, hops=1, queries=1)
    assert again.text() == sample.text()


def test_tokens_are_three_characters_each():
    assert HashHop(tokens=1_000).text() == HashHop(characters=3_000).text()


@given(samples())
@settings(max_examples=60)
def test_the_answers_are_those_of_a_walk_over_the_lines(sample):
    links = read(sample)
    assert len(links) == len(sample)
    for chain in sample.chains:
        assert [links[hash_] for hash_ in chain[:-1]] == list(chain[1:])
        assert sample.targets[chain[0]] == " = ".join(chain[i] for i in sample.positions)
    named = [hash_ for chain in sample.chains for hash_ in chain]
    assert len(named) == len(set(named)) == sample.queries * (sample.hops + 1)
    assert sample.completion.splitlines() == [f"{q} = {a}" for q, a in sample.targets.items()]
    assert all(query in sample.question() for query in sample.targets)
    assert sample.prompt == sample.text() + "\n" + sample.question()


@given(samples())
@settings(max_examples=30)
def test_another_order_shuffles_the_same_lines(sample):
    keep = {name: getattr(sample, name) for name in ("hops", "hash_length", "queries", "seed")}
    other = HashHop(characters=sample.characters, order=sample.order + 1, mode="direct", **keep)
    assert sorted(other.text().splitlines()) == sorted(sample.text().splitlines())
    assert other.chains == sample.chains


def test_orders_and_seeds_differ():
    base = {"characters": 3_600}
    texts = [HashHop(**base, seed=s, order=o).text() for s in range(3) for o in range(3)]
    assert len(set(texts)) == 9
    assert len({frozenset(text.splitlines()) for text in texts}) == 3


@given(samples())
@settings(max_examples=30)
def test_the_lines_close_to_one_cycle_so_no_hash_stands_out(sample):
    links = read(sample)
    assert set(links) == set(links.values())
    at = start = next(iter(links))
    for _ in range(len(links) - 1):
        at = links[at]
        assert at != start
    assert links[at] == start


@given(samples(), st.text(max_size=70))
@settings(max_examples=30)
def test_a_sample_knows_its_hashes_without_the_lines(sample, text):
    links = read(sample)
    assert all(hash_ in sample for hash_ in links)
    assert (text in sample) == (text in links)
    strange = "".join(reversed(next(iter(links))))
    assert (strange in sample) == (strange in links)
    assert 7 not in sample


def test_cheats_do_no_better_than_chance():
    """Guess by what the public format gives away; chance is one in all the lines."""
    sample = HashHop(characters=36 * 4_000, hops=4, queries=800, seed=1, mode="direct")
    text, links = sample.text(), read(sample)
    lines = text.splitlines()
    ends = {chain[0]: chain[-1] for chain in sample.chains}
    rng = random.Random(5)
    quoted = [line for line in lines if "'" in line] or lines
    never_a_source = [t for t in links.values() if t not in links] or list(links.values())
    other_queries = list(ends)
    back = {target: source for source, target in links.items()}
    place = {line.split()[0]: i for i, line in enumerate(lines)}
    cheats = {
        "a quoted line": lambda q: rng.choice(quoted).split()[2],
        "a target that is no source": lambda q: rng.choice(never_a_source),
        "another query": lambda q: rng.choice(other_queries),
        "what leads to the query": lambda q: back[q],
        "the next line's target": lambda q: lines[(place[q] + 1) % len(lines)].split()[2],
        "four lines on": lambda q: lines[(place[q] + 4) % len(lines)].split()[2],
        "one hop too few": lambda q: links[links[links[q]]],
    }
    for name, cheat in cheats.items():
        right = sum(cheat(query) == end for query, end in ends.items())
        assert right <= 3, name  # 800 / 4000 expected; 4 or more: one time in 17 000


def test_edges_of_a_chain_lie_anywhere():
    """Where a hop's line is says nothing of where the next hop's line is."""
    sample = HashHop(characters=36 * 20_000, seed=3)
    place = {line.split()[0]: i / len(sample) for i, line in enumerate(sample.text().splitlines())}
    links = read(sample)
    here = np.array(list(place.values()))
    there = np.array([place[links[source]] for source in place])
    assert abs(np.corrcoef(here, there)[0, 1]) * math.sqrt(len(here)) < 4
    counts = np.histogram2d(here, there, bins=20)[0]
    assert standardised_chi_square(counts, 19**2) < 4
    near = Counter(np.sign(there - here))
    assert abs(near[1.0] - near[-1.0]) < 4 * math.sqrt(len(here))


@pytest.mark.parametrize(
    ("given_", "text", "questions"),
    [
        (
            {"characters": 1000, "hops": 2, "hash_length": 8, "queries": 1, "seed": 7},
            "1be1249e37a31c6e301058217818170a7bcaabe6bf10a7aecd62ef930ac8580e",
            "e34b1e7827d431ac5bea5e1095ef851c448ed30ef67477108eeb7e92dff4e204",
        ),
        (
            {"characters": 100_000, "queries": 9, "order": 3, "mode": "direct"},
            "aa1efa421bfe54a1bea4588aaa268eaaf46d2e4cad3d8423d2d873f10d913c69",
            "7926b9e9c1c868d673a8393beb25381bc30a9780468a984d4ddc23ecbd3e7534",
        ),
        (
            {
                "characters": 20_000,
                "hash_length": 3,
                "hops": 5,
                "queries": 4,
                "seed": -1,
                "mode": "skip",
            },
            "53335502a11ff176a466017ba91e5154658149026e445bd4039764efdc872749",
            "a129e1f89edd45ef9940ba4f578b7d950a561c24e62ea8c2c6be67e12e1f2760",
        ),
        (
            {"characters": 200_000, "hash_length": 64, "hops": 1, "queries": 2, "seed": 2**70},
            "e1df9f141e6b3ba42fd17b5e2e74a2ed3df19611b63d1271bddaed1fee73b669",
            "1f0ccf8015308cafd5e625c2a3cc536b86c00fb0d1043b3656997d467ca2b39d",
        ),
    ],
)
def test_samples_stay_the_same_byte_for_byte(given_, text, questions):
    sample = HashHop(**given_)
    assert sample.sha256() == text
    assert hashlib.sha256(sample.text().encode()).hexdigest() == text
    assert hashlib.sha256(sample.question().encode()).hexdigest() == questions


def test_the_metadata_makes_the_sample_again():
    sample = HashHop(characters=5_000, seed=4, order=2, mode="skip", stride=4)
    kept = json.loads(json.dumps(sample.metadata()))
    names = ("characters", "hops", "hash_length", "queries", "seed", "order", "mode")
    again = HashHop(**{name: kept[name] for name in names}, stride=4)
    assert (again.text(), again.targets) == (sample.text(), sample.targets)
    assert eval(repr(sample), {"HashHop": HashHop}).prompt == sample.prompt


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({}, "no size was given"),
        ({"characters": 9_000, "tokens": 3_000}, "given twice"),
        ({"characters": 9_000, "hops": 0}, "at least 1 hop"),
        ({"characters": 9_000, "hops": -3}, "at least 1 hop"),
        ({"characters": 360, "hops": 6}, "at most 5 hops or at least 432 characters"),
        ({"characters": -1}, "hold 0 lines"),
        ({"characters": 0}, "hold 0 lines"),
        ({"characters": 9_000, "hash_length": 0}, "1 to 64 letters"),
        ({"characters": 9_000, "hash_length": 65}, "1 to 64 letters"),
        ({"characters": 9_000, "hash_length": 1}, "take hash_length 2 or at most 312 characters"),
        ({"characters": 360, "hops": 2, "queries": 4}, "take 1 to 3 queries, not 4"),
        ({"characters": 9_000, "queries": 0}, "queries, not 0"),
        ({"characters": 9_000, "mode": "jump"}, "'step', 'direct' or 'skip'"),
        ({"characters": 9_000, "mode": "skip", "stride": 1}, "take 2 to 5"),
        ({"characters": 9_000, "mode": "skip", "stride": 6}, "take 2 to 5"),
    ],
)
def test_sizes_that_cannot_be_met_are_refused_with_what_would_work(given_, says):
    with pytest.raises(ValueError, match=says):
        HashHop(**given_)


def test_what_an_error_says_would_work_works():
    assert len(HashHop(characters=360, hops=5, queries=1)) == 10
    assert len(HashHop(characters=432, hops=6, queries=1)) == 12
    assert len(HashHop(characters=312, hash_length=1)) == 52
    assert HashHop(characters=9_000, hash_length=2).hash_length == 2
    assert len(HashHop(characters=360, hops=2, queries=3).chains) == 3


def test_sizes_are_whole_numbers():
    with pytest.raises(TypeError, match="3_000_000, not 3e6"):
        HashHop(characters=3e6)


@pytest.mark.parametrize(
    "ask",
    [
        lambda s: s.line(50),
        lambda s: s.line(-1),
        lambda s: s.lines(3, 2),
        lambda s: s.lines(0, 51),
        lambda s: s.pairs(-1, 3),
    ],
)
def test_lines_outside_the_sample_are_refused(ask):
    sample = HashHop(characters=1_000, hash_length=8)
    with pytest.raises(IndexError, match="50 lines"):
        ask(sample)


@pytest.mark.parametrize(
    "name", ["permutation", "names", "tasks", "generate", "parse", "solve", "extract", "score"]
)
def test_the_examples_in_the_docstrings_run(name):
    module = importlib.import_module(f"hashmem.hashhop.{name}")
    assert doctest.testmod(module).failed == 0
