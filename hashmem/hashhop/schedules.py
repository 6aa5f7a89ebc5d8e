"""How an amount changes over a stage of training: plain functions of progress, 0 … 1.

Progress is 0 at the stage's first example and 1 at its last. An amount of a stage is a whole
number, a schedule, or a pair (low, high) of these, between which, both included, it is drawn
evenly for each example. What a schedule gives is rounded to a whole number, halves to even.

Any function will do; those here keep to their range, have a `repr` that tells what they are, and
can be sent to the workers of a data loader.
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

Schedule = Callable[[float], float]
Amount = int | Schedule | tuple[int | Schedule, int | Schedule]


@dataclass(frozen=True)
class Constant:
    """The same `value` throughout.

    >>> Constant(4)(0.3)
    4
    """

    value: float

    def __call__(self, progress: float) -> float:
        return self.value


@dataclass(frozen=True)
class Linear:
    """From `start` to `end` in a straight line.

    >>> Linear(2, 6)(0.25)
    3.0
    """

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        # Both terms are exact at the ends, and no rounding leads out of the range.
        value = self.start * (1 - progress) + self.end * progress
        low, high = sorted((self.start, self.end))
        return min(max(value, low), high)


@dataclass(frozen=True, init=False)
class Staircase:
    """Each of `values` in turn, for an equal part of the stage.

    Raises `ValueError` without values.

    >>> [Staircase(2, 4, 8)(progress) for progress in (0, 0.3, 0.4, 1)]
    [2, 2, 4, 8]
    """

    values: tuple[float, ...]

    def __init__(self, *values: float) -> None:
        if not values:
            raise ValueError("a staircase has at least one step: write Staircase(2, 4, 8)")
        object.__setattr__(self, "values", values)

    def __call__(self, progress: float) -> float:
        return self.values[min(int(progress * len(self.values)), len(self.values) - 1)]


def bounds(amount: Amount, progress: float, name: str) -> tuple[int, int]:
    """Return the least and the greatest that `amount` may be at `progress`.

    `name` is what an error calls it. Raises `ValueError` on a pair the wrong way round and on what
    is no amount.
    """
    low, high = amount if isinstance(amount, tuple) and len(amount) == 2 else (amount, amount)
    least, greatest = _whole(low, progress, name), _whole(high, progress, name)
    if least > greatest:
        raise ValueError(
            f"{name} are drawn from {least} to {greatest} at progress {progress:g}, which is "
            "nothing: give the lower bound first"
        )
    return least, greatest


def is_scheduled(amount: Amount) -> bool:
    """Whether `amount` may change with progress."""
    parts = amount if isinstance(amount, tuple) else (amount,)
    return any(callable(part) and not isinstance(part, Constant) for part in parts)


def _whole(part: int | Schedule, progress: float, name: str) -> int:
    if callable(part):
        return round(part(progress))
    if isinstance(part, Integral):
        return int(part)
    raise ValueError(
        f"{name} are a whole number, a schedule or a pair (low, high) of these, not {part!r}"
    )
