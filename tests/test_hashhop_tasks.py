"""Harder HashHop texts: what lies beside the cycle, other hashes, other queries; their marks."""

import ast
import hashlib
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem.hashhop import HashHop, score
from hashmem.hashhop.fitting import Wanted
from hashmem.hashhop.hidden import KINDS, HiddenHop
from hashmem.hashhop.measuring import single_tokens
from hashmem.hashhop.names import ALPHABET, Alphabet, HashNames
from hashmem.hashhop.parse import parse_pairs

WORDS = ["the", "and", "for", "not", "but", "all", "one", "two", "any", "out"]
ALPHABETS = {"letters": ALPHABET, "digits": "0123456789", "small": "abcdef", "words": WORDS}
SHARES = st.sampled_from([0.0, 0.1, 0.5, 1.0])


@st.composite
def samples(draw, **chosen):
    """Any sample whose hashes are long enough for near misses."""
    alphabet = draw(st.sampled_from(sorted(ALPHABETS)))
    length = {"letters": 12, "digits": 20, "small": 30, "words": 57}[alphabet]
    least = draw(st.integers(1, 4))
    options = {
        "hops": draw(st.sampled_from([least, (least, least + 3)])),
        "hash_length": length,
        "alphabet": ALPHABETS[alphabet],
        "queries": 4,
        "unanswerable": draw(st.integers(0, 4)),
        "cycle": draw(st.sampled_from([None, 2, 3, 5])),
        "overwritten": draw(SHARES),
        "branches": draw(SHARES),
        "near": draw(SHARES),
        "near_kind": draw(st.sampled_from(["letter", "prefix"])),
        "seed": draw(st.integers(0, 1 << 70)),
        "order": draw(st.integers(0, 2)),
        "mode": draw(st.sampled_from(["step", "direct"])),
    }
    lines = draw(st.integers(120, 200))
    return HashHop(characters=lines * (2 * length + 4), **options | chosen)


def read(sample):
    return [tuple(line.split(" = ")) for line in sample.text().splitlines()]


@given(samples())
@settings(max_examples=25)
def test_the_last_line_of_each_hash_leads_along_the_chains(sample):
    pairs = read(sample)
    links = dict(pairs)  # of equal sources the last
    for chain in sample.chains:
        assert (len(chain) == 1) == (chain[0] not in links)
        assert [links[hash_] for hash_ in chain[:-1]] == list(chain[1:])
    for chain, lines in zip(sample.chains, sample.chain_lines(), strict=True):
        assert [pairs[i] for i in lines.tolist()] == list(pairwise(chain))


@given(samples(), st.data())
@settings(max_examples=20)
def test_any_piece_is_that_piece_of_the_whole(sample, data):
    lines = sample.text().splitlines()
    assert len(lines) == len(sample)
    assert len(sample.text()) == sample.characters
    again = HashHop(characters=sample.characters, **sample.config())
    assert again.text() == sample.text()
    assert repr(again) == repr(sample)
    a, b = sorted(data.draw(st.lists(st.integers(0, len(lines)), min_size=2, max_size=2)))
    assert sample.lines(a, b).splitlines() == lines[a:b]
    sources, targets = sample.pairs(a, b)
    ends = [
        tuple(bytes(end).decode() for end in pair) for pair in zip(sources, targets, strict=True)
    ]
    assert [" = ".join(pair) for pair in ends] == lines[a:b]


@pytest.mark.parametrize("length", [8, 16])
@pytest.mark.parametrize("near", [0, 0.5])
def test_all_pairs_are_those_of_the_text(length, near):
    """All of them are made in another way than some."""
    near = near * (length > 10)
    sample = HashHop(characters=1_500_000, hash_length=length, near=near, overwritten=0.3)
    assert len(sample) > 40_000
    assert all(map(np.array_equal, sample.pairs(), parse_pairs(sample.text())))
    some = [pairs[20_000:40_000] for pairs in sample.pairs()]
    assert all(map(np.array_equal, sample.pairs(20_000, 40_000), some))


@given(samples())
@settings(max_examples=25)
def test_every_line_is_of_the_kind_and_number_asked_for(sample):
    pairs, shares = read(sample), sample.config()
    named = Counter(source for source, _ in pairs)
    nodes = int(np.isin([*named.values()], [1, 2]).sum())
    assert nodes == len(named), "no hash is on more than two lines"
    graph = sample._graph
    twice = sum(count == 2 for count in named.values())
    assert twice == graph.stale == int(shares["overwritten"] * graph.nodes)
    assert graph.feeders == int(shares["branches"] * graph.nodes)
    assert graph.near == int(shares["near"] * graph.nodes)
    assert len(pairs) == graph.nodes + graph.stale + graph.feeders + graph.near
    ends = {target for _, target in pairs}
    assert len(named.keys() - ends) == graph.feeders, "only these are never a target"
    assert ends <= named.keys()
    assert all(source != target for source, target in pairs)
    assert all(hash_ in sample for hash_ in named)


