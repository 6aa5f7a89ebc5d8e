"""What the system refuses: no room, no rights, errors of the disk, files cut short or gone.

A shim (`faults.c`, compiled at run time, LD_PRELOAD) fails one call of a kind with one error, and
each call of each operation has its turn: opening and making a store, committing, merging,
compacting, closing, catching up with what others did. Once the one call fails, once that and all
that follow; once the process goes on afterwards, once it ends without cleaning up. Beside the shim
stand limits that the system itself enforces (RLIMIT_FSIZE, RLIMIT_AS), and files that are cut
short, emptied, removed or moved away, before the store is opened and while it is open.

- told: one of hashmem's own errors, which says what is wrong and, where there is no room or no
  right to write, what to do; then, the fault gone, the same handle commits what was pending,
  everything acknowledged is there and verified, and again after reopening
- ridden out: the operation succeeded all the same, and so does everything after it
- FAILURE: swallowed (a failed sync, and no error), unclear (an error that says too little),
  exception (not hashmem's own), unusable (an error after the fault has gone), lost (something
  acknowledged is not there, or `verify()` complains), crash or hang of the interpreter

`python -m bench.reliability.faults` goes on with the operations that are not kept in
`bench/results/`; `--only NAME` runs one.
"""

import ctypes
import errno
import itertools
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import harness
from bench.reliability import builds
from bench.reliability import store_campaigns as campaigns
from bench.reliability.store_specimens import SPECIMENS, files_in
from hashmem import MemoryStore
from hashmem.errors import HashMemError

NAME = "store_faults"
SHIM = "HASHMEM_FAULTS"  # in the environment: where the shim lies that this process runs with
ORDER = ("told", "ridden out", "swallowed", "unclear", "exception", "unusable", "lost")
FINE = ORDER[:2]
MOST_CALLS = 24  # of one kind in one operation that each have their turn

KINDS = {  # kind → its number in faults.c, and the errors that it may fail with
    "open": (1, (errno.EROFS, errno.EACCES, errno.EMFILE, errno.ENOSPC, errno.EIO)),
    "read": (2, (errno.EIO,)),
    "write": (3, (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)),
    "sync": (4, (errno.EIO, errno.ENOSPC, errno.EDQUOT)),
    "rename": (5, (errno.EIO, errno.ENOSPC, errno.EROFS)),
    "mmap": (6, (errno.ENOMEM,)),
    "truncate": (7, (errno.ENOSPC, errno.EIO)),
    "unlink": (8, (errno.EIO, errno.EROFS)),
    "lock": (9, (errno.ENOLCK,)),
    "mkdir": (10, (errno.ENOSPC, errno.EROFS)),
}
STICKY, SHORT = 1, 2
REMEDIES = {
    errno.ENOSPC: "space",
    errno.EDQUOT: "space",
    errno.EFBIG: "space",
    errno.EROFS: "read-only",
}

Stored = dict[bytes, bytes]


@dataclass
class Scene:
    """A store in the making: what is acknowledged, and what a handle has pending."""

    folder: Path
    acknowledged: Stored
    store: MemoryStore | None = None
    pending: Stored = field(default_factory=dict)

    def open(self, **options: Any) -> MemoryStore:
        self.store = MemoryStore(self.folder, **options)
        return self.store

    def opened(self) -> MemoryStore:
        return self.store or self.open()

    def put(self, name: str, sizes: tuple[int, ...]) -> None:
        """Put records of `sizes`, with all that a record may have, and commit nothing."""
        store = self.opened()
        payloads = [name.encode() + bytes([i]) * size for i, size in enumerate(sizes)]
        digests = store.put_many(payloads, [{"name": name, "i": i} for i in range(len(sizes))])
        store.link_many(digests[1:], digests[:-1])
        store.add_links(digests[1:], digests[:-1], "follows")
        store.write_column("number", digests, np.arange(len(sizes))[:, None])
        self.pending.update(zip(map(bytes, digests), payloads, strict=True))

    def commit(self) -> None:
        self.opened().commit()
        self.acknowledge()

    def close(self) -> None:
        store = self.opened()
        store.close()
        self.store = None
        self.acknowledge()

    def acknowledge(self) -> None:
        self.acknowledged |= self.pending
        self.pending.clear()

    def elsewhere(self, change: Callable[["Scene"], None]) -> None:
        """Another process does something to the store."""

        def job(tell: Callable[[Any], None]) -> None:
            other = Scene(self.folder, {})
            other.open()
            change(other)
            tell([[d.hex(), p.hex()] for d, p in other.acknowledged.items()])

        (told,) = campaigns.in_fork(job).told
        self.acknowledged |= {bytes.fromhex(d): bytes.fromhex(p) for d, p in told}


