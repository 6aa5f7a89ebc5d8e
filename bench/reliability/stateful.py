"""Random operations against dictionaries, through handles in several processes.

An episode makes a store and runs a row of operations on it (`store_operations.py`), each through
one of five handles: two in one process, one in another process, one on a keyed namespace, and one
that a forked child inherited and goes on using, until it closes it or dies. Contents, metadata,
columns, successors, edges, counts and `verify()` are compared with plain dictionaries, which know
what is committed and what each handle sees (`store_model.py`). In every second episode packs are
cut at 128 bytes and merged two at a time, so that cut items and merges are met all the time; in
two of four, checkpoints are written of four rows. Half of the episodes do not sync.

Operations follow from the seed and the episode's number. Of a failure, the list of operations is
shortened as long as it still fails. `python -m bench.reliability.stateful` goes on behind the last
episode that is kept in `bench/results/`; `--replay EPISODE` runs one again.
"""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from itertools import count, takewhile
from pathlib import Path
from random import Random
from typing import Any

from bench.reliability import store_campaigns as campaigns
from bench.reliability.store_model import Seen
from bench.reliability.store_operations import KEYS, OPERATIONS, Box, World
from hashmem import MemoryStore
from hashmem.store import checkpoint

NAME = "store_stateful"
CASES = 1_000_000  # operations
LENGTH = 400  # operations of an episode
SHORTENING = 60.0  # seconds

# The handles: two here, one in another process, one of a keyed namespace, one of a forked child.
FIRST, SECOND, PEER, KEYED, FORKED = range(5)
TURNS = (FIRST, FIRST, SECOND, SECOND, PEER, PEER, PEER, KEYED, FORKED, FORKED)
FORKS = ("fork", "end")  # operations of the episode itself

Step = list[Any]  # operation, handle, arguments …


class Local:
    """A handle of this process."""

    def __init__(self, opening: Callable[[], MemoryStore]) -> None:
        self.box = Box(opening)

    def do(self, name: str, arguments: list[Any]) -> Any:
        return _done(self.box, name, arguments)

    def end(self) -> None:
        if self.box.held is not None:
            self.box.held.close()
        self.box.store.close()


class Remote:
    """A handle of another process, forked from this one and driven through a socket."""

    def __init__(self, make: Callable[[], Box], others: list["Remote"]) -> None:
        self.socket, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.socket.close()
                for other in others:
                    other.socket.close()
                _serve(make, theirs)
            finally:
                os._exit(0)
        theirs.close()
        self.file = self.socket.makefile("rw", encoding="utf-8")

    def do(self, name: str, arguments: list[Any]) -> Any:
        self.file.write(json.dumps([name, arguments]) + "\n")
        self.file.flush()
        line = self.file.readline()
        return json.loads(line) if line else {"raised": "the process died"}

    def end(self) -> None:
        self.do("close", [])
        self.leave()

    def leave(self) -> None:
        self.file.close()
        self.socket.close()
        os.waitpid(self.pid, 0)


def _serve(make: Callable[[], Box], theirs: socket.socket) -> None:
    box = make()
    with theirs.makefile("rw", encoding="utf-8") as file:
        for line in file:
            name, arguments = json.loads(line)
            file.write(json.dumps(_done(box, name, arguments)) + "\n")
            file.flush()


def _done(box: Box, name: str, arguments: list[Any]) -> Any:
    try:
        if name == "close":
            return box.store.close()
        operation = OPERATIONS[name]
        if operation.refreshes:
            return [box.store.refresh(), operation.do(box, *arguments)]
        return operation.do(box, *arguments)
    except Exception as error:  # that is what is looked for
        return {"raised": f"{type(error).__name__}: {error}"[:300]}


