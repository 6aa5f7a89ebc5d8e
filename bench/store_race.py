"""The race of all contestants through the life of a store: written, read, compacted, deleted from.

Every contestant's answers are compared once a case with what was written.
"""

import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import harness
from bench.harness import Result
from bench.store_contract import Contestant, HashedFile, HashMem, NamelessFile, PlainFile
from bench.store_data import Payloads, digests_of, payloads_of, picks, source_text, title
from bench.store_lmdb import Lmdb, LmdbMulti
from bench.store_rivals import CONTESTANTS

WRITE = "put, hash, commit (µs a record)"
SINGLE = "put and commit one (µs)"
OPEN = "open again (ms)"
FIRST = "get, first byte (µs)"
ALL = "get as bytes (µs)"
ONE = "get one (µs)"
DELETE = "delete (µs)"
COMPACT = "compact (µs a record)"
SIZE = "file / payload"
COMPACTED = "file / payload, compacted"

READS = 200_000
ONE_READS = 20_000
SINGLES = 200  # records committed one at a time
DELETED = 0.05  # of the records
FAIR_SHARE = 0.2  # a rival that held fewer of the records is not called the fastest


@dataclass(frozen=True)
class Case:
    """So many records of one size, written with one algorithm by some contestants."""

    n: int
    size: int  # bytes of a record
    commit_every: int = 50_000
    algorithm: str = "sha256"
    makers: tuple[type[Contestant], ...] = CONTESTANTS
    writes_only: bool = False
    rounds: int = 3

    @property
    def title(self) -> str:
        text = title(self.n, self.size)
        return text if self.algorithm == "sha256" else f"{text}, {self.algorithm}"


CASES = (
    Case(1_000_000, 512),
    Case(
        1_000_000,
        512,
        algorithm="xxh3_128",
        makers=(HashMem, Lmdb, LmdbMulti, PlainFile, HashedFile, NamelessFile),
        writes_only=True,
    ),
    Case(300_000, 100),
    Case(100_000, 4096),
    Case(8000, 65_536, commit_every=1000),
)
QUICK_CASES = (
    Case(400, 512, 150, rounds=1),
    Case(300, 512, 150, "xxh3_128", (HashMem, Lmdb, LmdbMulti), True, 1),
)


class WrongAnswer(Exception):
    """A contestant gave back something else than what was written."""


def check(contestant: Contestant, wanted: np.ndarray, expected: Payloads) -> None:
    """Raise `WrongAnswer` unless every way to read gives the records expected."""
    answers = {
        ALL: (contestant.all_bytes(wanted)(), list(expected)),
        ONE: (contestant.one_by_one(wanted)(), list(expected)),
        FIRST: (contestant.first_bytes(wanted)(), sum(payload[0] for payload in expected)),
    }
    for column, (found, right) in answers.items():
        if found != right:
            raise WrongAnswer(f"{contestant.name}: {column}: not what was written")