@dataclass(frozen=True)
class Scenario:
    """What is done before the fault, and during it."""

    before: Callable[[Scene], object]
    during: Callable[[Scene], object]


def _emptied(scene: Scene) -> None:
    shutil.rmtree(scene.folder)
    scene.acknowledged.clear()


def _nothing(scene: Scene) -> None:
    pass


def _compact(scene: Scene) -> None:
    scene.opened().compact()
    scene.acknowledge()


def _put_beside(scene: Scene) -> None:
    _put(scene)
    scene.elsewhere(_others_commit)


def _two_namespaces(scene: Scene) -> None:
    MemoryStore(scene.folder, namespace="other").close()
    scene.open()


SIZES = (0, 10, 5000, 100_000)


def _put(scene: Scene) -> None:
    scene.put("more", SIZES)


def _commits(scene: Scene) -> None:
    for i in range(10):
        scene.put(f"small {i}", (10,))
        scene.commit()


def _others_commit(scene: Scene) -> None:
    scene.put("of another process", SIZES)
    scene.commit()


def _wait(change: Callable[[Scene], None]) -> Callable[[Scene], None]:
    def before(scene: Scene) -> None:
        scene.open()
        scene.elsewhere(change)

    return before


def _read_all(scene: Scene) -> None:
    store = scene.opened()
    store.refresh()
    with store.get_many(list(scene.acknowledged), verify=True) as records:
        assert list(records) == list(scene.acknowledged.values())
    store.metadata_many(list(scene.acknowledged))


SCENARIOS = {
    "make": Scenario(_emptied, lambda scene: scene.open()),
    "open": Scenario(_nothing, lambda scene: scene.open()),
    "open read-only": Scenario(_nothing, lambda scene: scene.open(readonly=True)),
    "open another namespace": Scenario(
        _nothing, lambda scene: MemoryStore(scene.folder, namespace="new").close()
    ),
    "read": Scenario(lambda scene: scene.open(), _read_all),
    "commit": Scenario(_put, lambda scene: scene.commit()),
    "commit a large record": Scenario(
        lambda scene: scene.put("large", (5 << 20,)), lambda scene: scene.commit()
    ),
    "many commits": Scenario(lambda scene: scene.open(), _commits),
    "close": Scenario(_put, lambda scene: scene.close()),
    "compact": Scenario(_put, _compact),
    "refresh": Scenario(_wait(_others_commit), _read_all),
    "refresh after compacting": Scenario(_wait(lambda other: other.opened().compact()), _read_all),
    "commit after another's": Scenario(_put_beside, lambda scene: scene.commit()),
    "drop a namespace": Scenario(
        _two_namespaces,
        lambda scene: scene.opened().drop_namespace("other"),
    ),
}


# ------------------------------------------------------------------------------------ the shim