@given(samples(cycle=3, near=0.0, branches=0.0, overwritten=0.0))
@settings(max_examples=30)
def test_short_cycles_come_round(sample):
    links = dict(read(sample))
    for start in links:
        assert links[links[links[start]]] == start
        assert links[start] != start


@pytest.mark.parametrize("kind", ["letter", "case", "prefix"])
@given(
    seed=st.integers(0, 1 << 70),
    nodes=st.lists(st.integers(0, 52**10 - 1), min_size=1, max_size=50, unique=True),
    length=st.integers(11, 64),
)
def test_near_misses_are_near_and_nobody_elses(kind, seed, nodes, length):
    names = HashNames(length, seed)
    numbers = np.array(nodes, np.uint64)
    hashes, misses = names.letters(numbers), names.near(numbers, kind)
    assert len({miss.tobytes() for miss in misses}) == len(nodes)
    assert (names.nodes(misses) == -1).all(), "they are the hash of no node"
    assert np.array_equal(names.nodes(misses, by_core=True), numbers.astype(np.int64))
    differ = hashes != misses
    assert not differ[:, :10].any()
    if kind == "prefix":
        assert differ[:, 10:].all()
    else:
        assert (differ.sum(axis=1) == 1).all()
    if kind == "case":
        same = [
            a.tobytes().lower() == b.tobytes().lower() for a, b in zip(hashes, misses, strict=True)
        ]
        assert all(same)


@pytest.mark.parametrize("name", ALPHABETS)
@given(st.integers(), st.data())
def test_any_alphabet_gives_each_node_its_own_hash(name, seed, data):
    alphabet = Alphabet(ALPHABETS[name])
    symbols = data.draw(st.integers(1, 64 // alphabet.width))
    names = HashNames(symbols * alphabet.width, seed, alphabet)
    last = data.draw(st.integers(min(100, names.most), names.most))
    nodes = np.arange(max(0, last - 100), last, dtype=np.uint64)
    letters = names.letters(nodes)
    assert len({row.tobytes() for row in letters}) == len(nodes)
    assert np.array_equal(names.nodes(letters), nodes.astype(np.int64))
    for row in letters[:10]:
        text = row.tobytes().decode()
        cut = [text[i : i + alphabet.width] for i in range(0, len(text), alphabet.width)]
        assert set(cut) <= set(ALPHABETS[name])


@given(samples())
@settings(max_examples=25)
def test_the_wanted_reply_is_right_and_silence_is_not(sample):
    assert score(sample, sample.completion).accuracy == 1
    assert score(sample, sample.targets).accuracy == 1
    nothing = score(sample, dict.fromkeys(sample.targets, "none"))
    assert nothing.correct == sample.unanswerable
    assert nothing.errors["refused"] == 4 - sample.unanswerable
    assert score(sample, dict.fromkeys(sample.targets, "")).correct == 0


@given(samples(hops=(1, 4)))
@settings(max_examples=30)
def test_queries_of_several_lengths_say_theirs(sample):
    question = sample.question()
    for chain, positions in zip(sample.chains, sample.asked.values(), strict=True):
        hops = len(chain) - 1
        assert 1 <= hops <= 4 or (hops, positions) == (0, ())
        assert positions == (() if not hops else (hops,) if sample.mode == "direct" else
                             tuple(range(1, hops + 1)))  # fmt: skip
        shown = [line for line in question.splitlines() if line.startswith(chain[0])]
        if hops and f"{chain[0]} (" in question:
            assert shown == [f"{chain[0]} ({hops} hop{'s' * (hops > 1)})"]
    assert ('= none"' in question) == bool(sample.unanswerable)


def test_what_is_by_hop_is_of_the_queries_asked_for_it():
    sample = HashHop(characters=9_000, hops=(1, 3), queries=40, seed=3)
    one_hop = {query: " = ".join(chain[:2]) for query, chain in
               ((chain[0], chain) for chain in sample.chains)}  # fmt: skip
    result = score(sample, one_hop)
    lengths = Counter(len(chain) - 1 for chain in sample.chains)
    assert len(lengths) == 3
    assert result.by_hop == {1: 1.0, 2: 0.0, 3: 0.0}
    assert result.asked == {n: sum(lengths[m] for m in range(n, 4)) for n in (1, 2, 3)}
    assert result.correct == lengths[1]
    assert result.first_broken == {1: 0, 2: lengths[2] + lengths[3], 3: 0}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"hops": (3, 2)}, "give the fewer first"),
        ({"cycle": 1}, "at least 2 hashes"),
        ({"cycle": 999}, "take a shorter one or at least 35964 characters"),
        ({"overwritten": 1.5}, "0 to 1, not 1.5"),
        ({"near": 0.5, "hash_length": 10}, "hashes of more than 10, not 10"),
        ({"near": 0.5, "near_kind": "far"}, "take letter, case, prefix"),
        ({"near": 0.5, "near_kind": "case", "alphabet": "0123456789", "hash_length": 30}, "cases"),
        ({"unanswerable": 6}, "take 0 to 5"),
        ({"alphabet": "a"}, "at least two symbols"),
        ({"alphabet": "ab "}, "ASCII letters and digits"),
        ({"alphabet": "aab"}, "no symbol twice"),
        ({"alphabet": ["ab", "c"]}, "have one length"),
        ({"alphabet": ["ab", "cd"], "hash_length": 15}, "a multiple of these, not 15"),
        ({"alphabet": "01", "hash_length": 5}, "take hash_length 8 or at most 448 characters"),
    ],
)
def test_what_cannot_be_met_is_refused_with_what_would_work(options, says):
    with pytest.raises(ValueError, match=says):
        HashHop(**{"characters": 3_600} | options)