def lifetime(
    contestant: Contestant, payloads: Payloads, digests: np.ndarray, case: Case, number: int
) -> dict[str, float]:
    """Take one contestant through its whole life in round `number` → figure by column."""
    n = max(2, round(len(payloads) * contestant.share))
    singles = 0 if case.writes_only else min(SINGLES, max(1, n // 40))
    bulk, few = payloads[: n - singles], payloads[n - singles : n]
    size = sum(map(len, bulk))
    contestant.commit_every, contestant.algorithm = case.commit_every, case.algorithm
    found: dict[str, float] = {}

    contestant.open()
    os.sync()  # what others left to be written must not be paid here
    found[WRITE] = 1e6 * harness.seconds(lambda: contestant.write(bulk)) / len(bulk)
    contestant.close()
    os.sync()
    found[SIZE] = contestant.nbytes() / size
    found[OPEN] = 1e3 * harness.seconds(contestant.open)
    asked = picks(min(READS, n), len(bulk), number)  # the same questions for all
    if contestant.reads and number == 0:
        few_asked = asked[:ONE_READS]
        check(contestant, digests[few_asked], [bulk[i] for i in few_asked.tolist()])
    if not case.writes_only:
        found |= _reads(contestant, digests[asked])
        found |= _changes(contestant, few, digests, len(bulk), size, number)
    contestant.close()
    return found


def _reads(contestant: Contestant, wanted: np.ndarray) -> dict[str, float]:
    if not contestant.reads:
        return {}
    found = {}
    for column, prepare, keys in (
        (FIRST, contestant.first_bytes, wanted),
        (ALL, contestant.all_bytes, wanted),
        (ONE, contestant.one_by_one, wanted[:ONE_READS]),
    ):
        found[column] = 1e6 * harness.seconds(prepare(keys)) / len(keys)
    return found


def _changes(
    contestant: Contestant, few: Payloads, digests: np.ndarray, n: int, size: int, number: int
) -> dict[str, float]:
    found = {}
    if contestant.can_compact:
        found[COMPACT] = 1e6 * harness.seconds(contestant.compact) / n
        contestant.close()
        os.sync()
        found[COMPACTED] = contestant.nbytes() / size
        contestant.open()
    if contestant.can_delete:
        random = np.random.default_rng([harness.SEED, number])
        removed = digests[random.permutation(n)[: max(1, int(DELETED * n))]]
        contestant.commit_every = 1
        found[SINGLE] = 1e6 * harness.seconds(lambda: contestant.write(few)) / len(few)
        found[DELETE] = 1e6 * harness.seconds(contestant.delete(removed)) / len(removed)
    return found


def race(result: Result, case: Case, folder: Path) -> None:
    """Take all contestants of a case through their lives, round by round, inside `folder`."""
    payloads = payloads_of(case.n, case.size, source_text())
    digests = digests_of(payloads, case.algorithm)
    samples: dict[tuple[str, type[Contestant]], list[float]] = {}
    for number in range(case.rounds):
        for make in case.makers:
            with tempfile.TemporaryDirectory(dir=folder) as own:
                try:
                    contestant = make(Path(own))
                except ImportError as error:
                    result.left_out[make.name] = str(error)
                    continue
                figures = lifetime(contestant, payloads, digests, case, number)
            for column, figure in figures.items():
                samples.setdefault((column, make), []).append(figure)
    for (column, make), figures_of in samples.items():
        result.add(case.title, column, make.name, make.kind, figures_of)


def fill(
    make: type[Contestant], folder: Path, payloads: Payloads, algorithm: str = "sha256"
) -> Contestant:
    """Return a contestant that holds `payloads`, closed and opened again, in a folder of its own.

    Raises `WrongAnswer` where it gives back something else.
    """
    contestant = make(Path(tempfile.mkdtemp(dir=folder)))
    contestant.algorithm = algorithm
    contestant.open()
    contestant.write(payloads)
    contestant.close()
    contestant.open()
    some = [payloads[i] for i in picks(min(1000, len(payloads)), len(payloads)).tolist()]
    check(contestant, digests_of(some, algorithm), some)
    return contestant


def add_headlines(result: Result, cases: Sequence[Case]) -> None:
    """Hold what the cases found against the targets, most of which are for 512 bytes."""
    for case in cases:
        held = case.size == 512
        for rival in (Lmdb, LmdbMulti):
            times = 8.0 if case.algorithm == "sha256" else 10.0
            _against(result, case, WRITE, rival.name, times if held else None)
        for floor in (NamelessFile, HashedFile, PlainFile):
            share = 0.6 if held and case.algorithm == "sha256" else None
            _against(result, case, WRITE, floor.name, None if floor is PlainFile else share)
        if not case.writes_only:
            for column in (WRITE, ALL, ONE, SINGLE):
                _ahead(result, case, column)
            _sizes(result, case)


def _against(
    result: Result, case: Case, column: str, rival: str, target: float | None, note: str = ""
) -> None:
    what = f"{case.title}, {column.rpartition(' (')[0]}: {note}{rival} / ours"
    theirs, ours = (result.samples(case.title, column, name) for name in (rival, HashMem.name))
    result.ratio(what, theirs, ours, target, at_least=True)


def _ahead(result: Result, case: Case, column: str) -> None:
    """Compare with the fastest rival but LMDB itself, of those that held a fair share."""
    times = {}
    for make in case.makers:
        found = result.samples(case.title, column, make.name)
        fair = make.kind == "rival" and make.share >= FAIR_SHARE and not issubclass(make, Lmdb)
        if found and fair:
            times[make.name] = statistics.median(found)
    if times:
        fastest = min(times, key=lambda name: times[name])
        _against(result, case, column, fastest, 1.0, "fastest other, ")


def _sizes(result: Result, case: Case) -> None:
    written, compacted = (
        result.samples(case.title, column, HashMem.name) for column in (SIZE, COMPACTED)
    )
    result.headline(f"{case.title}: {SIZE}", written, 1.3)
    allowed = 1.05 + 48 / case.size + (1 << 20) / (case.n * case.size)
    result.headline(
        f"{case.title}: file after compact / (1.05 × payload + 48 B a record + 1 MiB)",
        [figure / allowed for figure in compacted or ()],
        1.0,
    )
