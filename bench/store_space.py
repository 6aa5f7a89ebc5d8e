"""Space: the file in the steady state of commits and deletions, and bytes written to the disk.

*Steady state*: records of 100 to 4096 bytes (sizes spread evenly by their logarithm) are committed,
and once there is enough, each commit is followed by one that deletes as many bytes of random
records as it brought. No `compact`, no snapshot held. Three mixes of commits: 1 to 20 records, 2000
to 20 000, and 1 to 20 000, spread by their logarithm. Once the payload was written over, the file
is put beside the payload that lives, 24 times until it was written over four times.

*Bytes written*: what the kernel counts for a process (`/proc/self/io`, what was given up before it
reached the disk taken off) that commits records of 512 bytes upon 50 000 others, so many a commit,
as a multiple of the payload. LMDB and a file, appended and synced, do the same commits.
"""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench import harness
from bench.harness import Result
from bench.store_contract import Contestant, HashMem, NamelessFile
from bench.store_data import digests_of, joined, payloads_of, source_text
from bench.store_lmdb import LmdbMulti
from bench.store_race import check

MIXES = {  # records a commit, least and most; bytes that live
    "commits of 1 to 20": (1, 20, 8 << 20),
    "commits of 2000 to 20 000": (2000, 20_000, 128 << 20),
    "commits of 1 to 20 000": (1, 20_000, 128 << 20),
}
QUICK_COMMIT, QUICK_LIVE = 64, 1024  # divisors of records a commit, of bytes that live
SIZES = (100, 4096)  # bytes of a record, least and most
TURNS = 4.0  # times that the payload is written over, once before the first look
LOOKS, QUICK_LOOKS = 24, 4  # at the file's size, evenly over the other turns
STEADY = "Steady state, file / payload that lives"
STEADY_WRITTEN = "Steady state, bytes written to disk / payload put"

COMMITS = {1: 5000, 10: 1000, 100: 500, 1000: 100, 50_000: 4}  # records a commit: how many commits
QUICK_COMMITS = {1: 10, 10: 5}
HELD, QUICK_HELD = 50_000, 200  # records there before
WRITTEN = "Bytes written to disk / payload"
KINDS: dict[str, type[Contestant]] = {
    make.name: make for make in (HashMem, LmdbMulti, NamelessFile)
}


def measure(result: Result, folder: Path, quick: bool) -> None:
    """Add both tables, from stores made in `folder`, and hold them against LMDB and the targets."""
    for mix in MIXES:
        shares: dict[type[Contestant], Any] = {}
        for make in (HashMem, LmdbMulti):
            with tempfile.TemporaryDirectory(dir=folder) as own:
                found, shares[make] = steady(make(Path(own)), mix, quick)
            result.add(STEADY, mix, make.name, make.kind, found)
            if shares[make] is not None:
                result.add(STEADY_WRITTEN, mix, make.name, make.kind, [shares[make]])
            if make is HashMem:
                result.headline(f"steady state, {mix}: file / payload, highest", [max(found)], 1.3)
        if None not in shares.values():
            above = shares[HashMem] - shares[LmdbMulti]
            what = f"steady state, {mix}: bytes written / payload, ours less LMDB's"
            result.headline(what, [above], 4)
    _written(result, folder, quick)


# ---------------------------------------------------------------------------------- steady state


def _spread(random: np.random.Generator, least: int, most: int, n: int) -> np.ndarray:
    """Draw n integers, uniform in their logarithm."""
    drawn = np.exp(random.uniform(np.log(least), np.log(most + 1), n))
    return np.clip(drawn.astype(np.int64), least, most)


def _commits(
    random: np.random.Generator, least: int, most: int, text: bytes
) -> Iterator[list[bytes]]:
    """Yield commit after commit of distinct records, for ever."""
    number = itertools.count()
    while True:
        sizes = _spread(random, *SIZES, int(_spread(random, least, most, 1)[0]))
        starts = random.integers(0, len(text) - SIZES[1], len(sizes))
        yield [
            text[start : start + size - 8] + next(number).to_bytes(8, "little")
            for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)
        ]


def steady(contestant: Contestant, mix: str, quick: bool) -> tuple[list[float], float | None]:
    """Write and delete as the mix says → the file's bytes / those that live, `LOOKS` times, and
    the bytes that went to the disk / those of all records put, None where nobody counts."""
    least, most, enough = MIXES[mix]
    if quick:
        enough //= QUICK_LIVE
        least, most = max(1, least // QUICK_COMMIT), max(9, most // QUICK_COMMIT)
    random = np.random.default_rng(harness.SEED)
    contestant.commit_every = most
    contestant.open()
    alive: list[tuple[bytes, int]] = []  # digest, bytes
    living = written = 0
    looks: list[float] = []
    count = QUICK_LOOKS if quick else LOOKS
    before = _counted()
    due = enough * np.linspace(2, 1 + TURNS, count)
    part: list[bytes] = []
    for part in _commits(random, least, most, source_text()):
        contestant.write(part)
        brought = sum(map(len, part))
        alive += zip(map(bytes, digests_of(part)), map(len, part), strict=True)
        living, written = living + brought, written + brought
        removed = []
        while living > enough:
            at = int(random.integers(len(alive)))
            alive[at], alive[-1] = alive[-1], alive[at]
            digest, size = alive.pop()
            removed.append(digest)
            living -= size
        if removed:
            contestant.delete(joined(removed))()
        if written >= due[len(looks)]:
            looks.append(contestant.nbytes() / living)
            if len(looks) == count:
                break
    kept = {digest for digest, _ in alive}
    pairs = zip(map(bytes, digests_of(part)), part, strict=True)
    last = [(digest, payload) for digest, payload in pairs if digest in kept]
    if last:
        check(contestant, joined([d for d, _ in last]), [payload for _, payload in last])
    contestant.close()
    after = _counted()
    if before is None or after is None or after == before:
        return looks, None
    return looks, (after - before) / written


# --------------------------------------------------------------------------------- bytes written


def _counted() -> int | None:
    """Return the bytes this process gave to the disk so far; None where nobody counts them."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    of = {name: int(value) for name, value in (line.split(": ") for line in lines)}
    return of["write_bytes"] - of["cancelled_write_bytes"]


def bytes_written(name: str, folder: Path, quick: bool) -> list[float] | None:
    """Return bytes written / payload for each number of records a commit, in a fresh process."""
    contestant, text = KINDS[name](folder), source_text()
    held = QUICK_HELD if quick else HELD
    contestant.open()
    contestant.write(payloads_of(held, 512, text))
    shares = []
    for records, commits in (QUICK_COMMITS if quick else COMMITS).items():
        contestant.commit_every = records
        payloads = payloads_of(records * commits, 512, text, held)
        held += len(payloads)
        before = _counted()
        contestant.write(payloads)
        after = _counted()
        if before is None or after is None or after == before:
            return None
        shares.append((after - before) / sum(map(len, payloads)))
    contestant.close()
    return shares


def _written(result: Result, folder: Path, quick: bool) -> None:
    found = {}
    for name in KINDS:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            found[name] = harness.in_child(bytes_written, name, Path(own), quick)
        if found[name] is None:
            result.left_out["bytes written"] = "this system does not count them there"
            return
    for i, records in enumerate(QUICK_COMMITS if quick else COMMITS):
        text = f"{records:,} a commit".replace(",", " ")
        for name, make in KINDS.items():
            result.add(WRITTEN, text, name, make.kind, [found[name][i]])
        above = found[HashMem.name][i] - found[LmdbMulti.name][i]
        result.headline(f"bytes written / payload, {text}: ours less LMDB's", [above], 4)
