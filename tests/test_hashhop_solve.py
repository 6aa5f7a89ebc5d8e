"""HashHop's solvers: lookups right on every sample, guesses no better than chance, clear errors."""

import json
import math
import mmap
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem import MemoryStore, digest_many, kernels
from hashmem.hashhop import HashHop, MultiHopEval, solve
from hashmem.hashhop import parse as parse_module
from hashmem.hashhop import solvers as solvers_module
from hashmem.hashhop.baselines import GrepSolver, ScanSolver
from hashmem.hashhop.parse import parse_pairs
from hashmem.hashhop.resident import PeakMemory
from hashmem.hashhop.solve import EXACT, GUESSES, METHODS, Solution, solve_file
from hashmem.hashhop.solvers import DictionarySolver, ReopenedSolver, StoreSolver, TableSolver


class DictStore:
    """Links in a dict: as much of a store as the solver asks for."""

    def __init__(self):
        self.links = {}

    def link_many(self, sources, targets):
        pairs = zip(sources, targets, strict=True)
        self.links |= {source.tobytes(): target.tobytes() for source, target in pairs}

    def hop(self, starts, n):
        ends = []
        for start in starts:
            at = start.tobytes()
            for _ in range(n):
                at = self.links.get(at)
            ends.append(at)
        width = starts.shape[1]
        found = np.array([end is not None for end in ends])
        ends = b"".join(end or bytes(width) for end in ends)
        return np.frombuffer(ends, np.uint8).reshape(-1, width), found


PUBLIC = st.tuples(
    st.just(MultiHopEval.make_one),
    st.fixed_dictionaries(
        {
            "n_chars_problem": st.integers(500, 5_000),
            "num_queries": st.just(3),
            "hops": st.integers(1, 5),
            "hash_pair_str_length": st.just(12),
            "chain_of_thought": st.booleans(),
        }
    ),
)
HARDER = st.tuples(
    st.just(HashHop),
    st.fixed_dictionaries(
        {
            "characters": st.integers(6_000, 20_000),
            "hops": st.just((1, 4)),
            "queries": st.just(6),
            "unanswerable": st.integers(0, 6),
            "cycle": st.sampled_from([None, 2, 3]),
            "overwritten": st.sampled_from([0, 0.5, 1]),
            "branches": st.sampled_from([0, 0.5]),
            "near": st.sampled_from([0, 0.5]),
            "seed": st.integers(0, 99),
        }
    ),
)
OURS = st.tuples(
    st.just(HashHop),
    st.fixed_dictionaries(
        {
            "characters": st.integers(3_000, 20_000),
            "hops": st.integers(3, 9),
            "hash_length": st.integers(2, 64),
            "queries": st.integers(1, 2),
            "seed": st.integers(0, 99),
            "mode": st.sampled_from(["step", "direct", "skip"]),
        }
    ),
)
GENERATED = given(PUBLIC | OURS | HARDER)


def reopened(text):
    """A solver over a store that has a folder for as long as the solver is open."""
    folder = tempfile.TemporaryDirectory()
    solver = ReopenedSolver(text, Path(folder.name) / "links.hashmem")
    close = solver.close
    solver.close = lambda: (close(), folder.cleanup())
    return solver


PARSING = {
    "dictionary": DictionarySolver,
    "table": TableSolver,
    "store": lambda text: StoreSolver(text, DictStore()),
    "reopened": reopened,
}
SEARCHING = {"scan": ScanSolver, **({"grep": GrepSolver} if shutil.which("grep") else {})}
SOLVERS = {**PARSING, **SEARCHING}
THERE = [method for method in METHODS if method != "grep" or "grep" in SOLVERS]


def each(solvers):
    return pytest.mark.parametrize("solver", solvers.values(), ids=list(solvers))


EACH_SOLVER = each(SOLVERS)


def letters(*hashes):
    return np.frombuffer("".join(hashes).encode(), np.uint8).reshape(len(hashes), -1)


