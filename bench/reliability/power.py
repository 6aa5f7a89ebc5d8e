"""Power cuts.

A child process writes to a store while `bench/reliability/recorder.c`, loaded before the C library,
logs every write, size, name and sync of all files in the folder. From the log, images are made of
what a disk may hold when the power is cut at a random place: writes that were not synced are
dropped, reordered, torn at sectors of 512 bytes or pages of 4 KiB, or leave zeros where the file
grew; names that were not synced are there or not, under three kinds of file systems
(`bench/reliability/recording.py` has the model). LMDB's table of readers, which is written through
shared memory, is empty or as the writer left it. Each image is opened in another child: `verify()`
must find nothing, and all of the content must be that of a commit boundary: at least the last
commit that had returned when the power went, at most the one under way.

Some images are gone on with: opening, sweeping and writing on them is recorded in turn, the power
cut a second time, and once more. Replaying each log whole must give the real files, byte for byte.
Only images that differ are counted. A campaign that is cut off goes on where it was: run the same
command again.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import harness
from bench.machine import machine
from bench.reliability import forks, recording, workload
from bench.reliability.recording import ORDERS, PATTERNS, Recording, Tree
from bench.reliability.workload import Model
from hashmem import MemoryStore
from hashmem.store import checkpoint

NAME = "power"
IMAGES = 5000
QUICK_IMAGES = 100
SEED = 20_240_829
STEPS = (8, 16)  # of a recording on a new store, at least and at most; on an image half as many
PER_RECORDING = 60  # images of a recording on a new store; of one on an image a third
SECOND = 16  # of so many images that open, one is recorded in turn
DEEPEST = 3  # power cuts that one store lives through
MOST_FAILURES = 20
LEFT_OUT = ("put huge", "grow", "copy")  # a log and each of its images would be large; seldom
ROWS = 16  # in every second round, that are worth a checkpoint
Told = Callable[[str], None]


class Cut:
    """A recorded writer: the recording, the states its store was in after each step, the kinds of
    the steps, and what files held at the end that are written through shared memory."""

    def __init__(
        self, recording: Recording, states: list[Model], kinds: list[str], mapped: Tree
    ) -> None:
        self.recording, self.states, self.kinds, self.mapped = recording, states, kinds, mapped

    def image(self, place: int, pattern: str, order: str, chance: random.Random) -> Tree:
        """An image; such files hold in it what they held at the end, or nothing."""
        tree = self.recording.image(place, pattern, order, chance)
        for name, content in self.mapped.items():
            if name in tree and chance.random() < 0.5:
                tree[name] = content
        return tree

    def expected(self, place: int) -> tuple[list[Model], str]:
        """What may be in the store if the power is cut at `place`, and what was under way."""
        told, begun = -1, -1
        for at, number in self.recording.marks:
            if at <= place:
                if number % 2:
                    told = number // 2
                else:
                    begun = number // 2
        if begun <= told:
            return [self.states[told]], "between steps"
        return [self.states[max(told, 0)], self.states[begun]], self.kinds[begun]


class Campaign:
    """One campaign in `folder`, and what was found, as it is kept."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        found: dict[str, Any] | None = None,
        keep: Path | None = None,
    ) -> None:
        self.folder, self.seed, self.keep = folder, seed, keep
        self.found = found or {
            "seed": seed, "images": 0, "rounds": 0, "recordings": 0, "acknowledged": 0,
            "events": 0, "depths": {}, "patterns": {}, "orders": {}, "cuts": {}, "before": 0,
            "under_way": 0, "lost": 0, "half": 0, "other": 0, "seconds": 0.0, "failures": [],
        }  # fmt: skip
        self.kinds = [kind for kind in workload.kinds() if kind not in LEFT_OUT]
        forks.prepare()

    def run(self, images: int, deadline: float, told: Told = lambda what: None) -> None:
        """Go on until there are `images` in all, or the deadline has passed."""
        found = self.found
        while found["images"] < images and time.monotonic() < deadline:
            start = time.monotonic()
            name = f"{self.seed}/{found['rounds']}"
            self.descend({}, Model(name), name, 1, images)
            found["rounds"] += 1
            found["seconds"] = round(found["seconds"] + time.monotonic() - start, 2)
            told(f"{found['images']} images, {len(found['failures'])} failures")
            if len(found["failures"]) >= MOST_FAILURES:
                break

    def descend(self, base: Tree, model: Model, name: str, depth: int, images: int) -> None:
        """Record a writer on `base`, whose store holds `model`; cut the power, check, go deeper."""
        chance = random.Random(name)
        cut = self.record(base, model, name, depth, chance)
        if cut is None:
            return
        seen = {recording.fingerprint(base)}
        wanted = PER_RECORDING if depth == 1 else PER_RECORDING // 3
        for turn in range(3 * wanted):
            if self.found["images"] >= images or len(seen) > wanted:
                break
            place = cut.recording.place(chance)
            pattern, order = chance.choice(PATTERNS), chance.choice(ORDERS)
            tree = cut.image(place, pattern, order, chance)
            mark = recording.fingerprint(tree)
            if mark in seen:
                continue
            seen.add(mark)
            where = f"{name}/{turn}, place {place}, {pattern}, {order}"
            expected, doing = cut.expected(place)
            self.count(depth, pattern, order, doing)
            held = self.opened(tree, expected, where, doing)
            if held is not None and depth < DEEPEST and chance.randrange(SECOND) == 0:
                self.descend(tree, held, f"{name}/{turn}", depth + 1, images)

    def record(
        self, base: Tree, model: Model, name: str, depth: int, chance: random.Random
    ) -> Cut | None:
        """Let a child write to a copy of `base` and record it. None where it failed."""
        count = chance.randint(*STEPS) // (1 if depth == 1 else 2)
        kinds = ["opening"]
        states = [model]
        work: list[list[workload.Call]] = [[]]
        for step in range(count):
            kind = workload.choose(states[-1], chance, self.kinds)
            if chance.random() < 0.01:
                kind = chance.choice(LEFT_OUT)
            at = depth * 1000 + step
            work.append(workload.plan(states[-1], at, kind))
            states.append(states[-1].after(work[-1]))
            kinds.append(kind)
        root, log = self.folder / "recorded", self.folder / "log"
        recording.write_tree(base, root)

        def write(mark: Callable[[int], None]) -> None:
            if self.found["rounds"] % 2:
                checkpoint.FEWEST = ROWS
            mark(0)
            store = MemoryStore(root / "store")
            mark(1)
            for number, calls in enumerate(work[1:], 1):
                mark(2 * number)
                workload.take(store, calls)
                mark(2 * number + 1)
            store.close()

        def work_recorded() -> None:
            recording.recorded(root, log, write)

        answer = forks.answer(work_recorded)
        if "error" in answer:
            self.fail("other", f"{name}: the recorded writer failed: {answer['error']}", base)
            shutil.rmtree(root)
            return None
        real = recording.read_tree(root)
        shutil.rmtree(root)
        made = Recording(log.read_bytes(), root, base)
        self.found["recordings"] += 1
        self.found["events"] += len(made.events)
        self.found["acknowledged"] += count
        apart = differing(made.last(), real, made.mapped)
        if apart:
            raise RuntimeError(
                f"{name}: the log does not tell all, its replay differs from the files in {apart}: "
                "a call is missing in recorder.c"
            )
        mapped = {name: real[name] for name in made.mapped if name in real}
        return Cut(made, states, kinds, mapped)

    def opened(self, tree: Tree, expected: list[Model], where: str, doing: str) -> Model | None:
        """Open an image in a child and compare; the state that it holds, None where it failed."""
        root = self.folder / "image"
        recording.write_tree(tree, root)
        answer = forks.answer(lambda: workload.checked(str(root / "store"), expected))
        shutil.rmtree(root)
        if "error" in answer:
            self.fail("other", f"{where} ({doing}): {answer['error'][-3000:]}", tree)
            return None
        matched: int | None = answer["value"]["matched"]
        problems: list[str] = answer["value"]["problems"]
        if matched is None or any(problem.startswith("verify") for problem in problems):
            lost = all("records missing" in problem for problem in problems)
            what = "\n".join(problems)
            self.fail("lost" if lost else "half", f"{where} ({doing}): {what}", tree)
            return None
        if len(expected) > 1:
            self.found["under_way" if matched else "before"] += 1
        return expected[matched]

    def fail(self, kind: str, what: str, tree: Tree) -> None:
        self.found[kind] += 1
        self.found["failures"].append({"kind": kind, "what": what})
        if self.keep is not None:
            number = len(self.found["failures"])
            recording.write_tree(tree, self.keep / f"power-{self.seed}-{number}")

    def count(self, depth: int, pattern: str, order: str, doing: str) -> None:
        self.found["images"] += 1
        for key, value in (
            ("depths", str(depth)), ("patterns", pattern), ("orders", order), ("cuts", doing),
        ):  # fmt: skip
            counts = Counter(self.found[key])
            counts[value] += 1
            self.found[key] = dict(counts)