class Shim:
    """The shim that this process was started with."""

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.CDLL(os.environ[SHIM])
        for name in ("faults_seen", "faults_fired"):
            getattr(self._library, name).restype = ctypes.c_long
        self._library.faults_watch(str(folder).encode())

    def arm(self, kind: int, k: int, error: int, mode: int) -> None:
        self._library.faults_arm(kind, ctypes.c_long(k), error, mode)

    def disarm(self) -> tuple[int, int]:
        """The calls seen and failed since it was armed."""
        seen, fired = self._library.faults_seen(), self._library.faults_fired()
        self._library.faults_arm(0, ctypes.c_long(0), 0, 0)
        return int(seen), int(fired)


def compiled(folder: Path) -> Path:
    """Compile the shim into `folder`. Raises `OSError` or `CalledProcessError` where it cannot."""
    shim = folder / "faults.so"
    flags = ("-shared", "-fPIC", "-O1", "-std=gnu11", "-Wall", "-Wextra")
    source = str(Path(__file__).with_name("faults.c"))
    subprocess.run([builds.compiler(), *flags, source, "-o", str(shim), "-ldl"], check=True)
    return shim


# ------------------------------------------------------------------------------------ one case


@dataclass(frozen=True)
class Fault:
    """Which call fails, how."""

    kind: str
    error: int
    k: int
    mode: int = 0

    def __str__(self) -> str:
        how = {0: "", 1: ", and all after it", 2: ", short", 3: ", short, and all after it"}
        return f"{self.kind} {self.k} fails with {self.named}{how[self.mode]}"

    @property
    def named(self) -> str:
        return errno.errorcode[self.error]


Judged = tuple[str, str, int]  # outcome, note, calls of the kind that were seen
Tell = Callable[[Any], None]


def during_fault(shim: Shim, scene: Scene, scenario: Scenario, fault: Fault, dies: bool) -> Judged:
    """Run an operation with a fault, and see what is left."""
    scenario.before(scene)
    shim.arm(KINDS[fault.kind][0], fault.k, fault.error, fault.mode)
    raised: BaseException | None = None
    try:
        scenario.during(scene)
    except Exception as error:  # judged below
        raised = error
    seen, fired = shim.disarm()
    if not fired:
        return ("", "", seen) if raised is None else ("exception", _shown(raised), seen)
    outcome, note = judged(raised, fault, scene.folder)
    if outcome in FINE and not dies:
        after, what = usable(scene)
        outcome, note = (outcome, note) if after == "ok" else (after, f"{what}, after: {note}")
    return outcome, note, seen


def judged(raised: BaseException | None, fault: Fault, folder: Path) -> tuple[str, str]:
    """What an operation with a fault came to, by the error it raised."""
    if raised is None:
        return ("swallowed", "no error") if fault.kind == "sync" else ("ridden out", "")
    if not isinstance(raised, HashMemError):
        return "exception", _shown(raised)
    said = str(raised)
    remedy = REMEDIES.get(fault.error, "")
    if remedy and fault.kind in ("write", "sync", "rename", "truncate", "mkdir"):
        return ("told" if remedy in said.lower() else "unclear"), _shown(raised)
    names_it = str(folder) in said or os.strerror(fault.error) in said
    return ("told" if names_it else "unclear"), _shown(raised)


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def usable(scene: Scene) -> tuple[str, str]:
    """With the fault gone: commit, write more, read and verify everything, and again reopened."""
    step = "opening"
    try:
        if scene.store is not None and scene.store._backend.readonly:
            scene.store.close()
            scene.store = None
        store = scene.opened()
        for step in ("commit", "more", "reading", "reopening"):
            if step == "commit":
                scene.commit()
            elif step == "more":
                scene.put("after the fault", SIZES)
                scene.commit()
            elif step == "reopening":
                scene.close()
                store = scene.open()
            missing = lost(store, scene.acknowledged)
            if missing:
                return "lost", f"{step}: {missing}"
        store.close()
    except Exception as error:  # that is what is looked for
        return "unusable", f"{step}: {_shown(error)}"
    return "ok", ""