def expect_all_right(sample, solution):
    assert (solution.correct, solution.wrong) == (solution.queries, [])
    assert solution.accuracy == 1.0
    hops = [len(chain) - 1 for chain in sample.chains]
    assert (solution.hops, solution.total_hops) == (max(hops), sum(hops))
    assert solution.hops_per_second * solution.follow_seconds == pytest.approx(solution.total_hops)
    assert (solution.open_seconds > 0) == (solution.method == "reopened")
    assert solution.peak_bytes > 1 << 20
    plain = solution.to_dict()
    assert json.loads(json.dumps(plain)) == plain


@GENERATED
@settings(max_examples=25, deadline=None)
def test_every_lookup_is_right_on_every_sample(generated):
    make, config = generated
    sample = make(**config)
    for method in EXACT:
        if method in THERE:
            solution = solve(sample, method, store=DictStore())
            assert solution.method == method
            expect_all_right(sample, solution)


NAMES = [f"{a}{b}" for a in "ab.*" for b in "[^$\\'"]  # what grep takes for more than letters


@given(st.lists(st.tuples(*[st.sampled_from(NAMES)] * 2, st.booleans()), min_size=1, max_size=60))
@settings(max_examples=25, deadline=None)
def test_every_lookup_agrees_on_any_text(lines):
    """Sources that are given again, cycles, ends, quotes: the last line of a source counts."""
    text = "".join(f"{a} = '{b}'\n" if quoted else f"{a} = {b}\n" for a, b, quoted in lines)
    links = {a: b for a, b, _ in lines}
    queries = [lines[0][0], lines[-1][1], "zz"]
    expected = []
    for at in queries:
        for hop in range(1, 5):
            at = links.get(at)
            expected += [at or "\0\0"] * (hop in (1, 2, 4))
    for name, make in SOLVERS.items():
        solver = make(text)
        answers = solver.follow(letters(*queries), (1, 2, 4))
        solver.close()
        assert answers.tobytes().decode() == "".join(expected), name


class Told:
    """A sample of given chains over another's text."""

    def __init__(self, sample, chains):
        self.text, self.chains = sample.text, chains
        self.asked = {
            chain[0]: (*(p for p in sample.positions if p < len(chain) - 1), len(chain) - 1)
            for chain in chains
        }


@pytest.mark.parametrize("method", [method for method in EXACT if method in THERE])
@pytest.mark.parametrize("mode", ["step", "direct", "skip"])
def test_chains_may_have_different_lengths(method, mode):
    sample = HashHop(characters=9_000, hops=5, queries=9, mode=mode)
    chains = [chain[: 2 + i % 5] for i, chain in enumerate(sample.chains)]
    solution = solve(Told(sample, chains), method, store=DictStore())
    assert (solution.correct, solution.wrong) == (9, [])
    assert (solution.hops, solution.total_hops) == (5, sum(len(chain) - 1 for chain in chains))
    chains[3] = (*chains[3][:-1], sample.chains[0][0])  # the end, which every mode asks for
    assert solve(Told(sample, chains), method, store=DictStore()).wrong == [chains[3][0]]


@pytest.mark.parametrize("method", THERE)
def test_a_file_is_answered_as_its_text_is(method, tmp_path):
    sample = HashHop(characters=30_000, queries=20, mode="direct")
    path = tmp_path / "sample.txt"
    path.write_text(sample.text())
    found = solve_file(sample, path, method, store=DictStore(), seed=3)
    expected = solve(sample, method, store=DictStore(), seed=3)
    assert (found.correct, found.wrong) == (expected.correct, expected.wrong)
    assert found.correct == 20 or method in GUESSES


@pytest.mark.parametrize("method", THERE)
def test_a_file_that_is_none_is_named(method, tmp_path):
    sample = HashHop(characters=9_000)
    with pytest.raises(FileNotFoundError, match="nothing.txt"):
        solve_file(sample, tmp_path / "nothing.txt", method)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match="the text is empty"):
        solve_file(sample, tmp_path / "empty.txt", method, store=DictStore())
    (tmp_path / "other.txt").write_text("To be, or not to be\n")
    with pytest.raises(ValueError, match="line 1 of the text .*To be"):
        solve_file(sample, tmp_path / "other.txt", method, store=DictStore())


