"""Stores: every figure of a store's life, beside LMDB used directly and other stores.

Records are pieces of the Python standard library's source, each with a counter stamped in so that
all are distinct, addressed by a digest that is computed within the timed write: SHA-256 by hashlib,
or xxh3_128 by the xxhash package; by hashmem itself where it is hashmem's turn. Every 50 000
records (1000 of 64 KiB) are made durable before the next, by fsync or the library's own equivalent.

**The race.** Within a round each contestant in turn fills an empty folder, is closed and opened
again, and reads random digests (with repeats, the file's pages still in memory): the first byte of
every record, every record as a bytes object in as few calls as it takes, and one record a call.
Then it compacts, commits some records one at a time, and deletes one in twenty. What it reads is
compared once with what was written. Each at its best settings of those tried:

- **lmdb**: one entry per record, keys sorted within each commit; once with `put` and `get`, once
  with `putmulti` and `getmulti` of 100 keys at a time. It has no compaction in place.
- **libmdbx**: the same with `put` and `get` through ctypes, on one record in five.
- **sqlite3**, **apsw**: a table with a unique index on the digest, WAL, synchronous=FULL, 256 MiB
  cache, memory-mapped; `VACUUM` compacts. On one record in five.
- **diskcache**: one transaction a commit, nothing evicted, synchronous=FULL; on one record in
  twenty.
- **rocksdict**: raw mode, one synced WriteBatch a commit, Bloom filters, 256 MiB block cache; once
  compressed, so that its files can be smaller than the payload, once not, which reads faster.
- **plyvel** (LevelDB): one synced batch a commit, Bloom filters, 256 MiB block cache, uncompressed.
- **lsm-db**: one transaction a commit, write_safety full, memory-mapped, trees of 32 MiB.
- **unqlite**: one transaction a commit; on one record in two hundred.
- **plain file**: the same bytes appended and synced, with digests by hashlib and a dict of places
  in memory that would be lost; with digests by `digest_many`, thrown away; and without digests.
  Floors, not stores.

pyrocksdb and python-rocksdb do not build against what pip brings, and leveldb is the engine of
plyvel. Who ran on fewer records is favoured, and who ran on fewer than one in five is not called
the fastest.

**Reading.** From a million records of 512 bytes. *Up to Records*: what `get_many` does at once;
*both ends*: the first and the last byte of every record read in C. *As Python objects*: a list of
all asked for, in batches of several sizes, each library quoted at its best. *One*: means of 2000
calls. *Verified*: beside the digests of the same contents, in memory already.

**Commits of one record** upon 50 000 others, by one thread and by eight at once through one handle.
**Ten thousand of them**, and what later reads cost beside the same records in one commit.

**Steady state.** Records of 100 to 4096 bytes (sizes spread evenly by their logarithm) are
committed, and once there is enough, each commit is followed by one that deletes as many bytes of
random records as it brought. No `compact`, no snapshot held. Once the payload was written over, the
file is put beside the payload that lives, 24 times until it was written over four times.
**Bytes written** is what the kernel counts for a process (`/proc/self/io`) that commits records of
512 bytes upon 50 000 others, so many a commit.

Ten million records, and what opening them takes, have a bench of their own.
"""

import tempfile
from pathlib import Path

from bench import harness, store_commits, store_fragments, store_race, store_reads, store_space
from bench.harness import Result
from bench.machine import machine

PARTS = {
    "reads": store_reads.measure,
    "commits": store_commits.measure,
    "fragments": store_fragments.measure,
    "space": store_space.measure,
}


def run(quick: bool = False, folder: Path | None = None, parts: tuple[str, ...] = ()) -> Result:
    """Race every contestant at every size, then measure the parts, in folders inside `folder`.

    `parts` chooses some: "race" or names of `PARTS`; by default all.
    """
    result = Result("store", __doc__)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        own = Path(temporary)
        result.machine = machine(own)
        if not parts or "race" in parts:
            cases = store_race.QUICK_CASES if quick else store_race.CASES
            for case in cases:
                store_race.race(result, case, own)
            store_race.add_headlines(result, cases)
        for name, measure in PARTS.items():
            if not parts or name in parts:
                measure(result, own, quick)
    return result


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's)")
    parser.add_argument(
        "--part",
        action="append",
        choices=("race", *PARTS),
        help="this part only, and no results; may be given again (default: all parts)",
    )
    options = parser.parse_args()
    result = run(options.quick, options.folder, tuple(options.part or ()))
    if options.part and options.results is None:
        result.print()
    else:
        harness.finish(result, options)


if __name__ == "__main__":
    main()
