"""What an experiment leaves: its figures as rows, what they mean in words, and files of both."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hashmem.tables.fit import Fit

__all__ = ["Experiment", "Row", "Sizes", "figure", "told"]

Row = dict[str, Any]  # a figure or a word by column; the columns of all rows are the same


@dataclass(frozen=True)
class Sizes:
    """How large the laboratory makes things. The default takes about a minute.

    Raises `ValueError` for fewer than 1024 digests to truncate: they have no pairs to count.
    """

    loads: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
    slots: int = 1 << 19  # of the tables whose probes are counted
    occupied: int = 1 << 18  # digests, and buckets, whose occupancy is counted
    truncated: int = 1 << 21  # digests whose prefixes are searched for pairs, a power of two
    timed: int = 1 << 20  # slots of the tables that are timed
    rounds: int = 3
    attacked: int = 1 << 12  # hostile digests
    aimed: int = 1 << 11  # of them, those that were ground for one bucket of the known seed

    def __post_init__(self) -> None:
        if self.truncated < 1024:
            raise ValueError(f"truncated must be 1024 or more, not {self.truncated}")

    @classmethod
    def quick(cls) -> "Sizes":
        """Sizes that run in seconds and say nothing about speed."""
        return cls((0.3, 0.7, 0.95), 1 << 13, 1 << 12, 1 << 14, 1 << 12, 2, 1 << 9, 1 << 8)

    @classmethod
    def full(cls) -> "Sizes":
        """Sizes of the published figures: minutes, and about 0.5 GiB."""
        return cls(slots=1 << 20, occupied=1 << 20, truncated=1 << 23, timed=1 << 21,
                   rounds=3, attacked=1 << 13, aimed=1 << 12)  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """One experiment's results. `rows` are what its figure shows, `summary` its table."""

    name: str
    title: str
    method: str  # how it was measured, against which theory
    reading: str  # what came out, in one paragraph made of the rows
    rows: list[Row]
    summary: list[Row] = field(default_factory=list)  # empty where the table shows the rows

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def write(self, folder: Path) -> list[Path]:
        """Write NAME.csv and, where there is a summary, NAME-summary.csv: their paths.

        Raises `OSError` where the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tables = [(self.name, self.rows), (f"{self.name}-summary", self.summary)]
        return [_write_csv(folder / f"{name}.csv", rows) for name, rows in tables if rows]


def _write_csv(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: "" if value is None else _short(value) for name, value in row.items()}
            for row in rows
        )
    return path


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def told(fit: Fit | None) -> Row:
    """The columns that every test leaves; empty where there was too little to compare."""
    if fit is None:
        return {"chi-square": None, "degrees": None, "p": None, "fits": None}
    return {
        "chi-square": fit.statistic, "degrees": fit.degrees, "p": fit.p_value, "fits": fit.fits,
    }  # fmt: skip


def figure(value: float | None) -> str:
    """Write a figure with three significant digits, thousands apart, the largest with two."""
    if value is None:
        return ""
    if abs(value) >= 1e15:
        return f"{value:.1e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"