def test_many_queries_over_many_pieces_are_shared_among_threads(monkeypatch):
    monkeypatch.setattr(solvers_module, "_SHARE", 100)
    monkeypatch.setattr(solvers_module.os, "cpu_count", lambda: 2)
    sample = HashHop(characters=3_000_000, queries=2_001, mode="skip", stride=2)
    expect_all_right(sample, solve(sample, "table"))


def test_a_store_keeps_the_links_and_finds_them_when_reopened(tmp_path):
    sample = HashHop(characters=90_000, queries=50)
    with MemoryStore() as store:
        assert solve(sample, "store", store=store).correct == 50
    with MemoryStore(tmp_path / "links.hashmem") as store:
        assert solve(sample, "store", store=store).correct == 50
        store.commit()
    chains = sample.chain_letters()
    with MemoryStore(tmp_path / "links.hashmem") as store:
        ends, found = store.hop(digest_many(np.ascontiguousarray(chains[:, 0])), sample.hops)
    assert found.all()
    assert np.array_equal(ends, digest_many(np.ascontiguousarray(chains[:, -1])))


def test_a_wrong_answer_is_told():
    sample = HashHop(characters=9_000)
    first, second, *rest = sample.chains
    liar = Told(sample, [(first[0], *second[1:]), second, *rest])
    for method in EXACT:
        if method in THERE:
            solution = solve(liar, method, store=DictStore())
            assert (solution.correct, solution.wrong) == (4, [first[0]])
            assert solution.accuracy == 4 / 5


@pytest.mark.parametrize("name", kernels.available)
def test_either_kernels_serve(name):
    before = kernels.active
    kernels.select(name)
    try:
        sample = HashHop(characters=900_000, queries=1_000, hops=6, mode="skip", stride=4)
        assert solve(sample, "table").correct == 1_000
    finally:
        kernels.select(before)


@EACH_SOLVER
def test_a_chain_that_leaves_the_text_ends_in_zeros(solver):
    solver = solver("ab = cd\ncd = ef\n")
    answers = solver.follow(letters("ab", "cd", "ef", "xx"), (1, 2, 3))
    solver.close()
    assert [row.tobytes() for row in answers] == [b"cdef\0\0", b"ef\0\0\0\0", bytes(6), bytes(6)]


@EACH_SOLVER
def test_cycles_go_round(solver):
    solver = solver("ab = cd\ncd = ab")
    answers = solver.follow(letters("ab"), (1, 50))
    solver.close()
    assert answers.tobytes() == b"cdab"


@EACH_SOLVER
def test_queries_of_another_length_are_refused(solver):
    solver = solver("ab = cd")
    with pytest.raises(ValueError, match="hashes have 2 letters"):
        solver.follow(np.zeros((1, 3), np.uint8), (1,))
    solver.close()


@each(PARSING)
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the text is empty"),
        ("\n", "line 1 "),
        ("hello world", "line 1 .*hello world"),
        (" = ab", "line 1 "),
        ("ab = cd\nab = cde\n", "line 2 .*cde"),
        ("ab = cd\nabc = de\n", "line 2 "),
        ("ab = cd\n\ncd = ef\n", "line 2 "),
        ("ab = cd\nab - cd\n", "line 2 "),
        ("ab = cd\ncd = 'ef\n", "line 2 "),
        ("ab = cd\ncd =  ef\n", "line 2 "),
        ("ab = cd\r\ncd = ef\r\n", "line 1 "),
        ("ab = cd\ncd = ef\n\n", "line 3 "),
        ("ab = cd\ncd = e", "line 2 "),
        ("ab = cd\nc\n", "line 2 "),
    ],
)
def test_a_line_that_is_no_pair_is_named(solver, text, says):
    with pytest.raises(ValueError, match=says):
        solver(text)


BROKEN = st.sampled_from(["", "x", "aaaa - bbbb", "aaaa = bbbbb", "aaaa = 'bbb'", "= " * 9])


