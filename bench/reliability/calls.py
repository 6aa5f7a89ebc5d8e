"""A generated call of a kernel, and the ways to make it lie.

A generator makes a call that is valid. From there the fuzzer goes on: values in its buffers become
garbage (what a kernel must bear without leaving them), or the arguments themselves become wrong
(what it must refuse): buffers too short, read-only, overlapping, askew, of another type; numbers
negative, huge or none; arguments that are missing or too many.
"""

import operator
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.reliability.buffers import Guarded
from bench.reliability.draw import EXTREMES, Draw, as_array

Form = tuple[Any, tuple[int, ...]]  # dtype and shape of an item, as the reference takes it
INT64: Form = (np.int64, ())
UINT64: Form = (np.uint64, ())
INT32: Form = (np.int32, ())
UINT8: Form = (np.uint8, ())
BOOL: Form = (np.bool_, ())

REFUSALS = (TypeError, ValueError, BufferError, OverflowError)


@dataclass(slots=True)
class Call:
    """One call: its arguments, what they are, and how to judge the answer."""

    kernel: str
    arguments: list[Any]
    forms: tuple[Form | None, ...]  # of the buffers; None: a number
    outputs: tuple[int, ...] = ()  # which arguments are written
    work: tuple[int, ...] = ()  # which numbers say how long the kernel works: they stay small
    fixed: bool = False  # nothing of it may be changed: it would not end
    definition: Callable[..., Any] | None = None  # another than the reference kernel
    shown: Callable[[Any, list[Any]], Any] | None = None  # what of answer and outputs counts
    total: bool = False  # the reference answers whatever is in the buffers
    comparable: bool = True
    then: Callable[[Any], "Call | None"] | None = None  # what follows upon the answer
    damaged: Callable[[], None] | None = None  # told when the arguments were made to lie
    alike: Callable[[Any, Any], bool] = operator.eq  # whether what is shown of the two agrees
    audit: Callable[[Any, Any, list[Any]], None] | None = None  # compares what outputs do not show
    lasting: Guarded | None = None  # where buffers lie that outlive the call

    def as_arrays(self) -> list[Any]:
        """Copy the arguments into what the reference kernels take."""
        return [
            _as_reference(argument, form)
            for argument, form in zip(self.arguments, self.forms, strict=True)
        ]

    def show(self, answer: Any, outputs: list[Any]) -> Any:
        """What two kernels must agree in."""
        if self.shown is not None:
            return self.shown(answer, outputs)
        return answer, [output.tolist() for output in outputs]


def _as_reference(argument: Any, form: Form | None) -> Any:
    if form is None:
        return argument
    if isinstance(argument, tuple | list):
        return type(argument)(map(_copied, argument))
    return as_array(argument, *form)


def _copied(part: Any) -> Any:
    """A copy of a plain buffer; whatever else may be among the items of a call is as it is."""
    plain = isinstance(part, memoryview) and part.c_contiguous and part.ndim == 1
    return bytes(part) if plain else part


@dataclass
class Damage:
    """Makes calls lie. `done` says what was changed, for the report of a failure."""

    draw: Draw
    done: list[str] = field(default_factory=list)

    def values(self, call: Call) -> None:
        """Put garbage into one to three of the buffers."""
        draw = self.draw
        places = [place for place, form in enumerate(call.forms) if form is not None]
        self.done = []
        for _ in range(1 + draw.below(3)):
            place = draw.of(places)
            buffer = call.arguments[place]
            if not isinstance(buffer, memoryview) or not len(buffer):
                continue
            how = draw.below(4)
            if how == 0:
                at = draw.below(len(buffer))
                buffer[at] ^= 1 << draw.below(8)
            elif how == 1 and len(buffer) >= 8:
                at = 8 * draw.below(len(buffer) // 8)
                struct.pack_into("q", buffer, at, draw.of(EXTREMES))
            elif how == 2:
                at = draw.below(len(buffer))
                size = min(len(buffer) - at, 1 + draw.below(64))
                buffer[at : at + size] = draw.noise(size)
            else:
                buffer[:] = draw.noise(len(buffer))
            self.done.append(f"garbage in argument {place}")

    def arguments(self, call: Call) -> None:
        """Make one or two of the arguments wrong."""
        draw = self.draw
        self.done = []
        for _ in range(1 + (draw.below(4) == 0)):
            given = call.arguments
            if not given or draw.chance(0.05):
                self._count(given)
                continue
            place = draw.below(len(given))
            if place >= len(call.forms):
                continue
            if call.forms[place] is None:
                self._number(given, place, place in call.work)
            elif isinstance(given[place], tuple | list):
                self._items(given, place)
            else:
                given[place] = self._buffer(given, place)
            self.done.append(f"argument {place}")

    def _count(self, given: list[Any]) -> None:
        if given and self.draw.chance(0.5):
            del given[self.draw.below(len(given))]
        else:
            given.append(self.draw.of(STRANGERS))
        self.done.append("number of arguments")

    def _number(self, given: list[Any], place: int, works: bool) -> None:
        draw = self.draw
        if draw.chance(0.3) or not isinstance(given[place], int):
            given[place] = draw.of(NO_NUMBERS)
        elif works:
            given[place] = draw.of((-(2**70), -1, 0, 1, 7, 50))
        elif draw.chance(0.5):
            given[place] = draw.of(EXTREMES)
        else:
            given[place] = draw.of((given[place] + 1, given[place] - 1, 2**64, -(2**63) - 1, 2**70))

    def _items(self, given: list[Any], place: int) -> None:
        draw, kind, items = self.draw, type(given[place]), list(given[place])
        how = draw.below(4)
        if how == 0:
            given[place] = draw.of((items, tuple(items), None, (), items * 2, b"bytes", {}))
            return
        if items and how == 1:
            del items[draw.below(len(items))]
        elif items:
            items[draw.below(len(items))] = draw.of(STRANGERS)
        given[place] = kind(items)

    def _buffer(self, given: list[Any], place: int) -> Any:
        """Another thing in place of a buffer."""
        draw, buffer = self.draw, given[place]
        if not isinstance(buffer, memoryview):
            return draw.of(STRANGERS)
        how = draw.below(12)
        size = len(buffer)
        if how == 0:
            return draw.of(STRANGERS)
        if how == 1:
            return bytes(buffer)  # read-only
        if how == 2:
            return buffer.toreadonly()
        if how == 3:
            return buffer[::2] if draw.chance(0.5) else buffer[::-1]  # not contiguous
        if how == 4:  # askew
            return draw.memory.put(bytes(buffer), skew=1 + draw.below(15))
        if how == 5:
            return buffer[: draw.below(size + 1)]
        if how == 6:
            return buffer[: max(0, size - draw.of((1, 2, 4, 8, 16, 24, 32, 64)))]
        if how == 7:
            return buffer[draw.below(size + 1) & -8 :]
        if how == 8:
            return buffer[:0]
        if how == 9:  # longer
            return draw.memory.put(bytes(buffer) + draw.noise(draw.of((1, 8, 16, 24, 64))))
        other = draw.of(given)
        if not isinstance(other, memoryview):
            return other
        if how == 10 or len(other) < 8:  # the same memory as another's
            return other
        return other[draw.below(len(other) // 8) * 8 :]  # overlapping another's


STRANGERS = (None, 0, "text", 1.5, b"", b"12345678", [], (), {}, object(), bytearray(16), type)
NO_NUMBERS = (None, "1", 1.5, b"1", [], object(), True)
