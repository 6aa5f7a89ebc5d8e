"""Random operations on a table and on a dict: `TableMachine`, for any table with three methods.

    class MyMachine(TableMachine):
        make = MyTable  # called with a width, gives a new table

    TestMyTable = MyMachine.TestCase

Digests are named by numbers (`hashmem.testing.number_digests`), so a failure reads like
``insert(first=0, layout='C', numbers=[0, 0])`` and shrinks to the fewest operations on the fewest
digests.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hashmem.testing.steps import step_limit
from hashmem.testing.strategies import KINDS, Digests, number_digests

__all__ = ["TableMachine", "agree", "laid_out"]

LAYOUTS = ["C", "strided", "reversed", "Fortran"]
MAPPING = ["__getitem__", "__setitem__", "__delitem__", "__contains__"]

# Few numbers in one list, so that digests come again; and any, for what is shared by few.
number = st.integers(0, 7) | st.integers(0, 2**16)  # taken modulo the number of digests
some = st.lists(st.integers(0, 7), max_size=8) | st.lists(number, max_size=12)
layouts = st.sampled_from(LAYOUTS)
int64 = st.integers(-2, 2) | st.just(-1) | st.integers(-(2**63), 2**63 - 1)


def agree(what: str, answer: Any, expected: Any) -> None:
    """Raise `AssertionError`, with both, where an answer is not the one expected."""
    if isinstance(answer, np.ndarray):
        answer = answer.tolist()
    if answer == expected:
        return
    where = ""
    if isinstance(answer, list) and isinstance(expected, list):
        if len(answer) != len(expected):
            raise AssertionError(f"{what} gave {len(answer)} items, not {len(expected)}")
        pairs = list(zip(answer, expected, strict=True))
        at = next(i for i, (one, other) in enumerate(pairs) if one != other)
        (answer, expected), where = pairs[at], f" at position {at}"
    raise AssertionError(f"{what} gave {_short(answer)}{where}, not {_short(expected)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}… ({len(text)} characters)"


def laid_out(array: Any, layout: str) -> Any:
    """Return an equal array that lies in memory in one of the ways of `LAYOUTS`."""
    if layout == "strided":  # every second row and byte of something larger
        wide = np.full([2 * size + 1 for size in array.shape], 0x5A, array.dtype)
        places = tuple(slice(1, None, 2) for _ in array.shape)
        wide[places] = array
        return wide[places]
    if layout == "reversed":
        return array[::-1].copy()[::-1]
    return np.array(array, order="F" if layout == "Fortran" else "C")


def can(*methods: str) -> Callable[[Any], bool]:
    """A precondition: the table has all of `methods`."""
    return lambda machine: all(hasattr(machine.table, method) for method in methods)


class TableMachine(RuleBasedStateMachine):
    """Random batches on a table and on a dict, compared after each step.

    `make(width)` gives a new and empty table, which needs only

    - ``insert(digests, values)``: uint8 (n, width) and int64 (n,), equal digests in the batch
      possible, the last value winning; returns bool (n,), True where a digest was new (of equal
      ones the first), or None;
    - ``find(digests)``: int64 (n,), -1 where absent;
    - ``delete(digests)``: bool (n,), True where it was there (of equal ones the first), or None.

    What else of `hashmem.tables.DigestTable` it has is used as well: `__len__`, `contains`,
    `intern`, `reserve`, `compact`, `clear`, `check`, the mapping's methods, `digests` with
    `values_array`. A call that runs more than `max_steps` lines of Python fails as endless. Arrays
    given to a call must come back as they were, and are overwritten after it, so that a table that
    kept them instead of a copy is found out.
    """

    make: Callable[[int], Any]
    widths: ClassVar[Sequence[int]] = [8, 9, 12, 15, 16, 20, 31, 32, 33, 48, 63, 64]
    size: ClassVar[int] = 300  # digests in use; some kinds repeat fewer
    max_steps: ClassVar[int] = 200_000

    @initialize(
        width=st.runner().flatmap(lambda machine: st.sampled_from(machine.widths)),
        kind=st.sampled_from(KINDS),
        fill=st.sampled_from([0, 90, 255]),
    )
    def start(self, width: int, kind: str, fill: int) -> None:
        self.pool = number_digests(np.arange(self.size), width, kind, fill)
        self.keys = [row.tobytes() for row in self.pool]
        self.table = type(self).make(width)
        self.model: dict[bytes, int] = {}
        self.steps = 0

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the table, within `max_steps`; see that it left its arrays alone."""
        arguments = tuple(a.copy(order="K") if a is self.pool else a for a in arguments)
        arrays = [(a, a.copy()) for a in arguments if isinstance(a, np.ndarray)]
        with step_limit(self.max_steps):
            answer = getattr(self.table, method)(*arguments)
        for given, before in arrays:
            if not np.array_equal(given, before):  # lists of all numbers take far longer
                agree(f"the caller's batch after {method}", given, before.tolist())
            if given.flags.writeable:
                given.fill(0x5A)  # whoever kept it and not a copy answers wrong from now on
        return answer

    def chosen(self, numbers: list[int]) -> list[int]:
        return [number % self.size for number in numbers]

    def run_of(self, start: int, count: int) -> list[int]:
        return list(range(self.size))[start % self.size :][:count]

    # -- batches ------------------------------------------------------------------------------

    @rule(numbers=some, first=int64, layout=layouts)
    def insert(self, numbers: list[int], first: int, layout: str) -> None:
        numbers = self.chosen(numbers)
        first = min(first, 2**63 - 1 - len(numbers))
        values = np.arange(first, first + len(numbers), dtype=np.int64)
        expected = []
        for i, value in zip(numbers, values.tolist(), strict=True):
            expected.append(self.keys[i] not in self.model)
            self.model[self.keys[i]] = value
        batch = laid_out(self.pool[numbers], layout), laid_out(values, layout)
        new = self.ask("insert", *batch)
        if new is not None:
            agree("insert", new, expected)

    @rule(start=number, count=st.integers(0, 300))
    def insert_run(self, start: int, count: int) -> None:
        """Many at once, so that the table grows; the count shrinks to where that goes wrong."""
        self.insert(self.run_of(start, count), start, "C")

    @rule(numbers=some, layout=layouts)
    def delete(self, numbers: list[int], layout: str) -> None:
        numbers = self.chosen(numbers)
        expected = [self.model.pop(self.keys[i], None) is not None for i in numbers]
        removed = self.ask("delete", laid_out(self.pool[numbers], layout))
        if removed is not None:
            agree("delete", removed, expected)

    @rule(start=number, count=st.integers(0, 300))
    def delete_run(self, start: int, count: int) -> None:
        self.delete(self.run_of(start, count), "C")

    @rule(numbers=some, layout=layouts)
    def find(self, numbers: list[int], layout: str) -> None:
        numbers = self.chosen(numbers)
        expected = [self.model.get(self.keys[i], -1) for i in numbers]
        agree("find", self.ask("find", laid_out(self.pool[numbers], layout)), expected)

    @precondition(can("intern"))
    @rule(numbers=some, first=st.integers(-1000, 1000), layout=layouts)
    def intern(self, numbers: list[int], first: int, layout: str) -> None:
        numbers = self.chosen(numbers)
        following, expected = first, []
        for i in numbers:
            expected.append(self.keys[i] not in self.model)
            if expected[-1]:
                self.model[self.keys[i]], following = following, following + 1
        values, new = self.ask("intern", laid_out(self.pool[numbers], layout), first)
        agree("intern", new, expected)
        agree("intern", values, [self.model[self.keys[i]] for i in numbers])

    # -- one at a time ------------------------------------------------------------------------

    @precondition(can(*MAPPING))
    @rule(number=number, value=int64)
    def set_one(self, number: int, value: int) -> None:
        key = self.keys[number % self.size]
        self.model[key] = value
        self.ask("__setitem__", key, value)
        agree("table[digest]", self.ask("__getitem__", key), value)

    @precondition(can(*MAPPING))
    @rule(number=number)
    def delete_one(self, number: int) -> None:
        key = self.keys[number % self.size]
        agree("digest in table", self.ask("__contains__", key), key in self.model)
        try:
            self.ask("__delitem__", key)
        except KeyError:
            agree("KeyError: digest in table", True, key not in self.model)
        else:
            agree("del: digest in table", True, key in self.model)
        self.model.pop(key, None)

    # -- room ---------------------------------------------------------------------------------

    @precondition(can("reserve"))
    @rule(entries=st.integers(0, 2000))
    def reserve(self, entries: int) -> None:
        self.ask("reserve", entries)

    @precondition(can("compact"))
    @rule()
    def compact(self) -> None:
        self.ask("compact")

    @precondition(can("clear"))
    @rule()
    def clear(self) -> None:
        self.ask("clear")
        self.model.clear()

    # -- what is there ------------------------------------------------------------------------

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "table"):
            return
        if hasattr(self.table, "check"):
            self.table.check()
        if hasattr(self.table, "__len__"):
            agree("len", self.ask("__len__"), len(self.model))
        expected = [self.model.get(key, -1) for key in self.keys]
        agree("find of all digests", self.ask("find", self.pool), expected)
        if hasattr(self.table, "contains"):
            expected = [key in self.model for key in self.keys]
            agree("contains of all digests", self.ask("contains", self.pool), expected)
        if hasattr(self.table, "__iter__"):
            agree("iteration", sorted(self.ask("__iter__")), sorted(self.model))
        if hasattr(self.table, "digests") and hasattr(self.table, "values_array"):
            entries = zip(_keys(self.table.digests), self.table.values_array.tolist(), strict=True)
            agree("digests and values_array", dict(entries), self.model)


def _keys(digests: Digests) -> list[bytes]:
    return [row.tobytes() for row in digests]
