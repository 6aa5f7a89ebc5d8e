"""Writers that are killed.

A child process writes to a store: records small, large and cut over packs, metadata, columns,
links and edges, deletions, rows of tiny commits (which are merged), growth of the file, compaction,
and what else `bench/reliability/workload.py` lists. It tells of each commit through a pipe after it
returned, and is ended by SIGKILL at a random moment: after a random time, or while a step of a kind
drawn beforehand is under way. Sometimes two writers are at it and both are killed, sometimes a
reader dies with them. Then another child opens the store, runs `verify()`, and compares all of its
content with what was told: every commit that was told of must be there, the one under way whole or
not at all. A store lives through 20 to 50 kills before the next one is made.

All children are forked from one process in which everything is imported. What is written follows
from the seed, the store's number and the step; the moment of a kill does not. A campaign that is
cut off goes on where it was: run the same command again.
"""

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import harness
from bench.machine import machine
from bench.reliability import forks, workload
from bench.reliability.workload import Call, Model
from hashmem import MemoryStore
from hashmem.store import checkpoint

NAME = "kill"
CYCLES = 10_000
QUICK_CYCLES = 200
SEED = 20_240_829
LIVES = (20, 50)  # kills that one store lives through, at least and at most
ALONE = 0.4  # share of the stores that never have but one writer
TWO_WRITERS, READER = 0.3, 0.15  # shares of the cycles, of the other stores and of all
LATEST = 0.03  # seconds after its start that a writer is killed at random
PATIENCE = 5  # seconds that a step drawn beforehand is waited for
MOST_FAILURES = 20
ROWS = 32  # in every second store, that are worth a checkpoint
Take = Callable[[MemoryStore, Sequence[Call]], None]
Told = Callable[[str], None]


class Writer:
    """What the parent knows of one writer of a store: what it told of, and what was under way."""

    def __init__(self, seed: str, number: int) -> None:
        self.model = Model(seed, number)
        self.number = number
        self.next_step = 0
        self.under_way: list[Call] | None = None
        self.doing = ""
        self.history: list[list[str | int]] = []  # the steps in `model`: number and kind
        self.durations: dict[str, float] = {}  # of steps by kind, in seconds, about

    def write(
        self, path: str, pipe: int, among: list[str], wanted: str, seed: str, take: Take
    ) -> None:
        """In a child: write until killed, telling of each step's beginning and end."""
        chance = random.Random(seed)
        turn = chance.randint(0, 3)  # steps before the wanted one
        model, step = self.model, self.next_step
        with MemoryStore(path) as store:
            while True:
                kind = workload.choose(model, chance, among)
                if wanted and turn == 0:
                    kind = wanted
                calls = workload.plan(model, step, kind)
                os.write(pipe, f"B {step} {kind}\n".encode())
                start = time.monotonic_ns()
                take(store, calls)
                os.write(pipe, f"D {time.monotonic_ns() - start}\n".encode())
                model = model.after(calls)
                step, turn = step + 1, turn - 1

    def hear(self, said: str) -> int:
        """Take note of what the child said before it died → the steps it told the end of."""
        self.under_way, self.doing = None, "opening"
        ended = 0
        for line in said.split("\n")[:-1]:
            word, _, rest = line.partition(" ")
            if word == "B":
                step, _, kind = rest.partition(" ")
                self.next_step, self.doing = int(step) + 1, kind
                self.under_way = workload.plan(self.model, int(step), kind)
            elif word == "D" and self.under_way is not None:
                self.model = self.model.after(self.under_way)
                took = int(rest) * 1e-9
                usual = self.durations.get(self.doing, took)
                self.durations[self.doing] = usual + (took - usual) / 4
                self.history.append([self.next_step - 1, self.doing])
                self.under_way, self.doing = None, "between steps"
                ended += 1
        return ended

    def states(self) -> list[Model]:
        """What may be there: what was told of, and that with the step under way."""
        if self.under_way is None:
            return [self.model]
        return [self.model, self.model.after(self.under_way)]


