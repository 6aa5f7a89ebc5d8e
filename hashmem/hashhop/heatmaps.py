"""Accuracy by where in the text the edges of a chain lie, as counts in bins.

An edge counts as right where the first hash that was asked for at its end or after it is right.
So with step-by-step answers every edge has its own mark, and with direct ones every edge of a
chain has the mark of the whole answer. Depths and distances are binned as shares of the text's
lines.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashmem.hashhop.places import PlacedSample, find_places
from hashmem.hashhop.score import Score

BINS = 10


@dataclass(frozen=True, eq=False)
class Heatmap:
    """How many edges fell into each cell, and how many of them were right."""

    hits: NDArray[np.int64]  # (rows, columns)
    counts: NDArray[np.int64]  # (rows, columns)
    rows: NDArray[np.float64]  # a hop for each row; or the edges of the bins, one more than rows
    columns: NDArray[np.float64]  # the edges of the bins, one more than columns

    def __add__(self, other: "Heatmap") -> "Heatmap":
        """Count the edges of both, which are binned alike."""
        return Heatmap(self.hits + other.hits, self.counts + other.counts, self.rows, self.columns)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """The share of right edges in each cell, NaN where no edge fell."""
        return _share(self.hits, self.counts)

    @property
    def by_row(self) -> NDArray[np.float64]:
        """The share of right edges in each row: the curve by hop, where rows are hops."""
        return _share(self.hits.sum(axis=1), self.counts.sum(axis=1))

    @property
    def by_column(self) -> NDArray[np.float64]:
        """The share of right edges in each column: the curve by depth, or by distance."""
        return _share(self.hits.sum(axis=0), self.counts.sum(axis=0))


@dataclass(frozen=True, eq=False)
class Heatmaps:
    """Accuracy by the places of edges, in three ways."""

    depth: Heatmap  # hops × depth of the edge, 0 … 1
    distance: Heatmap  # hops from the second on × distance from the edge before, -1 … 1 texts
    depth_distance: Heatmap  # the same edges: depth × distance from the edge before


def place_answers(score: Score, sample: PlacedSample) -> dict[str, Any]:
    """Return `score.to_dict()` with the place of every edge, fit for JSON and for `report`.

    Each answer gets `lines`, the line number of each edge of its chain (-1: none), and `edges`,
    whether each was right. O(queries · hops) beside what `find_places` takes. Raises `ValueError`
    where the score is of another sample.
    """
    rows = {chain[0]: row for row, chain in enumerate(sample.chains)}
    strange = [mark.query for mark in score.marks if mark.query not in rows]
    if strange:
        raise ValueError(f"the score is of another sample: {strange[0]!r} is no query of this one")
    places = find_places(sample)
    result = score.to_dict()
    for answer, mark in zip(result["answers"], score.marks, strict=True):
        row = rows[mark.query]
        hops = len(sample.chains[row]) - 1
        ends = np.searchsorted(mark.positions, np.arange(1, hops + 1))
        answer["lines"] = places.lines[row, :hops].tolist()
        answer["edges"] = [mark.right[end] for end in ends]
    result["text_lines"] = places.total
    return result


def heatmaps(*results: Mapping[str, Any], bins: int = BINS) -> Heatmaps | None:
    """Count the edges of results of `place_answers` in `bins` bins; None: they have no places.

    Several are counted together, whatever the lengths of their texts. Raises `ValueError` where
    their chains differ in length.

    >>> from hashmem.hashhop import HashHop, score
    >>> sample = HashHop(characters=30_000, hops=3, queries=4, seed=1)
    >>> maps = heatmaps(place_answers(score(sample, sample.completion), sample))
    >>> maps.depth.counts.shape, int(maps.depth.counts.sum()), maps.depth.by_row.tolist()
    ((3, 10), 12, [1.0, 1.0, 1.0])
    """
    counted = [one for result in results if (one := _count_result(result, bins)) is not None]
    if not counted:
        return None
    if len({len(one.depth.counts) for one in counted}) > 1:
        raise ValueError("chains of different lengths are not counted together: take them apart")
    return Heatmaps(
        depth=reduce(add, (one.depth for one in counted)),
        distance=reduce(add, (one.distance for one in counted)),
        depth_distance=reduce(add, (one.depth_distance for one in counted)),
    )


def count_edges(
    lines: NDArray[np.int64], right: NDArray[np.bool_], total: int, bins: int = BINS
) -> Heatmaps:
    """Count edges by their `lines` (answers, hops; -1: none) of `total`, and whether `right`.

    O(answers · hops). Raises `ValueError` on fewer than one bin and on lines outside the text.
    """
    if bins < 1:
        raise ValueError(f"a heatmap has at least 1 bin, not {bins}")
    if lines.size and not -1 <= lines.min() <= lines.max() < total:
        raise ValueError(f"line {lines.max()} is not one of the {total} lines, counted from 0")
    hops = np.broadcast_to(np.arange(lines.shape[1]), lines.shape)
    depth = lines * bins // max(total, 1)
    there = lines >= 0
    moved = there[:, 1:] & there[:, :-1]
    distance = (np.diff(lines, axis=1) + total) * bins // (2 * max(total, 1))
    depths = np.linspace(0, 1, bins + 1)
    distances = np.linspace(-1, 1, bins + 1)

    def heatmap(
        row: NDArray[np.int64], column: NDArray[np.int64], which: NDArray[np.bool_],
        hit: NDArray[np.bool_], rows: NDArray[np.float64], columns: NDArray[np.float64], height: int
    ) -> Heatmap:  # fmt: skip
        cells = row[which] * bins + column[which]
        size = height * bins
        counts = np.bincount(cells, minlength=size).reshape(height, bins)
        hits = np.bincount(cells[hit[which]], minlength=size).reshape(height, bins)
        return Heatmap(hits, counts, rows, columns)

    named = np.arange(1.0, lines.shape[1] + 1)
    later = hops[:, 1:] - 1, distance, moved, right[:, 1:]
    return Heatmaps(
        depth=heatmap(hops, depth, there, right, named, depths, len(named)),
        distance=heatmap(*later, named[1:], distances, max(len(named) - 1, 0)),
        depth_distance=heatmap(depth[:, 1:], *later[1:], depths, distances, bins),
    )


def _count_result(result: Mapping[str, Any], bins: int) -> Heatmaps | None:
    placed = [answer for answer in result["answers"] if "lines" in answer]
    if not placed:
        return None
    hops = max(len(answer["lines"]) for answer in placed)
    lines = np.full((len(placed), hops), -1, np.int64)
    right = np.zeros((len(placed), hops), bool)
    for row, answer in enumerate(placed):
        lines[row, : len(answer["lines"])] = answer["lines"]
        right[row, : len(answer["edges"])] = answer["edges"]
    return count_edges(lines, right, result["text_lines"], bins)


def _share(hits: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(counts > 0, hits / np.maximum(counts, 1), np.nan)