def lost(store: MemoryStore, acknowledged: Stored) -> str:
    """What of `acknowledged` is not there, and what `verify()` complains of."""
    store.refresh()
    with store.get_many(list(acknowledged), verify=True) as records:
        pairs = zip(records, acknowledged.values(), strict=True)
        wrong = sum(found != expected for found, expected in pairs)
    if wrong:
        return f"{wrong} of {len(acknowledged)} records are not there"
    return "; ".join(store.verify().damage)


# ------------------------------------------------------------------------------------ campaign


@dataclass
class Ground:
    """A store that each case begins with a copy of."""

    folder: Path
    files: dict[str, bytes]
    stored: Stored

    @classmethod
    def made(cls, folder: Path) -> "Ground":
        digests = SPECIMENS["mixed"](folder)[""]
        with MemoryStore(folder, readonly=True) as store, store.get_many(digests) as records:
            pairs = zip(digests, records, strict=True)
            stored = {digest: content for digest, content in pairs if content is not None}
        return cls(folder, files_in(folder), stored)

    def scene(self) -> Scene:
        campaigns.copied(self.files, self.folder)
        return Scene(self.folder, dict(self.stored))

    def case(self, job: Callable[[Scene], tuple[Any, ...]], dies: bool) -> tuple[Any, ...]:
        """Run a case in a child: what `job` returns. Where it dies, another child looks after."""
        scene = self.scene()

        def run(tell: Tell) -> None:
            found = job(scene)
            acknowledged = [[d.hex(), p.hex()] for d, p in scene.acknowledged.items()]
            tell([*found, acknowledged if dies else []])

        ended = campaigns.in_fork(run)
        if ended.what:
            return ended.what, "", 0
        *found, acknowledged = ended.told[0]
        if dies and found[0] in FINE:
            stored = {bytes.fromhex(d): bytes.fromhex(p) for d, p in acknowledged}
            left = Scene(self.folder, stored)
            after = campaigns.in_fork(partial(_tell_usable, left))
            outcome, note = after.told[0] if not after.what else (after.what, "")
            if outcome != "ok":
                found[:2] = outcome, f"{note}, in the next process, after: {found[1]}"
        return tuple(found)