def read_for_ever(path: str, pipe: int) -> None:
    """In a child: hold records of a snapshot and read them, until killed."""
    while not os.path.exists(os.path.join(path, "CURRENT")):
        time.sleep(0.001)
    with MemoryStore(path) as store:
        while True:
            store.refresh()
            records = store.get_many(store.digests())
            sum(map(len, filter(None, records)))


class Campaign:
    """One campaign: stores in `folder`, and what was found, as it is kept."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        found: dict[str, Any] | None = None,
        take: Take = workload.take,
        keep: Path | None = None,
    ) -> None:
        self.folder, self.seed, self.take, self.keep = folder, seed, take, keep
        self.found = found or {
            "seed": seed, "cycles": 0, "stores": 0, "acknowledged": 0, "two_writers": 0,
            "readers": 0, "there": 0, "not_there": 0, "lost": 0, "half": 0, "other": 0,
            "kills": {}, "seconds": 0.0, "failures": [],
        }  # fmt: skip
        forks.prepare()

    def run(self, cycles: int, deadline: float, told: Told = lambda what: None) -> None:
        """Go on until `cycles` are done in all, or the deadline has passed."""
        found = self.found
        while found["cycles"] < cycles and time.monotonic() < deadline:
            start = time.monotonic()
            number = found["stores"]
            chance = random.Random(f"{self.seed}/{number}/lives")
            name = f"{self.seed}/{number}"
            writers = [Writer(name, 0), Writer(name, 1)]
            alone = chance.random() < ALONE
            path = self.folder / f"store-{number}"
            for life in range(chance.randint(*LIVES)):
                whole = self.cycle(path, writers, alone, f"{name}/{life}")
                if found["cycles"] >= cycles or not whole:
                    break  # a store that failed is not gone on with
            for left in self.folder.glob(f"*{path.name}*"):  # copies too
                shutil.rmtree(left, ignore_errors=True)
            found["stores"] += 1
            found["seconds"] = round(found["seconds"] + time.monotonic() - start, 2)
            told(f"{found['cycles']} cycles, {len(found['failures'])} failures")
            if len(found["failures"]) >= MOST_FAILURES:
                break

    def cycle(self, path: Path, writers: list[Writer], alone: bool, name: str) -> bool:
        """Let writers write, kill them, compare. Whether all was as it must be."""
        chance = random.Random(f"{name}/{time.monotonic_ns()}")
        found = self.found
        at_once = writers if not alone and chance.random() < TWO_WRITERS else writers[:1]
        kinds = workload.kinds(alone)
        reader = chance.random() < READER
        wanted = chance.choice(kinds) if chance.random() < 0.6 else ""
        children = []
        for writer in at_once:
            seed = f"{name}/{writer.number}"

            def write(pipe: int, writer: Writer = writer, seed: str = seed) -> None:
                if int(path.name.rpartition("-")[2]) % 2:
                    checkpoint.FEWEST = ROWS
                writer.write(str(path), pipe, kinds, wanted, seed, self.take)

            children.append(forks.fork(write))
        if reader:
            children.append(forks.fork(lambda pipe: read_for_ever(str(path), pipe)))
        said = self.kill(children, wanted, writers[0].durations.get(wanted, 0.002), chance)

        errors = [text for text in said if "\nE " in f"\n{text}"]
        ended = [writer.hear(text) for writer, text in zip(at_once, said, strict=False)]
        found["cycles"] += 1
        found["acknowledged"] += sum(ended)
        found["two_writers"] += len(at_once) == 2
        found["readers"] += reader
        kills = Counter(found["kills"])
        kills.update(writer.doing for writer in at_once)
        found["kills"] = dict(kills)
        problem = self.compared(path, writers, at_once)
        if errors:
            problem = problem or ("other", "a writer failed by itself: " + errors[0][-2000:])
        if problem is None:
            return True
        kind, what = problem
        found[kind] += 1
        failure = {
            "store": name,
            "kind": kind,
            "under_way": [f"{writer.doing} (step {writer.next_step - 1})" for writer in at_once],
            "what": what,
            "steps": [writer.history for writer in writers],
        }
        found["failures"].append(failure)
        if self.keep is not None and path.exists():
            shutil.copytree(path, self.keep / f"kill-{name.replace('/', '-')}")
        return False

    def kill(
        self, children: list[tuple[int, int]], wanted: str, usual: float, chance: random.Random
    ) -> list[str]:
        """Wait for the moment, kill all children, return what each has said.

        A step of the `wanted` kind, which lasts about `usual` seconds, is killed in its midst.
        """
        said = [b"" for _ in children]
        if wanted:  # until somebody begins a step of that kind
            limit = time.monotonic() + PATIENCE
            began = 0.0
            while not began and time.monotonic() < limit:
                pipes = [pipe for _, pipe in children]
                for pipe in select.select(pipes, [], [], limit - time.monotonic())[0]:
                    more = os.read(pipe, 1 << 16)
                    said[pipes.index(pipe)] += more
                    if f" {wanted}\n".encode() in more:
                        began = time.monotonic()
                    if not more or b"E " in more:
                        limit = 0  # it ended by itself
            time.sleep(chance.uniform(0, 1.1 * usual))
        else:
            time.sleep(chance.uniform(0, LATEST))
        for child, _ in children:
            os.kill(child, signal.SIGKILL)
        for i, (child, pipe) in enumerate(children):
            os.waitpid(child, 0)
            said[i] += forks.read_all(pipe)
        return [text.decode(errors="replace") for text in said]

    def compared(
        self, path: Path, writers: list[Writer], at_once: list[Writer]
    ) -> tuple[str, str] | None:
        """Open the store in a child and compare. None, or how it failed and what was found.

        Writers go on from what was found to be there.
        """
        choices = [
            [first, second] for first in writers[0].states() for second in writers[1].states()
        ]
        states = [first | second for first, second in choices]
        answer = forks.answer(lambda: workload.checked(str(path), states))
        if "error" in answer:
            return "other", answer["error"][-3000:]
        matched, problems = answer["value"]["matched"], answer["value"]["problems"]
        if matched is None:
            lost = all("records missing" in problem for problem in problems)
            return ("lost" if lost else "half"), "\n".join(problems)
        if any(problem.startswith("verify") for problem in problems):
            return "half", "\n".join(problems)
        for writer, model in zip(writers, choices[matched], strict=True):
            if writer.under_way is not None:
                there = model is not writer.model and model != writer.model
                self.found["there" if there else "not_there"] += 1
                if there:
                    writer.history.append([writer.next_step - 1, writer.doing])
            writer.model, writer.under_way = model, None
        return None


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--cycles", type=int, default=CYCLES, help="kills in all")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--folder", type=Path, help="where stores are made (default: temporary)")
    parser.add_argument("--anew", action="store_true", help="begin again, whatever was done")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_CYCLES} cycles; no result")
    parser.add_argument("--keep", type=Path, help="folder for copies of stores that failed")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="folder for the JSON")
    options = parser.parse_args()
    path = options.results / f"{NAME}.json"
    before = None
    if path.exists() and not options.anew and not options.quick:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["seed"] == options.seed and kept["cycles"] < options.cycles:
            before = {key: kept[key] for key in kept if key not in ("name", "description")}

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        campaign = Campaign(Path(folder), options.seed, before, keep=options.keep)

        def told(what: str) -> None:
            print(what, flush=True)
            if not options.quick:
                whole = {"name": NAME, "description": __doc__, **campaign.found}
                whole |= {"kinds": workload.kinds(), "machine": machine()}
                text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
                new = path.with_suffix(".new")
                new.write_text(text, encoding="utf-8")
                new.replace(path)

        options.results.mkdir(parents=True, exist_ok=True)
        cycles = QUICK_CYCLES if options.quick else options.cycles
        campaign.run(cycles, time.monotonic() + options.seconds, told)
    found = campaign.found
    print(json.dumps({key: found[key] for key in found if key != "machine"}, indent=1))
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