class Episode:
    """A store, its handles and their models."""

    def __init__(self, folder: Path, number: int) -> None:
        if folder.exists():
            shutil.rmtree(folder)
        if number % 2:
            small_packs()
        if number // 2 % 2:
            checkpoint.FEWEST = 4  # rows
        algorithm = ("sha256", "xxh3_128", "xxh3_64")[number % 3]
        worlds: list[World] = []
        self.common, keyed = World(worlds), World(worlds)

        durability = ("full", "none")[number // 4 % 2]

        def opening(path: str | Path = folder) -> MemoryStore:
            return MemoryStore(path, algorithm=algorithm, durability=durability)

        def opening_keyed(path: str | Path = folder) -> MemoryStore:
            options: dict[str, Any] = {"namespace": "keyed", "key": KEYS["keyed"]}
            return MemoryStore(path, algorithm=algorithm, durability=durability, **options)

        self.peer = Remote(lambda: Box(opening), [])
        self.peer.do("refresh", [])  # it makes the store, while nobody else has it open
        self.actors: dict[int, Local | Remote] = {
            PEER: self.peer,
            **{FIRST: Local(opening), SECOND: Local(opening), KEYED: Local(opening_keyed)},
        }
        self.worlds = dict.fromkeys(range(5), self.common) | {KEYED: keyed}
        self.seen = {actor: Seen(self.worlds[actor].committed) for actor in self.actors}

    def step(self, name: str, actor: int, arguments: list[Any]) -> str:
        """Run one step: "" or what is wrong. What the handle to do it is not there for, is not."""
        if name == "fork":
            return self.fork(actor)
        if actor not in self.actors:
            return ""
        if name == "end":
            return self.end(dying=arguments[0])
        found = self.actors[actor].do(name, arguments)
        world, seen, operation = self.worlds[actor], self.seen[actor], OPERATIONS[name]
        if operation.refreshes and isinstance(found, list):
            refreshed, found = found
            if refreshed:  # commits to other namespaces count too
                seen.catch_up(world.committed)
            elif seen.base != world.committed:
                return "refresh() saw nothing of a commit"
        expected = operation.expect(world, seen, *arguments)
        return "" if _agrees(found, expected) else _difference(found, expected)

    def fork(self, actor: int) -> str:
        """A child goes on with the handle of `actor`, from what is committed."""
        parent = self.actors[actor]
        if FORKED in self.actors or not isinstance(parent, Local):
            return ""

        def inherited() -> Box:
            parent.box.held = None
            return parent.box

        self.actors[FORKED] = child = Remote(inherited, [self.peer])
        self.seen[FORKED] = Seen(self.common.committed)
        found = child.do("refresh", [])
        return "" if found == [False, None] else f"in the child: {found}"

    def end(self, dying: bool) -> str:
        child = self.actors.pop(FORKED)
        seen = self.seen.pop(FORKED)
        assert isinstance(child, Remote)
        found = None
        if not dying:
            found = child.do("close", [])
            self.common.committed = seen.commit(self.common.committed)
        child.leave()
        return "" if found is None else f"closing in the child: {found}"

    def finish(self) -> str:
        """Close all, open once more, and compare everything."""
        if FORKED in self.actors:
            wrong = self.end(dying=False)
            if wrong:
                return wrong
        for actor in (FIRST, SECOND, KEYED, PEER):
            wrong = self.step("reopen", actor, []) or self.step("check", actor, [])
            if wrong:
                return wrong
        for held in self.actors.values():
            held.end()
        return ""


def _agrees(found: Any, expected: Any) -> bool:
    if callable(expected):
        return not (isinstance(found, dict) and "raised" in found) and bool(expected(found))
    return bool(found == expected)


def _difference(found: Any, expected: Any) -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        parts = {name for name in {*found, *expected} if found.get(name) != expected.get(name)}
        pairs = (f"{name}: {found.get(name)} is not {expected.get(name)}" for name in sorted(parts))
        return "; ".join(pairs)[:1500]
    return f"{found} is not {'what fits' if callable(expected) else expected}"[:1500]


def small_packs() -> None:
    """Cut packs at 128 bytes and merge them two at a time, where the package can be told."""
    smaller = {"PACK_LIMIT": 128, "MERGE_RUN": 2, "_MERGE_BELOW": [32, 64]}
    for module in [module for name, module in sys.modules.items() if name.startswith("hashmem.")]:
        for name in smaller.keys() & vars(module).keys():
            setattr(module, name, smaller[name])


# ------------------------------------------------------------------------------------ campaign


def drawn(seed: int, number: int, length: int = LENGTH) -> list[Step]:
    """The operations of an episode."""
    random = Random(f"{seed} {number}")
    names, weights = list(OPERATIONS), [operation.weight for operation in OPERATIONS.values()]
    steps: list[Step] = []
    for _ in range(length):
        chance = random.random()
        if chance < 0.02:
            steps.append(["fork", random.choice((FIRST, SECOND))])
        elif chance < 0.03:
            steps.append(["end", FORKED, random.random() < 0.5])
        else:
            (name,) = random.choices(names, weights)
            steps.append([name, random.choice(TURNS), *OPERATIONS[name].draw(random)])
    return steps


def run(folder: Path, number: int, steps: list[Step]) -> dict[str, Any]:
    """Run an episode in a child: {} or at which step what was wrong."""
    place = campaigns.Place()

    def job(tell: Callable[[Any], None]) -> None:
        episode = Episode(folder, number)
        for at, (name, actor, *arguments) in enumerate(steps):
            place.set(at)
            wrong = episode.step(name, actor, arguments)
            if wrong:
                tell({"step": at, "what": wrong})
                return
        place.set(len(steps))
        wrong = episode.finish()
        tell({"step": len(steps), "what": wrong} if wrong else {})

    ended = campaigns.in_fork(job)
    if ended.what:
        return {"step": place.get(), "what": ended.what}
    return dict(ended.told[0])


def shortened(folder: Path, number: int, steps: list[Step], at_end: bool) -> list[Step]:
    """Leave out steps as long as what is left fails at the same operation, or, `at_end`, at none
    but the comparison after the last."""
    end, size, last = time.monotonic() + SHORTENING, len(steps) // 2, steps[-1][0]
    while size:
        at = 0
        while at < len(steps) and time.monotonic() < end:
            fewer = steps[:at] + steps[at + size :]
            failed = run(folder, number, fewer).get("step", -1)
            if at_end and failed == len(fewer):
                steps = fewer
            elif not at_end and 0 <= failed < len(fewer) and fewer[failed][0] == last:
                steps = fewer[: failed + 1]
            else:
                at += size
        size //= 2
    return steps


def outcome(folder: Path, seed: int, number: int, length: int, known: set[str]) -> dict[str, Any]:
    """Run an episode: {} or what was wrong, its kind, and unless that is `known`, a few steps that
    show it."""
    steps = drawn(seed, number, length)
    failure = run(folder, number, steps)
    if failure:
        name = steps[failure["step"]][0] if failure["step"] < len(steps) else "the end"
        failure["kind"] = f"{name}: {failure['what'][:60]}"
        few = steps[: failure["step"] + 1]
        if failure["kind"] not in known:
            few = shortened(folder, number, few, failure["step"] == len(steps))
        failure["shortened"] = few
    return failure


def counted(found: dict[str, Any], seed: int, failure: dict[str, Any], length: int) -> None:
    """Count the next episode."""
    number = found.setdefault("episodes", 0)
    steps = drawn(seed, number, length)
    done = steps[: failure["step"] + 1] if failure else steps
    for name, *_ in done:
        campaigns.add(found.setdefault("operations", {}), name)
    if failure:
        campaigns.fail(found, failure.pop("kind"), seed=seed, episode=number, **failure)
    found["episodes"] += 1
    found["cases"] += len(done)


def known(found: dict[str, Any]) -> set[str]:
    return {failure["kind"] for failure in found["failures"]}


def episode(found: dict[str, Any], folder: Path, seed: int, length: int = LENGTH) -> None:
    """Run the next episode and count it."""
    number = found.setdefault("episodes", 0)
    counted(found, seed, outcome(folder, seed, number, length, known(found)), length)


def section(found: dict[str, Any]) -> str:
    """The part of docs/reliability.md."""
    rate = found["cases"] / max(found["seconds"], 0.1)
    counts = {name: {"times": count} for name, count in sorted(found["operations"].items())}
    return "\n\n".join(
        [
            "## Random operations",
            campaigns.method(found),
            f"**{campaigns.number(found['cases'])} operations in {found['episodes']} episodes, "
            f"{campaigns.number(found.get('failed', 0))} failures**, {rate:.0f} a second.",
            campaigns.table(counts, "operation"),
            campaigns.failures(found),
        ]
    )


def main() -> int:
    parser = campaigns.options_for(__doc__ or "", CASES, "operations")
    parser.add_argument("--replay", type=int, metavar="EPISODE")
    options = parser.parse_args()
    with campaigns.scratch() as scratch:
        folder = scratch / "store"
        if options.replay is not None:
            print(run(folder, options.replay, drawn(options.seed, options.replay)))
            return 0
        found = campaigns.kept(NAME, options)
        with campaigns.Running(found, __doc__, options) as running:
            outcomes = campaigns.side_by_side(
                lambda number, slot: outcome(
                    scratch / f"{slot}", options.seed, number, LENGTH, known(found)
                ),
                takewhile(lambda _: running.goes_on(), count(found.setdefault("episodes", 0))),
                options.jobs,
            )
            for failure in outcomes:
                counted(found, options.seed, failure, LENGTH)
    return campaigns.show(found, section(found))


if __name__ == "__main__":
    sys.exit(main())
