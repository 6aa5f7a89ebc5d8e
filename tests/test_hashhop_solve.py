"""HashHop's solvers: all right on every sample, all clear on a broken one."""

import json
import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem import MemoryStore, digest_many, kernels
from hashmem.hashhop import HashHop, MultiHopEval, solve
from hashmem.hashhop.parse import parse_pairs
from hashmem.hashhop.solve import DictionarySolver, StoreSolver, TableSolver


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
GENERATED = given(PUBLIC | OURS)


SOLVERS = [DictionarySolver, TableSolver, lambda text: StoreSolver(text, DictStore())]
EACH_SOLVER = pytest.mark.parametrize("solver", SOLVERS, ids=["dictionary", "table", "store"])


@GENERATED
@settings(max_examples=40)
def test_every_solver_is_right_on_every_sample(generated):
    make, config = generated
    sample = make(**config)
    for method in ("dictionary", "table", "store"):
        solution = solve(sample, method, store=DictStore())
        assert (solution.correct, solution.wrong) == (solution.queries, [])
        assert (solution.method, solution.hops) == (method, sample.hops)
        assert json.loads(json.dumps(solution.to_dict())) == solution.to_dict()


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
    class Liar:
        """A sample that holds its first answer to be another."""

        def __init__(self, sample):
            self.text, self.positions = sample.text, sample.positions
            first, second, *rest = sample.chains
            self.chains = [(first[0], *second[1:]), second, *rest]

    sample = HashHop(characters=9_000)
    for method in ("dictionary", "table", "store"):
        solution = solve(Liar(sample), method, store=DictStore())
        assert (solution.correct, solution.wrong) == (4, [sample.chains[0][0]])


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
    queries = np.frombuffer(b"abcdefxx", np.uint8).reshape(-1, 2)
    answers = solver("ab = cd\ncd = ef\n").follow(queries, (1, 2, 3))
    assert [row.tobytes() for row in answers] == [b"cdef\0\0", b"ef\0\0\0\0", bytes(6), bytes(6)]


@EACH_SOLVER
def test_the_last_of_equal_sources_counts_and_cycles_go_round(solver):
    query = np.frombuffer(b"ab", np.uint8).reshape(1, 2)
    answers = solver("ab = xx\nab = ab\n").follow(query, (1, 1_000))
    assert answers.tobytes() == b"abab"


@EACH_SOLVER
def test_queries_of_another_length_are_refused(solver):
    with pytest.raises(ValueError, match="hashes have 2 letters"):
        solver("ab = cd").follow(np.zeros((1, 3), np.uint8), (1,))


@EACH_SOLVER
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


@EACH_SOLVER
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
    query = np.frombuffer(sample.chains[0][0].encode(), np.uint8).reshape(1, -1)
    for text in kinds:
        for solver in SOLVERS:
            end = solver(text).follow(query, (6,))
            assert end.tobytes().decode() == sample.chains[0][-1]


@pytest.mark.parametrize(("given_", "says"), [(("grep",), "'dictionary', 'table' or 'store'"),
                                              (("store",), "pass store=")])  # fmt: skip
def test_a_method_there_is_not_is_refused(given_, says):
    with pytest.raises(ValueError, match=says):
        solve(HashHop(characters=9_000), *given_)