@each(SEARCHING)
@pytest.mark.parametrize("text", ["", "\n", "hello world", " = ab", "a"])
def test_a_search_refuses_a_text_whose_first_line_is_no_pair(solver, text):
    with pytest.raises(ValueError, match=r"the text is empty|line 1 of the text"):
        solver(text)


@each(SEARCHING)
@pytest.mark.parametrize("line", ["cd = e", "cd = efg", "cd = 'ef", "cd =  ef", "cd = 'ef' "])
def test_a_search_names_a_line_that_it_meets_and_that_is_no_pair(solver, line):
    solver = solver(f"ab = cd\nxx = yy\n{line}\nyy = zz\n")
    with pytest.raises(ValueError, match="line 3 of the text .*cd = "):
        solver.follow(letters("ab"), (2,))
    assert solver.follow(letters("xx"), (2,)).tobytes() == b"zz"
    solver.close()


@each(PARSING)
@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.integers(1, 29), BROKEN, min_size=1))
def test_the_first_of_several_broken_lines_is_named(solver, broken):
    lines = HashHop(characters=30 * 12, hash_length=4, hops=1, queries=1).text().splitlines()
    for i, line in broken.items():
        lines[i] = line
    with pytest.raises(ValueError, match=rf"^line {min(broken) + 1} of the text"):
        solver("\n".join(lines) + "\n")


def test_a_line_far_into_the_text_is_named():
    text = HashHop(characters=3_000_000).text()
    at = 36 * 70_000
    with pytest.raises(ValueError, match=r"^line 70001 of the text .*hello world"):
        parse_pairs(text[:at] + "hello world\n" + text[at:])
    with pytest.raises(ValueError, match=r"^line 70001 of the text"):
        parse_pairs(text[:at] + "x" * 2_000_000 + text[at:])


@GENERATED
@settings(max_examples=30)
def test_parsing_reads_what_was_written(generated):
    make, config = generated
    sample = make(**config)
    sources, targets = parse_pairs(sample.text())
    lines = [line.split(" = ") for line in sample.text().splitlines()]
    assert [row.tobytes().decode() for row in sources] == [line[0] for line in lines]
    assert [row.tobytes().decode() for row in targets] == [line[1].strip("'") for line in lines]


@given(st.integers(1, 40), st.data())
def test_lines_of_one_length_are_read_as_any_others(width, data):
    """The quick way reads what the other reads, and leaves alone what that refuses."""
    hashes = st.text("abc'=", min_size=width, max_size=width)
    pairs = data.draw(st.lists(st.tuples(hashes, hashes), min_size=1, max_size=9))
    text = bytearray("".join(f"{a} = {b}\n" for a, b in pairs).encode())
    if data.draw(st.booleans()):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.sampled_from(b"\n =x'"))
    piece = np.frombuffer(bytes(text), np.uint8)
    quick = parse_module._parse_even(piece, width)
    try:
        other = parse_module._parse_lines(piece, width, 0)
    except ValueError:
        assert quick is None
        return
    if quick is None:
        assert other.quoted.any() or len({len(line) for line in text.split(b"\n")[:-1]}) > 1
    else:
        assert all(np.array_equal(a, b) for a, b in zip(quick, other, strict=True))


@given(st.binary(max_size=200))
def test_no_text_breaks_the_parser(text):
    try:
        sources, targets = parse_pairs(text)
    except ValueError:
        return
    assert sources.shape == targets.shape


def test_a_text_is_read_from_any_buffer(tmp_path):
    sample = HashHop(characters=9_000)
    with open(tmp_path / "sample.txt", "wb") as file:
        sample.write(file)
    data = sample.text().encode()
    with open(tmp_path / "sample.txt", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    kinds = [data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8), mapped]
    for text in kinds:
        for make in SOLVERS.values():
            solver = make(text)
            end = solver.follow(letters(sample.chains[0][0]), (6,))
            solver.close()
            assert end.tobytes().decode() == sample.chains[0][-1]


