"""A figure for each experiment, drawn from its rows with matplotlib (extra `plots`)."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hashmem.laboratory.experiment import Experiment, Row

__all__ = ["draw"]

INCHES = (9.0, 5.2)
LEAST_PAIRS = 1e-8  # the lowest expectation shown
FEWEST_JOINED = 3  # points that a line may join
FEW = 5  # probes, below which each has its tick
DOTS = 80  # an inch: about 50 kB a figure


def draw(experiment: Experiment, folder: Path) -> Path:
    """Draw `experiment` into `folder`/NAME.png and return its path.

    Raises `ImportError`, with what to install, where matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}: plots need hashmem[plots]") from error
    figure = Figure(figsize=INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    _DRAWN[experiment.name](figure, experiment.rows)
    figure.suptitle(experiment.title)
    path = folder / f"{experiment.name}.png"
    # No software or date in the file: the same rows give the same bytes.
    figure.savefig(path, dpi=DOTS, metadata={"Software": None})
    return path


def _probes(figure: Any, rows: list[Row]) -> None:
    panels = _distinct((row["table"], row["searches"]) for row in rows)
    axes = figure.subplots(2, -(-len(panels) // 2), squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.axis("off")
    for axis, (table, searches) in zip(axes, panels, strict=False):
        own = [row for row in rows if (row["table"], row["searches"]) == (table, searches)]
        loads = _distinct(row["load"] for row in own)
        for color, load in zip(_colors(len(loads)), loads, strict=True):
            here = [row for row in own if row["load"] == load]
            total = sum(row["observed"] for row in here)
            middle = [(row["probes from"] + row["to"]) / 2 for row in here]
            widths = [(row["to"] - row["probes from"] + 1) * total for row in here]
            for column, style in (("observed", "o"), ("expected", "-")):
                shares = [row[column] / width for row, width in zip(here, widths, strict=True)]
                shown = [(x, y) for x, y in zip(middle, shares, strict=True) if y * total >= 0.01]
                axis.plot(
                    *zip(*shown, strict=True), style, color=color, markersize=3, linewidth=1,
                    label=f"{load:g}" if style == "o" else None,
                )  # fmt: skip
        axis.set(xscale="log", yscale="log", title=f"{table}, {searches}", xlabel="probes")
        if (longest := max(row["to"] for row in own)) < FEW:
            axis.set_xscale("linear")
            axis.set_xticks(range(1, longest + 1))
        axis.legend(title="load", fontsize=6, title_fontsize=6)
    axes[0].set_ylabel("share, points; theory, lines")


def _occupancy(figure: Any, rows: list[Row]) -> None:
    axes = figure.subplots(1, 2, sharey=True)
    for axis, way in zip(axes, ("unmixed", "mixed"), strict=True):
        own = [row for row in rows if row["bucket by"] == way]
        for digest in _distinct(row["digest"] for row in own):
            here = [row for row in own if row["digest"] == digest]
            seen = [row for row in here if row["observed"]]
            style = (
                "o" if len(seen) < FEWEST_JOINED else "o-"
            )  # a line would invent what is between
            axis.plot(*_columns(seen, "digests from", "observed"), style, markersize=3,
                      linewidth=0.7, label=digest)  # fmt: skip
        axis.plot(*_columns(here, "digests from", "expected"), "k--", linewidth=1, label="Poisson")
        last = here[-1]["digests from"]
        axis.set(yscale="log", ylim=(0.5, None), title=way,
                 xlabel=f"digests in a bucket ({last}: {last} or more)")  # fmt: skip
    axes[0].set_ylabel("buckets")
    axes[1].legend(fontsize=8)


def _birthday(figure: Any, rows: list[Row]) -> None:
    axis = figure.subplots()
    widths = _distinct(row["bits"] for row in rows)
    for color, bits in zip(_colors(len(widths)), widths, strict=True):
        own = [row for row in rows if row["bits"] == bits]
        first = [row for row in own if row["digest"] == own[0]["digest"]]
        axis.plot(*_columns(first, "digests", "expected"), "-", color=color, linewidth=1)
        for digest, mark in zip(_distinct(row["digest"] for row in own), "ox", strict=False):
            found = [row for row in own if row["digest"] == digest and row["pairs"]]
            label = digest if bits == widths[0] else None
            axis.plot(*_columns(found, "digests", "pairs"), mark, color=color, label=label)
        last = first[-1]
        place = last["digests"], max(last["expected"], LEAST_PAIRS)
        axis.annotate(f"{bits} bits", place, fontsize=8, xytext=(8, -3),
                      textcoords="offset points")  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="digests", ylim=(LEAST_PAIRS, None),
             ylabel="pairs that agree, points; expected, lines")  # fmt: skip
    axis.axhline(1, color="gray", linewidth=0.5)
    axis.legend()


def _throughput(figure: Any, rows: list[Row]) -> None:
    tables = _distinct(row["table"] for row in rows)
    axes = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axis, table in zip(axes, tables, strict=True):
        own = [row for row in rows if row["table"] == table]
        for column in ("insert (ns)", "hits (ns)", "misses (ns)"):
            axis.plot(*_columns(own, "load", column), "o-", markersize=3, label=column[:-5])
        axis.set(title=table, xlabel="load", ylim=(0, None))
        axis.legend()
    axes[0].set_ylabel("ns an item")


def _attack(figure: Any, rows: list[Row]) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    names = [f"{row['table']}\n{row['seed']}: {row['digests']}" for row in rows]
    places = range(len(rows))
    left.barh(places, [row["longest"] for row in rows], color="lightgray", label="longest")
    left.barh(places, [row["probes"] for row in rows], height=0.4, label="mean")
    right.barh(places, [row["times random"] for row in rows])
    left.set(xscale="log", xlabel="probes of a hit")
    right.set(xscale="log", xlabel="find time, times that of random digests")
    left.set_yticks(list(places), names, fontsize=6)
    left.invert_yaxis()
    left.legend(fontsize=8)


_DRAWN: dict[str, Callable[[Any, list[Row]], None]] = {
    "probes": _probes,
    "occupancy": _occupancy,
    "birthday": _birthday,
    "throughput": _throughput,
    "attack": _attack,
}


def _columns(rows: list[Row], *names: str) -> list[list[Any]]:
    return [[row[name] for row in rows] for name in names]


def _distinct(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))


def _colors(n: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](i / max(n - 1, 1) * 0.9) for i in range(n)]
