"""Code that runs in the middle of a change, in its thread, as signal handlers and finalizers do.

It is refused, and whatever it does with that, the table stays whole. A signal comes after each
kernel call of a change in turn, which is where the interpreter delivers those that came meanwhile.
"""

import signal
from contextlib import suppress

import numpy as np
import pytest

from hashmem import ChainingTable, DigestMultimap, OpenAddressingTable

WIDTH, N = 16, 300
OLD = np.random.default_rng(1).integers(0, 256, (N, WIDTH), np.uint8)
NEW = np.random.default_rng(2).integers(0, 256, (8 * N, WIDTH), np.uint8)

CHANGES = {
    "insert": lambda table: table.insert(NEW, np.arange(len(NEW))),
    "intern": lambda table: table.intern(NEW, first=7),
    "delete": lambda table: table.delete(OLD[::2]),
    "pop_many": lambda table: table.pop_many(OLD[::3]),
    "reserve": lambda table: table.reserve(50 * N),
    "compact": lambda table: table.compact(),
    "clear": lambda table: table.clear(),
}
USES = {
    "len": len,
    "find": lambda table: table.find(OLD),
    "in": lambda table: OLD[0].tobytes() in table,
    "insert": lambda table: table.insert(OLD[:1], [5]),
    "delete": lambda table: table.delete(OLD[:1]),
    "iteration": list,
    "check": lambda table: table.check(),
}


def interrupted(owner, name, change, use, at):
    """Make `change` with `use` after the call number `at` of ``owner.name``. What use raised, or
    None where there were fewer calls."""
    original, calls, raised = getattr(owner, name), [], []

    def handle(*_):
        try:
            use()
        except Exception as error:
            raised.append(error)
            raise
        raised.append(None)

    def call(*arguments, **named):
        answer = original(*arguments, **named)
        calls.append(arguments)
        if len(calls) == at:
            signal.raise_signal(signal.SIGUSR1)
        return answer

    before = signal.signal(signal.SIGUSR1, handle)
    setattr(owner, name, call)
    try:
        with suppress(RuntimeError):
            change()
    finally:
        delattr(owner, name)
        signal.signal(signal.SIGUSR1, before)
    return raised[0] if raised else None


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [OpenAddressingTable, ChainingTable])
def test_tables_refuse_to_be_used_in_the_middle_of_a_change(kind, change, use):
    for at in range(1, 20):
        table = kind(WIDTH)
        table.insert(OLD, np.arange(N))
        twin = kind(WIDTH)
        twin.insert(OLD, np.arange(N))
        expected = [dict(twin.items())]
        CHANGES[change](twin)
        expected.append(dict(twin.items()))
        error = interrupted(
            table, "_kernel", lambda t=table: CHANGES[change](t), lambda t=table: USES[use](t), at
        )
        if error is None:
            break
        assert isinstance(error, RuntimeError)
        assert "in the middle of a change" in str(error)
        table.check()
        assert dict(table.items()) in expected
    assert at > 1 or change in ("pop_many", "clear")


@pytest.mark.parametrize("use", ["len", "find", "delete", "add"])
@pytest.mark.parametrize("change", ["add", "delete"])
def test_multimaps_refuse_to_be_used_in_the_middle_of_a_change(change, use):
    changes = {"add": lambda m: m.add(NEW, np.arange(len(NEW))), "delete": lambda m: m.delete(OLD)}
    uses = {**USES, "add": lambda m: m.add(OLD[:1], [5])}
    multimap = DigestMultimap(WIDTH)
    multimap.add(OLD, np.arange(N))
    before = len(multimap)
    name = {"add": "intern", "delete": "delete"}[change]
    error = interrupted(
        multimap._table, name, lambda: changes[change](multimap), lambda: uses[use](multimap), 1
    )
    assert isinstance(error, RuntimeError)
    multimap.check()
    assert len(multimap) in (before, 0)


def test_a_refused_use_that_is_passed_over_does_no_harm():
    table = OpenAddressingTable(WIDTH)
    table.insert(OLD, np.arange(N))

    def use():
        with suppress(RuntimeError):
            len(table)

    interrupted(table, "_kernel", lambda: table.insert(NEW, np.arange(len(NEW))), use, 1)
    table.check()
    assert (table.find(NEW) == np.arange(len(NEW))).all()
    assert len(table) == N + len(NEW)