def test_a_reopened_store_stays_where_it_was_asked_for_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    sample = HashHop(characters=9_000)
    path = tmp_path / "links.hashmem"
    for _ in range(2):  # a store that is there is added to
        expect_all_right(sample, solve(sample, "reopened", path=path))
    for method in THERE:
        solve(sample, method, store=DictStore())
    assert not list((tmp_path / "temporary").iterdir())
    with MemoryStore(path, readonly=True) as store:
        assert len(store) == len(sample)
        assert store[digest_many([sample.chains[0][0].encode()])[0].tobytes()].isalpha()


# Guesses


def guessed(method, samples):
    """(right, queries, solutions) of one method over many samples."""
    solutions = [solve(sample, method, seed=i) for i, sample in enumerate(samples)]
    right, queries = (sum(getattr(s, name) for s in solutions) for name in ("correct", "queries"))
    assert all(s.correct + len(s.wrong) == s.queries for s in solutions)
    return right, queries, solutions


def assert_by_chance(right, queries, chance):
    """Five standard deviations; the seeds are fixed, so it holds always or never."""
    spread = math.sqrt(queries * chance * (1 - chance))
    assert abs(right - queries * chance) < 5 * spread
    assert right > 0


@pytest.mark.parametrize("method", GUESSES)
def test_without_quotes_a_guess_is_one_of_all_targets(method):
    config = {"characters": 36 * 40, "hops": 2, "queries": 13, "mode": "direct"}
    right, queries, solutions = guessed(method, [HashHop(seed=i, **config) for i in range(300)])
    assert_by_chance(right, queries, 1 / 40)
    notes = {solution.note for solution in solutions}
    assert (notes == {""}) == (method == "random")
    assert all("nothing is quoted" in note for note in notes - {""})


@pytest.mark.parametrize(("method", "chance"), [("random", 1 / 57), ("quotes", 1 / 19)])
def test_quotes_narrow_a_guess_to_the_ends(method, chance):
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the format's own generator
    samples = [MultiHopEval.make_one(1_500, 19, 3, 12, False) for _ in range(100)]
    assert samples[0].prompt.count("\n") == 56
    right, queries, solutions = guessed(method, samples)
    assert_by_chance(right, queries, chance)
    assert {solution.note for solution in solutions} == {""}


def test_a_guess_is_chosen_by_its_seed():
    sample = HashHop(characters=36 * 12, hops=1, queries=6, mode="direct")
    for method in GUESSES:
        wrong = [tuple(solve(sample, method, seed=seed).wrong) for seed in (*range(30), *range(30))]
        assert wrong[:30] == wrong[30:]
        assert len(set(wrong)) > 1


# What it took


def test_peak_memory_is_that_of_now():
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("the system's high-water mark stays")
    outer = PeakMemory()
    block = b"x" * 200_000_000
    high = outer.read()
    assert high > len(block)
    del block
    assert PeakMemory().read() < high - 100_000_000


def test_figures_follow_from_one_another():
    solution = Solution("m", 4, 3, ["q"], 6, 24, 1.0, 0.0, 0.5, 1)
    assert (solution.accuracy, solution.hops_per_second) == (0.75, 48.0)
    assert solution.to_dict()["hops_per_second"] == 48.0


# Errors


def test_a_method_there_is_not_is_refused():
    with pytest.raises(ValueError, match="'dictionary', .* or 'quotes'"):
        solve(HashHop(characters=9_000), "oracle")
    with pytest.raises(ValueError, match="pass store="):
        solve(HashHop(characters=9_000), "store")


def test_grep_that_is_missing_or_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    sample = HashHop(characters=9_000)
    with pytest.raises(FileNotFoundError, match="no grep on the PATH"):
        solve(sample, "grep")
    (tmp_path / "grep").write_text("#!/bin/sh\necho out of order >&2\nexit 2\n")
    (tmp_path / "grep").chmod(0o755)
    with pytest.raises(OSError, match="grep ended with 2: out of order"):
        solve(sample, "grep")