def faults_of(calls: int, kind: str, errors: tuple[int, ...]) -> Iterator[Fault]:
    """Each call of a kind with each error; of many calls the first, the last and some between."""
    turns = range(calls)
    if calls > MOST_CALLS:
        third = MOST_CALLS // 3
        between = range(third, calls - third, max(1, (calls - 2 * third) // third))
        turns = sorted({*range(third), *between, *range(calls - third, calls)})  # type: ignore[assignment]
    for k, error in itertools.product(turns, errors):
        yield Fault(kind, error, k)
        yield Fault(kind, error, k, STICKY)
    if kind == "write":
        for k in turns:
            yield Fault(kind, errno.ENOSPC, k, SHORT)
            yield Fault(kind, errno.ENOSPC, k, SHORT | STICKY)


def run_scenario(
    found: dict[str, Any], ground: Ground, name: str, errors: int = 99, deaths: bool = True
) -> None:
    """Every fault of one operation, `errors` different ones a kind."""
    scenario = SCENARIOS[name]
    shim = Shim(ground.folder)
    for kind, (_, possible) in KINDS.items():
        probe = Fault(kind, possible[0], 1 << 40)
        outcome, note, calls = ground.case(
            partial(_with_fault, shim, scenario, probe, False), False
        )
        if outcome:
            count(found, name, "nothing", outcome, "without a fault", note)
            return
        for fault in faults_of(calls, kind, possible[:errors]):
            for dies in (False, True)[: 1 + deaths]:
                job = partial(_with_fault, shim, scenario, fault, dies)
                outcome, note, *_ = ground.case(job, dies)
                if outcome:
                    what = f"{fault}{', and the process ends' if dies else ''}"
                    count(found, name, f"{kind}: {fault.named}", outcome, what, note)


def _with_fault(shim: Shim, scenario: Scenario, fault: Fault, dies: bool, scene: Scene) -> Judged:
    return during_fault(shim, scene, scenario, fault, dies)


def count(
    found: dict[str, Any], scenario: str, fault: str, outcome: str, what: str, note: str
) -> None:
    found["cases"] += 1
    campaigns.add(found.setdefault("operations", {}), scenario, outcome)
    campaigns.add(found.setdefault("faults", {}), fault, outcome)
    if outcome not in FINE:
        kind = f"{outcome}: {scenario}, {fault}"
        campaigns.fail(found, kind, what=what, note=note)


# ------------------------------------------------------------- what needs no shim: limits, files


def _limited(limit: int, more: int, operate: Callable[[Scene], object], scene: Scene) -> Any:
    """Run an operation with so little `more` of what a limit of the system allows."""
    now = max(path.stat().st_size for path in scene.folder.iterdir())
    if limit == resource.RLIMIT_AS:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        now = pages * resource.getpagesize()
    soft, hard = resource.getrlimit(limit)
    raised: BaseException | None = None
    resource.setrlimit(limit, (now + more, hard))
    try:
        operate(scene)
    except Exception as error:  # judged below
        raised = error
    finally:
        resource.setrlimit(limit, (soft, hard))
    number = errno.EFBIG if limit == resource.RLIMIT_FSIZE else errno.ENOMEM
    outcome, note = judged(raised, Fault("write", number, 0), scene.folder)
    if outcome in FINE:
        after, what = usable(scene)
        outcome, note = (outcome, note) if after == "ok" else (after, f"{what}, after: {note}")
    return outcome, note


def run_limits(found: dict[str, Any], ground: Ground) -> None:
    for name in ("commit", "commit a large record", "many commits", "close", "compact"):
        for more in (-1 << 40, 0, 4096, 50_000, 1 << 20):
            scenario = SCENARIOS[name]

            def job(scene: Scene, scenario: Scenario = scenario, more: int = more) -> Any:
                scenario.before(scene)
                size = max(path.stat().st_size for path in scene.folder.iterdir())
                least = max(more, -size)
                return _limited(resource.RLIMIT_FSIZE, least, scenario.during, scene)

            outcome, note, *_ = ground.case(job, False)
            count(found, name, "RLIMIT_FSIZE", outcome, f"{more} bytes more", note)
    for name in ("open", "open read-only"):
        for mib in (64, 256, 1024, 4096):
            job = partial(_limited, resource.RLIMIT_AS, mib << 20, SCENARIOS[name].during)
            outcome, note, *_ = ground.case(job, False)
            count(found, name, "RLIMIT_AS", outcome, f"{mib} MiB more", note)


def damages(files: dict[str, bytes]) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """What may become of a store's files, by name: each can be put right again."""

    def cut(name: str, size: int) -> Callable[[Path], object]:
        return lambda folder: os.truncate(folder / name, size)

    def gone(name: str) -> Callable[[Path], object]:
        return lambda folder: os.rename(folder / name, folder.with_name("kept"))

    for name, data in files.items():
        size, page = len(data), 4096
        sizes = (0, 1, 100, page, 2 * page, 3 * page, size // 2, size - page, size - 1)
        for at in sorted({at for at in sizes if 0 <= at < size}):
            share = "all but a byte" if at == size - 1 else f"{at} bytes"
            if at in (size // 2, size - page) and at > 3 * page:
                share = "half" if at == size // 2 else "all but a page"
            yield f"{Path(name).suffix or name} cut to {share}", cut(name, at)
        yield f"{Path(name).suffix or name} gone", gone(name)
    yield (
        "CURRENT names another file",
        lambda folder: (folder / "CURRENT").write_text("hashmem 1\n000077.mdb\n"),
    )
    yield "CURRENT is garbage", lambda folder: (folder / "CURRENT").write_bytes(b"\xff\0" * 50)
    yield "folder gone", lambda folder: os.rename(folder, folder.with_name("kept"))
    yield "folder empty", _empty


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _look(scene: Scene) -> None:
    """All that a handle may do while something is wrong with the files."""
    errors: list[HashMemError] = []
    for step in ("refresh", "read", "verify", "commit", "close"):
        try:
            store = scene.opened()
            if step == "read":
                with store.get_many(list(scene.acknowledged), verify=True) as records:
                    for content, expected in zip(records, scene.acknowledged.values(), strict=True):
                        assert content in (expected, None), "other bytes"
            elif step == "commit":
                store.put(b"while something is wrong")
                store.commit()
            else:
                getattr(store, step)()
        except HashMemError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _tell_damaged(
    damage: Callable[[Path], object], is_open: bool, scene: Scene, tell: Tell
) -> None:
    if is_open:
        scene.open()
    damage(scene.folder)
    try:
        _look(scene)
    except HashMemError as error:
        clear = str(scene.folder) in str(error) or "damaged" in str(error)
        tell(("told" if clear else "unclear", _shown(error)))
    except Exception as error:  # that is what is looked for
        tell(("exception", _shown(error)))
    else:
        tell(("ridden out", ""))


def _tell_usable(scene: Scene, tell: Tell) -> None:
    tell(usable(scene))


def run_files(found: dict[str, Any], ground: Ground) -> None:
    """Files cut short, removed and overwritten, before opening and while open; then put back."""
    kept = ground.folder.with_name("kept")
    for (what, damage), is_open in itertools.product(damages(ground.files), (False, True)):
        scene = ground.scene()
        ended = campaigns.in_fork(partial(_tell_damaged, damage, is_open, scene))
        outcome, note = (ended.what, "") if ended.what else ended.told[0]
        if kept.is_dir():
            shutil.rmtree(kept)
        kept.unlink(missing_ok=True)
        if outcome in FINE:
            left = ground.scene()  # puts everything back
            after = campaigns.in_fork(partial(_tell_usable, left))
            if after.what or after.told[0][0] != "ok":
                outcome, note = after.what or after.told[0][0], f"put back, after: {note}"
        name = "opening what was damaged" if not is_open else "damage while open"
        count(found, name, what, outcome, what, note)


OTHERS: dict[str, Callable[[dict[str, Any], Ground], None]] = {
    "limits": run_limits,
    "files": run_files,
}


def section(found: dict[str, Any]) -> str:
    """The part of docs/reliability.md."""
    return "\n\n".join(
        [
            "## Faults",
            campaigns.method(found),
            f"**{campaigns.number(found['cases'])} faults, "
            f"{campaigns.number(found.get('failed', 0))} failures.**",
            campaigns.table(found["operations"], "operation", ORDER),
            campaigns.table(dict(sorted(found["faults"].items())), "fault", ORDER),
            campaigns.failures(found),
        ]
    )


def main() -> int:
    parser = campaigns.options_for(__doc__ or "", 0, "cases")
    names = [*SCENARIOS, *OTHERS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--quick", action="store_true", help="one error a kind, and no deaths")
    options = parser.parse_args()
    with campaigns.scratch() as folder:
        if SHIM not in os.environ:  # once more, with the shim
            shim = str(compiled(folder))
            command = [sys.executable, "-m", "bench.reliability.faults", *sys.argv[1:]]
            environment = {**os.environ, SHIM: shim, "LD_PRELOAD": shim}
            return subprocess.run(command, cwd=harness.ROOT, env=environment).returncode
        found = campaigns.kept(NAME, options)
        ground = Ground.made(folder / "store")
        with campaigns.Running(found, __doc__, options) as running:
            for name in options.only:
                if name in found.setdefault("done", []) or not running.is_in_time:
                    continue
                if name in OTHERS:
                    OTHERS[name](found, ground)
                else:
                    run_scenario(found, ground, name, *((1, False) if options.quick else ()))
                found["done"].append(name)
                running.keep()
    return campaigns.show(found, section(found))


if __name__ == "__main__":
    sys.exit(main())
