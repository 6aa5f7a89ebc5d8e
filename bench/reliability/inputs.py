"""Blocks of inputs: generated, called, and judged.

An input is one call of one kernel. A third of them are valid, and of those (and of others where the
reference answers to anything) a sample is compared with the reference kernels. A kernel may answer,
or refuse with `TypeError`, `ValueError`, `BufferError` or `OverflowError`; whatever else it does is
a failure: another exception, a byte written beside a buffer, an answer that differs, and of course
the end of the process, which whoever runs the block sees.
"""

import reprlib
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from bench.reliability import (
    frozen_calls,  # noqa: F401
    generators,
    rows_calls,  # noqa: F401
    skip_calls,  # noqa: F401
    table_calls,
)
from bench.reliability.buffers import Guarded, Separate
from bench.reliability.calls import REFUSALS, Call, Damage
from bench.reliability.draw import Draw
from hashmem.kernels import reference

BLOCK = 5000  # inputs
COMPARED = 0.03  # of the inputs that can be
VALID, GARBAGE = 0.4, 0.75  # shares: valid, then garbage in buffers, then wrong arguments


class Failure(AssertionError):
    """A kernel did what it must not do."""


class Block:
    """The inputs of one block, which follow from its number alone.

    `told` is called before each input with its place, `shown` (for a replay) with the call itself.
    `only` names the kernels by their beginnings.
    """

    def __init__(
        self,
        number: int,
        native: ModuleType,
        separate: bool = False,
        compared: float = COMPARED,
        told: Callable[[int], object] = lambda place: None,
        shown: Callable[[int, Call, list[str]], object] | None = None,
        only: tuple[str, ...] = ("",),
    ) -> None:
        unmatched = generators.unmatched(native)
        if unmatched:
            raise LookupError(
                f"kernels without a generator, or the other way round: {', '.join(unmatched)}"
            )
        self.memory: Guarded = Separate() if separate else Guarded()
        self.draw = Draw(f"block {number}", self.memory)
        self.native, self.number = native, number
        self.sound = True
        self.kept: dict[str, Any] = {}  # what generators keep from one call to the next
        make = Separate if separate else lambda: Guarded(1 << 17)
        self.tables = {
            prefix: table_calls.Tables(prefix, self.draw, make) for prefix in table_calls.PREFIXES
        }
        self.kernels = [name for name in sorted(generators.GENERATORS) if name.startswith(only)]
        self.damage = Damage(self.draw)
        self.compared, self.told, self.shown = compared, told, shown
        self.counts: Counter[str] = Counter()  # "kernel outcome"

    def run(self, inputs: int = BLOCK, first_shown: int = 0) -> Counter[str]:
        """Run the block's first `inputs` inputs. What came of them, by kernel and outcome."""
        draw, place, follows = self.draw, 0, None
        while place < inputs:
            self.told(place)
            if follows is None:
                self.memory.clear()
                plan = draw.chance(VALID)
                self.sound = plan
                call = generators.GENERATORS[draw.of(self.kernels)](self)
                damage = None if plan or call.fixed else draw.chance(GARBAGE - VALID)
            else:
                call, damage = follows, None
            try:
                follows = self._one(call, damage, place >= first_shown and place)
            except Exception as error:
                lies = "; ".join(self.damage.done) if damage is not None else "valid"
                raise Failure(
                    f"block {self.number}, input {place}, {call.kernel} ({lies}): "
                    f"{type(error).__name__}: {error}"
                ) from error
            place += 1
        return self.counts

    def _one(self, call: Call, garbage: bool | None, shown: Any) -> Call | None:
        """One input: what follows upon it, if anything must."""
        valid = garbage is None
        if not valid:
            if call.damaged is not None:
                call.damaged()
            (self.damage.values if garbage else self.damage.arguments)(call)
        if self.shown is not None and shown is not False:
            self.shown(shown, call, [] if valid else self.damage.done)
        compare = (
            call.comparable
            and (valid or (garbage and call.total))
            and self.draw.chance(self.compared)
        )
        copies = call.as_arrays() if compare else None
        kernel = getattr(self.native, call.kernel)
        self.counts[f"{call.kernel} inputs"] += 1
        refusal: Exception | None = None
        answer: Any = None
        try:
            answer = kernel(*call.arguments)
            self.counts[f"{call.kernel} answered"] += 1
        except REFUSALS as error:
            refusal = error
            self.counts[f"{call.kernel} refused"] += 1
        self.memory.check()
        if call.lasting is not None:
            call.lasting.check()
        if copies is not None:
            self._compare(call, answer, refusal, copies)
            self.counts[f"{call.kernel} compared"] += 1
        if refusal is None and call.then is not None:
            return call.then(answer)
        return None

    def _compare(
        self, call: Call, answer: Any, refusal: Exception | None, copies: list[Any]
    ) -> None:
        definition = call.definition or getattr(reference, call.kernel)
        try:
            expected = definition(*copies)
        except ValueError as error:
            if refusal is None:
                raise Failure(f"answered {answer!r} where the reference says {error}") from error
            return
        if refusal is not None:
            raise Failure(f"refused ({refusal}) what the reference answers") from refusal
        outputs = [
            [arguments[place] for place in call.outputs] for arguments in (call.as_arrays(), copies)
        ]
        ours = call.show(answer, outputs[0])
        theirs = call.show(expected, outputs[1])
        if ours != "could not" and not call.alike(ours, theirs):
            raise Failure(f"answers {reprlib.repr(ours)}, the reference {reprlib.repr(theirs)}")
        if call.damaged is None:
            for place, given in enumerate(call.as_arrays()):
                if place not in call.outputs:
                    assert _same(given, copies[place]), f"argument {place} was changed"
        if call.audit is not None:
            call.audit(answer, expected, copies)


def _same(given: Any, copy: Any) -> bool:
    """Whether an argument is what its copy is."""
    if isinstance(copy, np.ndarray):
        return np.array_equal(given, copy)
    return bool(given == copy)
