"""Experiment: what digests cost that an attacker has ground, with and without a secret seed."""

import secrets
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hashmem.digests import Digests
from hashmem.kernels.reference.hashing import bucket_of, expand_keys, hash_digests
from hashmem.laboratory import specimens
from hashmem.laboratory.experiment import Experiment, Row, Sizes, figure
from hashmem.laboratory.filling import KINDS, SEED, digests_of, empty
from hashmem.laboratory.throughput import seconds
from hashmem.tables import DigestTable

__all__ = ["home_buckets", "measure", "sharing_low_bits", "sharing_one_bucket"]

NAME = "attack"
TITLE = "The cost of an attack, with and without seeds"
METHOD = """\
Four sets of digests of 16 bytes: random ones; ones that share their low 20 bits, which whoever
makes contents can grind at about a million hashes each and which are made here by writing those
bits; ones that agree in their first 8 bytes, beyond anyone's grinding but not beyond whoever writes
what is no digest, made the same way; and ones really ground for one bucket of a table whose seed is
known, digest after digest, by trying. They go into an unseeded specimen (linear probing by low
bits, half full; not those that agree in all it looks at), and into hashmem's tables at their
default loads, under the seed that the attacker knows and under a random one. *Probes* are those of
a hit, *longest* the most. *Hashed* is how many bytes of a digest the table hashes in the end: the
first 8, until too many digests agree in them or one finds no place; then all; after that it
*reseeds*. Times are nanoseconds an item, medians of rounds in which the sets take turns; each
sample is the mean of as many calls as take 10 ms together, after one to warm up, so that the same
work takes the same time. An insert fills an empty table, under a random seed another one each time.
The specimen finds in NumPy, all searches side by side, so only its own rows compare in time; its
insert takes shortcuts and would show nothing of the attack, so it has no time. *Times random* is
the find time as a multiple of random digests' in the same place."""

SHARED_BITS = 20
WIDTH = 16
HASHED = 8  # leading bytes that a table hashes at first
KNOWN, SECRET = "known seed", "random seed"
UNSEEDED = "unseeded linear probing"
BLOCK = 1 << 18  # digests tried at once
LEAST = 0.01  # seconds of a sample: a thousand digests are found in less than the clock's noise

Buckets = NDArray[np.int64]


@dataclass(frozen=True)
class Set:
    """Digests, and where they were aimed."""

    name: str
    digests: Digests
    hashes: float  # an attacker computes for one of them, on average


def home_buckets(digests: Digests, seed: int, buckets: int) -> Buckets:
    """Return the bucket (n,) that a table of `buckets` under `seed` looks for each digest in first.

    What an attacker can compute who knows the seed, as long as a table hashes the first 8 bytes.
    """
    return bucket_of(hash_digests(digests[:, :HASHED], expand_keys(seed)), buckets)


def sharing_low_bits(n: int) -> Digests:
    """Return `n` digests (n, 16) that agree in their low bits, little-endian."""
    words = digests_of(n).view("<u8")[:, 0]
    shared = np.uint64((1 << SHARED_BITS) - 1)
    return _widened((words & ~shared | np.uint64(0xBEEF)).astype("<u8").view(np.uint8))


def sharing_first_bytes(n: int) -> Digests:
    """Return `n` digests (n, 16) that agree in the 8 bytes that a table hashes at first."""
    return _widened(np.zeros(n * HASHED, np.uint8))


def sharing_one_bucket(n: int, seed: int, buckets: int) -> tuple[Digests, int]:
    """Grind `n` digests (n, 16) for bucket 0, and tell how many were tried: about n × `buckets`."""
    random = np.random.default_rng(SEED)
    found: list[Digests] = []
    have = tried = 0
    while have < n:
        block = random.integers(0, 256, (BLOCK, HASHED), dtype=np.uint8)
        hits = np.flatnonzero(home_buckets(block, seed, buckets) == 0)[: n - have]
        found.append(block[hits])
        have += len(hits)
        tried += int(hits[-1]) + 1 if have == n else BLOCK
    return _widened(np.concatenate(found)), tried


def _widened(heads: NDArray[np.uint8]) -> Digests:
    """Digests (n, 16) that begin with `heads` and go on at random."""
    heads = heads.reshape(-1, HASHED)
    return np.hstack([heads, digests_of(len(heads), first=1 << 41)])


def measure(sizes: Sizes) -> Experiment:
    """Insert and find each set in each table: probes, time, and what it cost the attacker."""
    n = sizes.attacked
    shared = [
        Set("random", _widened(digests_of(n, first=1 << 40)), 0.0),
        Set(f"sharing {SHARED_BITS} low bits", sharing_low_bits(n), 2.0**SHARED_BITS),
    ]
    agreeing = Set(f"agreeing in {HASHED} bytes", sharing_first_bytes(n), 2.0 ** (8 * HASHED))
    rows = _attacked(shared, sizes.rounds)
    for kind in KINDS:
        buckets = empty(kind, n, _load(kind), SEED).statistics().buckets
        aimed, tried = sharing_one_bucket(sizes.aimed, SEED, buckets)
        mine = [*shared, agreeing, Set("ground for one bucket", aimed, tried / sizes.aimed)]
        rows += _defended(kind, mine, n, sizes.rounds)
    _compare(rows)
    return Experiment(NAME, TITLE, METHOD, _reading(rows), rows)


def _load(kind: type[DigestTable]) -> float:
    return 2.0 if kind.__name__ == "ChainingTable" else 0.9