def differing(replayed: Tree, real: Tree, mapped: set[str]) -> list[str]:
    """The names that a replay has otherwise than the real files.

    LMDB's table of readers is written through shared memory, which nobody sees; it is nothing that
    a store must find again. Any other file that is written so is a difference.
    """
    strangers = [name for name in mapped if not name.endswith("-lock")]
    return strangers + [
        name
        for name in sorted(replayed.keys() | real.keys())
        if (name in replayed) != (name in real)
        or (replayed[name] != real[name] and name not in mapped)
    ]


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--images", type=int, default=IMAGES, help="images in all")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--folder", type=Path, help="where images are made (default: in RAM)")
    parser.add_argument("--anew", action="store_true", help="begin again, whatever was done")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_IMAGES} images; no result")
    parser.add_argument("--keep", type=Path, help="folder for copies of images that failed")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="folder for the JSON")
    options = parser.parse_args()
    reason = recording.why_not()
    if reason:
        parser.error(reason)
    memory = Path("/dev/shm")  # images are many, and no matter what disk they lie on
    parent = options.folder or (memory if os.access(memory, os.W_OK) else None)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        place = Path(folder).resolve()
        try:
            recording.recorder()
        except RuntimeError:  # once more, with it
            again = ["-m", "bench.reliability.power", *sys.argv[1:]]
            return recording.run_under(again, place).returncode
        return run(options, place)


def run(options: argparse.Namespace, folder: Path) -> int:
    path = options.results / f"{NAME}.json"
    before = None
    if path.exists() and not options.anew and not options.quick:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["seed"] == options.seed and kept["images"] < options.images:
            before = {key: kept[key] for key in kept if key not in ("name", "description")}
    campaign = Campaign(folder, options.seed, before, options.keep)

    def told(what: str) -> None:
        print(what, flush=True)
        if not options.quick:
            whole = {"name": NAME, "description": __doc__, **campaign.found}
            whole |= {"machine": machine()}
            text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
            new = path.with_suffix(".new")
            new.write_text(text, encoding="utf-8")
            new.replace(path)

    options.results.mkdir(parents=True, exist_ok=True)
    images = QUICK_IMAGES if options.quick else options.images
    campaign.run(images, time.monotonic() + options.seconds, told)
    found = campaign.found
    print(json.dumps({key: found[key] for key in found if key != "machine"}, indent=1))
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
