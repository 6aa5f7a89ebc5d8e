"""Where the edges of the asked chains lie in a sample's text.

An edge is a line ``source = target``. Its depth is 0 in the first line and 1 in the last; the
distance from one edge of a chain to the next is a number of lines, negative where the next one
stands further up. `HashHop` and `HiddenHop` compute it, without the text and in memory that grows
with the queries alone; other samples are read.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hashmem.hashhop.generate import HashHop
from hashmem.hashhop.hidden import HiddenHop
from hashmem.hashhop.names import Letters
from hashmem.hashhop.parse import parse_pairs

_KEY = range(8, 65)  # bytes: the widths of a table's keys


class PlacedSample(Protocol):
    """What `find_places` asks of a sample; `HashHop` and `MultiHopSample` have it."""

    @property
    def chains(self) -> list[tuple[str, ...]]: ...
    def text(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Places:
    """The line of every edge of every asked chain, in the order of the sample's `chains`."""

    lines: NDArray[np.int64]  # (queries, most hops), from 0; -1 past a chain's end, or not there
    total: int  # lines of the text

    @property
    def depths(self) -> NDArray[np.float64]:
        """The depth of every edge, (queries, hops): 0 first line, 1 last line, NaN no line."""
        return np.where(self.lines < 0, np.nan, self.lines / max(self.total - 1, 1))

    @property
    def distances(self) -> NDArray[np.float64]:
        """Lines from each edge of a chain down to the next, (queries, hops − 1); NaN: no line."""
        missing = (self.lines[:, :-1] < 0) | (self.lines[:, 1:] < 0)
        return np.where(missing, np.nan, np.diff(self.lines, axis=1))


def find_places(sample: PlacedSample) -> Places:
    """Find the line of every edge that the chains of `sample` take.

    O(queries · hops) where it is computed, O(text) where it is read. Of equal lines the last
    counts. Raises `ValueError` on a text that is no list of pairs.

    >>> sample = HashHop(characters=1_000, hops=2, hash_length=8, queries=1, seed=7)
    >>> places = find_places(sample)
    >>> places.lines.tolist(), sample.line(3), sample.line(20)
    ([[3, 20]], 'dLuApsnj = fosOKdza', 'fosOKdza = sDdbAajp')
    >>> places.distances.tolist()
    [[17.0]]
    """
    if isinstance(sample, HashHop | HiddenHop):
        found, total = np.concatenate(sample.chain_lines()), len(sample)
    else:
        edges = [edge for chain in sample.chains for edge in pairwise(chain)]
        found, total = _read_lines(sample.text(), edges)
    hops = np.array([len(chain) - 1 for chain in sample.chains], np.int64)
    lines = np.full((len(hops), hops.max(initial=0)), -1, np.int64)
    lines[np.arange(lines.shape[1]) < hops[:, None]] = found
    return Places(lines, total)


def _read_lines(text: str, edges: list[tuple[str, str]]) -> tuple[NDArray[np.int64], int]:
    """The last line that each edge stands on, -1 where there is none, and the number of lines."""
    from hashmem import OpenAddressingTable

    sources, targets = parse_pairs(text)
    wanted = {source.encode() for source, _ in edges}
    fit = [source for source in wanted if len(source) == sources.shape[1]]
    if not fit:
        return np.full(len(edges), -1, np.int64), len(sources)
    asked = _as_keys(np.frombuffer(b"".join(fit), np.uint8).reshape(len(fit), -1))
    table = OpenAddressingTable(width=asked.shape[1], capacity=len(fit))
    table.insert(asked, np.arange(len(fit)))
    # Keys of long hashes are cut, so that a hit may be another source: the whole line decides.
    hits = np.flatnonzero(table.find(_as_keys(sources)) >= 0)
    place = {
        (source.tobytes(), target.tobytes()): int(line)
        for line, source, target in zip(hits, sources[hits], targets[hits], strict=True)
    }
    found = [place.get((source.encode(), target.encode()), -1) for source, target in edges]
    return np.array(found, np.int64), len(sources)


def _as_keys(letters: Letters) -> Letters:
    width = min(max(letters.shape[1], _KEY[0]), _KEY[-1])
    keys = np.zeros((len(letters), width), np.uint8)
    keys[:, : letters.shape[1]] = letters[:, :width]
    return keys