# -- sizes in tokens -------------------------------------------------------------------------------


def pieces(text):
    """A tokenizer of sorts: how many tokens a text has does not follow from its length."""
    return len(re.findall(r"[A-Z]?[a-z]{1,2}|[A-Z0-9]|\s+|=", text))


@given(samples(), st.integers(5_000, 12_000))
@settings(max_examples=15)
def test_a_size_in_tokens_is_the_most_that_fits(sample, tokens):
    options = sample.config() | {"hops": 2, "cycle": None}
    found = HashHop(tokens=tokens, count=pieces, **options)
    assert found.tokens == found.metadata()["tokens"] == pieces(found.text()) <= tokens
    more = HashHop(characters=found.characters + found.line_length, **options)
    assert pieces(more.text()) > tokens or len(more) == len(found)
    again = HashHop(characters=found.characters, **options)
    assert again.text() == found.text()


def test_a_size_in_tokens_takes_few_countings():
    counted = []

    def count(text):
        counted.append(pieces(text))
        return counted[-1]

    assert HashHop(tokens=200_000, count=count, hops=2).tokens == max(
        n for n in counted if n <= 200_000
    )
    assert len(counted) < 15


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (lambda text: 1 / 0, "the tokenizer failed on a text of .* ZeroDivisionError"),
        (lambda text: text.split(), "returns a number of tokens, not"),
        (lambda text: -1, "returns a number of tokens, not -1"),
        (len, "take at least so many, not 500"),
    ],
)
def test_a_tokenizer_that_fails_or_a_size_too_small_is_told(count, says):
    with pytest.raises(ValueError, match=says):
        HashHop(tokens=500, count=count)


def test_a_tokenizer_without_a_size_is_refused():
    with pytest.raises(ValueError, match="pass tokens="):
        HashHop(characters=9_000, count=len)


@given(st.lists(st.text("abc ", min_size=1, max_size=4)), st.integers(1, 3))
def test_single_tokens_are_single_and_of_one_length(words, split_from):
    def encode(text):
        return [text] if len(text.strip()) < split_from else list(text)

    plain = {w for w in words if w.isalnum() and len(encode(w)) == len(encode(f" {w}")) == 1}
    if max(Counter(map(len, plain)).values(), default=0) < 2:
        with pytest.raises(ValueError, match="fewer than two"):
            single_tokens(words, encode)
        return
    found = single_tokens(words, encode)
    assert len(found) == len(set(found)) >= 2
    assert len({len(word) for word in found}) == 1
    for word in found:
        assert word in words
        assert len(encode(word)) == len(encode(f" {word}")) == 1
    Alphabet(found)


# -- hidden in text --------------------------------------------------------------------------------

CODE = Path(ast.__file__).read_text()


