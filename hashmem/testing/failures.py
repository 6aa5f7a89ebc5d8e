"""What a machine or a contract says about an implementation: the smallest failure, as text."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FunctionType
from typing import Any

from hypothesis import Phase, settings
from hypothesis.errors import InvalidArgument
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

__all__ = ["smallest_failure"]

HEADING = re.compile(r"^(Falsifying example|Failing test case): ?(<state machine>)?")
EVERY_STEP = ("state.agrees()", "state.teardown()")  # Hypothesis lists them among the steps
PHASES = [Phase.explicit, Phase.generate, Phase.shrink]


def smallest_failure(
    test: type[RuleBasedStateMachine] | Callable[[], Any],
    *,
    max_examples: int = 100,
    stateful_step_count: int = 15,
    shrink: bool = True,
) -> str | None:
    """Run a machine, or a test that takes no arguments; return what fails at last, shrunk.

    None where nothing fails; without `shrink`, the first failure. The same examples in every run,
    unless the test has settings of its own. For trying a suite out: plant a bug in an
    implementation, and see whether and how it is found. What is no `Exception`, as
    `KeyboardInterrupt`, is raised.
    """
    before = settings.default
    chosen = settings(
        max_examples=max_examples,
        stateful_step_count=stateful_step_count,
        deadline=None,
        derandomize=True,
        database=None,
        print_blob=False,
        phases=PHASES if shrink else PHASES[:-1],
    )
    settings.register_profile("smallest_failure", chosen)
    settings.load_profile("smallest_failure")
    attributes = dict(vars(test)) if isinstance(test, FunctionType) else None
    try:
        if attributes is not None:
            with suppress(InvalidArgument):  # it has settings of its own
                chosen(test)
        if isinstance(test, type) and issubclass(test, RuleBasedStateMachine):
            run_state_machine_as_test(test, settings=chosen)
        else:
            test()
    except Exception as error:
        return "\n".join(_told(error))
    finally:
        if attributes is not None:
            vars(test).clear()
            vars(test).update(attributes)
        settings.register_profile("before smallest_failure", before)
        settings.load_profile("before smallest_failure")
    return None


def _told(error: BaseException) -> Iterator[str]:
    """The steps or arguments that Hypothesis notes, then the error."""
    if isinstance(error, BaseExceptionGroup):  # several failures: one is enough
        yield from _told(error.exceptions[0])
        return
    for note in getattr(error, "__notes__", []):
        for line in note.splitlines():
            line = HEADING.sub("", line)
            if line and line not in EVERY_STEP:
                yield line
    yield f"{type(error).__name__}: {error}".removesuffix(": ")
