"""The part of docs/reliability.md on crashes of a store, and on what others do against them."""

from collections.abc import Callable, Iterable
from typing import Any

# What others say of how they test for crashes: who, processes killed, power cuts, and the sources.
OTHERS = (
    (
        "SQLite",
        "A program forks writers, kills each after a random delay, and has the next one recover.",
        "A file layer of the tests' own holds back, reorders and damages writes that were not "
        "synced; another takes snapshots of a file system in memory at a growing number of "
        "operations and damages them. Afterwards a transaction is there whole or not at all, and "
        "`PRAGMA integrity_check` finds nothing. Failures during recovery are tested too.",
        (
            ("How SQLite is tested", "https://www.sqlite.org/testing.html"),
            ("test6.c", "https://www.sqlite.org/src/file/src/test6.c"),
            ("crashtest1.c", "https://www.sqlite.org/src/file/test/crashtest1.c"),
        ),
    ),
    (
        "LMDB",
        "Its documentation states the design, under which nothing needs to be recovered, and names "
        "no campaign.",
        "Others have done it: tracing and rebuilding (ALICE, OSDI 2014) found one thing it relies "
        "on, that a write of 106 bytes within a sector is atomic; cutting power below a file "
        "system (OSDI 2014) one more, that `fdatasync` keeps the size of a file that grew.",
        (
            ("lmdb.h", "http://www.lmdb.tech/doc/"),
            (
                "ALICE",
                "https://www.usenix.org/conference/osdi14/technical-sessions/presentation/pillai",
            ),
            (
                "its author on ALICE",
                "https://www.openldap.org/lists/openldap-technical/201410/msg00023.html",
            ),
            (
                "on fdatasync",
                "https://www.mail-archive.com/openldap-devel@openldap.org/msg05303.html",
            ),
        ),
    ),
    (
        "redb",
        "None; a fuzzer with coverage to guide it has the file fail from a random operation on, "
        "opens it again and compares with a map.",
        "None: in the fuzzer's file a sync does nothing. The design says what it asks of a disk: "
        "that what was synced stays, and that a write damages no byte beside it.",
        (
            (
                "fuzz_redb.rs",
                "https://github.com/cberner/redb/blob/master/fuzz/fuzz_targets/fuzz_redb.rs",
            ),
            ("design.md", "https://github.com/cberner/redb/blob/master/docs/design.md"),
        ),
    ),
    (
        "RocksDB",
        "Runs all the time: `db_crashtest.py` starts `db_stress` with random options, kills it "
        "after a time, or has it kill itself at chosen places in the code; what was written is "
        "compared with a file of expected values.",
        "A file system of the tests' own drops what was not synced; from a trace of operations it "
        "is told whether what is left is a state without holes.",
        (
            ("Stress test", "https://github.com/facebook/rocksdb/wiki/Stress-test"),
            (
                "lost buffered writes",
                "https://rocksdb.org/blog/2022/10/05/lost-buffered-write-recovery.html",
            ),
        ),
    ),
)

Table = Callable[[Iterable[str], Iterable[Iterable[str]]], str]
Number = Callable[[float], str]


def kill(found: dict[str, Any], method: str, table: Table, number: Number) -> str:
    """The section of `bench.reliability.kill`."""
    lost, half, other = (number(found[key]) for key in ("lost", "half", "other"))
    parts = [
        "## Writers that are killed",
        method,
        f"**{number(found['cycles'])} kills: {lost} times something acknowledged was lost, {half} "
        f"times something was half there or damaged, {other} times something else failed.** "
        f"{number(found['acknowledged'])} steps were acknowledged; of those under way, "
        f"{number(found['there'])} were there and {number(found['not_there'])} were not. "
        f"{number(found['stores'])} stores; two writers died at once in "
        f"{number(found['two_writers'])} of the kills, a reader with them in "
        f"{number(found['readers'])}. {number(found['seconds'])} seconds.",
        table(["under way when killed", "writers"], _counts(found["kills"], number)),
    ]
    return "\n\n".join(parts + _failures(found))


