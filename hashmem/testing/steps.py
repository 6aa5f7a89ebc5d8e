"""Finding what never ends without waiting for it: lines of Python are counted, not seconds.

A count is the same in every run, so an endless loop fails, shrinks and is reported like a wrong
answer. Compiled code runs no lines of Python: `returns_in_time` tries that in a child process.
"""

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Endless", "returns_in_time", "step_limit"]


class Endless(AssertionError):
    """The implementation under test ran on and on."""


@contextmanager
def step_limit(steps: int) -> Iterator[None]:
    """Raise `Endless` where what the block calls runs more than `steps` lines of Python.

    Lines of the block itself and of other threads do not count. Takes the place of Hypothesis' own
    trace function for so long. Where a debugger or a coverage tool traces the program, nothing is
    counted.

    >>> def search():
    ...     while True:
    ...         pass
    >>> with step_limit(1000):
    ...     search()
    Traceback (most recent call last):
    hashmem.testing.steps.Endless: not done after 1000 lines of Python
    """
    left = steps

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left < 0:
                raise Endless(f"not done after {steps} lines of Python")
        return count

    before = sys.gettrace()
    if before is not None and not (getattr(before, "__module__", "") or "").startswith(
        "hypothesis"
    ):
        yield
        return
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)


def returns_in_time(call: Callable[[], object], seconds: float) -> bool:
    """Tell whether `call`, run in a forked child, ends within `seconds`; what it raises is no
    matter. For code that may loop where no line of Python is run: the child can be killed."""

    def quietly() -> None:
        try:
            call()
        except BaseException:
            return

    child = multiprocessing.get_context("fork").Process(target=quietly, daemon=True)
    child.start()
    child.join(seconds)
    ended = child.exitcode is not None
    if not ended:
        child.kill()
        child.join()
    return ended