@pytest.mark.parametrize("kind", KINDS)
@given(sample=samples(), between=st.integers(1, 9), lines=st.integers(1, 300))
@settings(max_examples=10)
def test_hidden_pairs_are_the_samples_and_the_rest_is_the_filler(kind, sample, between, lines):
    filler = CODE.splitlines()[:lines]
    hidden = HiddenHop(sample, filler, kind=kind, between=between)
    text = hidden.text().splitlines()
    pairs = sample.text().splitlines()
    step = between + 1
    rest = [line for i, line in enumerate(text) if i % step != between]
    assert rest == [filler[i % lines] for i in range(between * len(pairs))]
    length = sample.hash_length
    word = re.compile(
        rf"(?<![A-Za-z0-9])[{sample.characters_of_hashes}]{{{length}}}(?![A-Za-z0-9])"
    )
    shown = [word.findall(line) for line in text[between::step]]
    assert [" = ".join(found) for found in shown] == pairs
    for chain, places in zip(hidden.chains, hidden.chain_lines(), strict=True):
        assert [word.findall(text[i]) for i in places] == [list(p) for p in pairwise(chain)]
    assert score(hidden, hidden.completion).accuracy == 1
    told = hidden.metadata()
    assert told["characters"] == len(hidden.text())
    assert told["sha256"] == hashlib.sha256(hidden.text().encode()).hexdigest()
    assert KINDS[kind].format(source="A", target="B") in hidden.prompt


def test_assignments_hidden_in_code_are_code():
    """A pair has the indentation of what follows it."""
    sample = HashHop(characters=3_600, hops=2)
    body = ["def f():", "    x = 1", "    return x", ""]
    ast.parse(HiddenHop(sample, body, between=2).text())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kind": "poem"}, "take assignment, import, sentence"),
        ({"between": 0}, "at least 1 line"),
        ({"filler": ""}, "at least one line"),
        ({"filler": ["a\nb"]}, "or its lines"),
    ],
)
def test_what_cannot_be_hidden_is_refused(options, says):
    filler = options.pop("filler", CODE)
    with pytest.raises(ValueError, match=says):
        HiddenHop(HashHop(characters=3_600), filler, **options)


def test_a_filler_that_holds_a_hash_is_refused():
    sample = HashHop(characters=3_600)
    with pytest.raises(ValueError, match=f"line 2 of the filler holds '{sample.chains[0][1]}'"):
        HiddenHop(sample, ["first", f"# {sample.chains[0][1]}"])


# -- the same for ever -----------------------------------------------------------------------------

GOLDEN = {
    "overwritten, branches": (
        {"characters": 90000, "overwritten": 0.5, "branches": 0.25, "seed": 3},
        "f1a79cf4154b7d18bd1cd3fbcba41371f5b0d5944e73fc480a28bdf74609dd14",
        "898c228979d19719",
    ),
    "near misses by case": (
        {"characters": 90000, "near": 0.5, "near_kind": "case", "seed": 4, "order": 2},
        "d8d49c3c13de8dc37e41322631bf4f3bdfab05ee00b92570fc6c2401f76c9095",
        "286b46e04e04b2e6",
    ),
    "near misses by prefix": (
        {"characters": 90000, "near": 1, "near_kind": "prefix", "hash_length": 33},
        "d84d43f646a529d7f9923ec7a7500e6009bb5f909d8c46aed8b0dcbd2b5ffd5c",
        "d07b0940f4b93ffa",
    ),
    "cycles, several hops, no answers": (
        {"characters": 90000, "cycle": 5, "hops": (1, 9), "unanswerable": 2},
        "fdd84e9a1c19b5141afed6d118b9bf72f19700014e8ae4a37328e262515cebdb",
        "72301bb7e919a295",
    ),
    "digits": (
        {"characters": 90000, "alphabet": "0123456789", "hash_length": 24},
        "3e021243502954a884f102f8c5edcbbfc4132fcd9b0cc904a19ab9d5023613f0",
        "8e9cf3b440d15ecb",
    ),
    "words": (
        {"characters": 90000, "alphabet": ["one", "two", "six", "ten", "red"], "hash_length": 63},
        "d5a349c10d6d72f11284f095fe9c2d4a4c468903373010badb1b3e5601bc5e6a",
        "2f06ba4aedbdbab1",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_texts_and_answers_are_the_same_for_ever(name):
    options, text, completion = GOLDEN[name]
    sample = HashHop(**options)
    assert sample.sha256() == text
    assert hashlib.sha256(sample.completion.encode()).hexdigest()[:16] == completion


@given(
    st.integers(0, 3_000),
    st.sampled_from([None, 2, 7]),
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
)
def test_as_many_nodes_as_fit_are_taken(lines, cycle, parts):
    shares = dict(zip(("overwritten", "branches", "near"), parts, strict=True))
    wanted = Wanted(0, HashNames(12, 0), 1, 1, 0, cycle, shares, "letter")
    nodes, counts = wanted._divided(lines)
    unit = cycle or 1

    def needed(nodes):
        return nodes + sum(int(share * nodes) for share in shares.values())

    assert nodes % unit == 0
    assert counts == {name: int(share * nodes) for name, share in shares.items()}
    assert needed(nodes) <= lines < needed(nodes + unit)