def power(found: dict[str, Any], method: str, table: Table, number: Number) -> str:
    """The section of `bench.reliability.power`."""
    lost, half, other = (number(found[key]) for key in ("lost", "half", "other"))
    depths = [number(found["depths"].get(depth, 0)) for depth in ("1", "2", "3")]
    parts = [
        "## Power cuts",
        method,
        f"**{number(found['images'])} images: {lost} had lost something acknowledged, {half} were "
        f"no commit boundary or damaged, {other} failed otherwise.** {depths[0]} of a first cut, "
        f"{depths[1]} of a second and {depths[2]} of a third one. Where a step was under way, "
        f"{number(found['under_way'])} images had it and {number(found['before'])} had not. "
        f"{number(found['recordings'])} recordings of {number(found['events'])} calls. "
        f"{number(found['seconds'])} seconds.",
        table(["what arrived of what was not synced", "images"], _patterns(found, number)),
        table(["names", "images"], _counts(found["orders"], number)),
        table(["under way", "images"], _counts(found["cuts"], number)),
    ]
    return "\n\n".join(parts + _failures(found))


PATTERNS = {
    "none": "nothing",
    "all": "everything",
    "some": "some writes",
    "one": "one write",
    "all but one": "all writes but one",
    "order": "some writes, in another order",
    "sectors": "sectors of 512 bytes, each or not",
    "pages": "pages of 4 KiB, each or not",
    "ends": "the first or the last part of each write",
    "zeros": "some writes; of the others the file's size alone",
}


def _patterns(found: dict[str, Any], number: Number) -> list[list[str]]:
    return [[what, number(found["patterns"].get(name, 0))] for name, what in PATTERNS.items()]


def _counts(counts: dict[str, int], number: Number) -> list[list[str]]:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [[name, number(count)] for name, count in ordered]


def _failures(found: dict[str, Any]) -> list[str]:
    return [f"- {failure['kind']}: {failure['what'][:500]}" for failure in found["failures"]]


def soak(found: dict[str, Any], method: str, table: Table, number: Number) -> str:
    """The section of `bench.reliability.soak`."""
    lines = [
        [
            what,
            *(f"{row[key]:.3g}" for key in ("first", "last", "ratio")),
            "" if row["flat"] else "no",
        ]
        for what, row in found["rows"].items()
    ]
    spaces = [window["space"] for window in found["processes"][0]]
    chosen = spaces[:: max(1, len(spaces) // 10)]
    window = found["seconds"] / max(1, len(spaces)) / 60
    places = [
        [
            f"{window * (1 + i * max(1, len(spaces) // 10)):.1f}",
            *(f"{one[key] / 2**20:.1f}" for key in ("files", "live", "dead", "bound")),
        ]
        for i, one in enumerate(chosen)
    ]
    after = found["compacted"]
    yes = {True: "yes", False: "no"}
    most = max(one["files"] / one["bound"] for one in spaces) if spaces else 0.0
    parts = [
        "## Soak",
        method,
        f"**{found['seconds'] / 60:.1f} minutes, {number(found['reads'])} records read and "
        f"compared, none missing or wrong; files within their bound: {yes[found['bounded']]} "
        f"(at most {100 * most:.0f} % of it); everything flat: {yes[found['flat']]}.** "
        f"{number(found['written'])} records written, {number(found['compactions'])} compactions. "
        f"After a last one the file has {after['files'] / 2**20:.1f} MiB for "
        f"{after['live'] / 2**20:.1f} MiB of payloads in {number(found['records'])} records.",
        table(["", "first third", "last third", "times", "flat"], lines),
        table(["minute", "files (MiB)", "live (MiB)", "deleted (MiB)", "bound (MiB)"], places),
    ]
    return "\n\n".join(parts)


def others(table: Table) -> str:
    """What SQLite, LMDB, redb and RocksDB say of their own tests."""
    lines = [
        [name, killed, cut, ", ".join(f"[{title}]({link})" for title, link in sources)]
        for name, killed, cut, sources in OTHERS
    ]
    return "\n\n".join(
        [
            "## What others do against crashes",
            "As their own pages and sources say.",
            table(["", "processes killed", "power cuts", "sources"], lines),
        ]
    )