def _attacked(sets: list[Set], rounds: int) -> list[Row]:
    tables = [_specimen(one) for one in sets]
    found: list[list[float]] = [[] for _ in sets]
    for _ in range(rounds):
        for samples, (_, search) in zip(found, tables, strict=True):
            samples.append(_sample(search))
    return [
        _row(one, UNSEEDED, "none", probes, None, samples, None, 0)
        for one, (probes, _), samples in zip(sets, tables, found, strict=True)
    ]


def _specimen(one: Set) -> tuple[Buckets, Callable[[], object]]:
    """The probes of each digest in an unseeded table half full, and the search for all of them."""
    words = one.digests.view("<u8")[:, 0].copy()
    size = 2 << (len(words) - 1).bit_length()
    homes = (words % np.uint64(size)).astype(np.int64)
    keys, table = words.astype(np.int64), np.full(size, -1)
    slots, probes = specimens.linear_probing(homes, size)
    table[slots] = keys
    return probes, lambda: specimens.find_linear(keys, table, homes)


def _defended(kind: type[DigestTable], sets: list[Set], capacity: int, rounds: int) -> list[Row]:
    tried = [_Tried(kind, seed, one, capacity) for seed in (SEED, None) for one in sets]
    for _ in range(rounds):
        for each in tried:
            each.time()
    return [each.row() for each in tried]


class _Tried:
    """One set in one kind of table under one seed, a random one where that is None."""

    def __init__(self, kind: type[DigestTable], seed: int | None, one: Set, capacity: int) -> None:
        self._kind, self._seed, self._set, self._capacity = kind, seed, one, capacity
        self._values = np.arange(len(one.digests))
        self._inserted: list[float] = []
        self._found: list[float] = []
        self._table = self._empty()

    def time(self) -> None:
        """Take one sample of an insert and one of a find."""
        self._inserted.append(_sample(self._insert, self._renew))
        self._found.append(_sample(self._find))

    def row(self) -> Row:
        measured = self._table.statistics()
        probes = np.repeat(np.arange(len(measured.hit_probes)), measured.hit_probes)
        return _row(
            self._set, self._kind.__name__, SECRET if self._seed is None else KNOWN, probes,
            self._inserted, self._found, measured.hashed, measured.reseeds,
        )  # fmt: skip

    def _empty(self) -> DigestTable:
        used = secrets.randbits(128) if self._seed is None else self._seed
        return empty(self._kind, self._capacity, _load(self._kind), used, WIDTH)

    def _renew(self) -> None:
        self._table = self._empty()

    def _insert(self) -> None:
        self._table.insert(self._set.digests, self._values)

    def _find(self) -> None:
        self._table.find(self._set.digests)


def _sample(call: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Seconds of one call: the mean of as many as take `LEAST`, each after one of `before`.

    Only the calls are timed, and the first, which finds caches cold, is not.
    """
    before()
    call()
    took, calls = 0.0, 0
    while took < LEAST:
        before()
        took += seconds(call)
        calls += 1
    return took / calls


def _row(
    one: Set, table: str, seed: str, probes: Buckets, inserted: list[float] | None,
    found: list[float], hashed: int | None, reseeds: int,
) -> Row:  # fmt: skip
    n = len(probes)
    return {
        "table": table, "seed": seed, "digests": one.name, "n": n,
        "hashes an attacker needs": n * one.hashes,
        "probes": float(probes.mean()), "longest": int(probes.max()), "hashed": hashed,
        "reseeds": reseeds,
        "insert (ns)": None if inserted is None else 1e9 * statistics.median(inserted) / n,
        "find (ns)": 1e9 * statistics.median(found) / n,
    }  # fmt: skip


def _compare(rows: list[Row]) -> None:
    random = {(r["table"], r["seed"]): r["find (ns)"] for r in rows if r["digests"] == "random"}
    for row in rows:
        row["times random"] = row["find (ns)"] / random[row["table"], row["seed"]]


def _reading(rows: list[Row]) -> str:
    def told(row: Row) -> str:
        whole = f", all {WIDTH} bytes hashed" if row["hashed"] == WIDTH else ""
        renewed = f", reseeded {row['reseeds']}×" if row["reseeds"] else ""
        return (
            f"{figure(row['probes'])} probes on average, {row['longest']} at most{whole}{renewed}, "
            f"{figure(row['times random'])}× the time of random ones"
        )

    broken = next(r for r in rows if r["seed"] == "none" and r["digests"] != "random")
    parts = [
        f"Without a seed {figure(broken['n'])} digests that share {SHARED_BITS} bits take "
        f"{told(broken)}."
    ]
    for row in rows:
        if row["seed"] == KNOWN and row["digests"].startswith("ground"):
            parts.append(
                f"{row['table']}, ground for a seed that is known ({figure(row['n'])} digests, "
                f"{row['hashes an attacker needs']:.1e} hashes): {told(row)}."
            )
    for kind in dict.fromkeys(r["table"] for r in rows if r["seed"] == SECRET):
        hostile = [
            r for r in rows
            if r["table"] == kind and r["seed"] == SECRET and r["digests"] != "random"
        ]  # fmt: skip
        worst = max(hostile, key=lambda row: row["times random"])
        parts.append(
            f"{kind} under a random seed, the slowest of three hostile sets "
            f"({worst['digests']}): {told(worst)}."
        )
    return " ".join(parts)
