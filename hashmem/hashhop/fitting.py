"""How much fits into a size: the graph of a sample, or what would have to change."""

from dataclasses import dataclass

import numpy as np

from hashmem.hashhop.graph import Graph
from hashmem.hashhop.names import MAX_LENGTH, HashNames

__all__ = ["Wanted"]

LEAST = 4  # nodes of a cycle that lines are laid beside


@dataclass(frozen=True)
class Wanted:
    """What a sample must hold, whatever its size.

    Raises `ValueError` on what no size can hold.
    """

    seed: int
    names: HashNames
    hops: int  # of the longest chains
    queries: int
    unanswerable: int  # of the queries
    cycle: int | None  # nodes; None: all are on one
    shares: dict[str, float]  # of the nodes: lines beside the cycle, by kind
    near_kind: str

    def __post_init__(self) -> None:
        for name, share in self.shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share of the hashes, 0 to 1, not {share}")
        if self.cycle is not None and self.cycle < 2:
            raise ValueError(f"a cycle has at least 2 hashes, not {self.cycle}")
        if self.queries < 1:
            raise ValueError(f"a sample asks at least 1 of its queries, not {self.queries}")
        if not 0 <= self.unanswerable <= self.queries:
            raise ValueError(
                f"of {self.queries} queries {self.unanswerable} cannot be unanswerable: take 0 to "
                f"{self.queries}"
            )
        if self.shares["near"]:
            self.names.near(np.zeros(1, np.uint64), self.near_kind)  # raises where there are none

    @property
    def line_length(self) -> int:
        """Characters of a line, its newline included."""
        return 2 * self.names.length + 4

    @property
    def _weight(self) -> float:
        """Lines for each node."""
        return 1 + sum(self.shares.values())

    @property
    def _least_nodes(self) -> int:
        return max(self.cycle or 2 * self.hops, LEAST if self._weight > 1 else 1)

    def bounds(self) -> tuple[int, int]:
        """Return the lines that are enough, and the most that there are hashes for."""
        chains = (self.queries - self.unanswerable) * (self.cycle or self.hops + 1)
        least = int(max(self._least_nodes, chains) * self._weight) + 1
        return least, max(least, int((self.names.most - self.unanswerable) / self._weight))

    def graph(self, characters: int) -> Graph:
        """Return the largest graph that fits. Raises `ValueError` where none does."""
        nodes, beside = self._divided(max(0, characters // self.line_length))
        if nodes < self._least_nodes:
            raise ValueError(self._too_small(characters, nodes))
        graph = Graph(
            self.seed, nodes, self.cycle or nodes,
            beside["overwritten"], beside["branches"], beside["near"],
        )  # fmt: skip
        if graph.named + self.unanswerable > self.names.most:
            raise ValueError(self._too_few_hashes(characters, graph.named + self.unanswerable))
        chains, asked = nodes // (self.cycle or self.hops + 1), self.queries - self.unanswerable
        if asked > chains:
            raise ValueError(
                f"{nodes} lines hold {chains} chains of {self.hops} hops apart from each other: "
                f"take 1 to {chains} queries, not {asked}"
            )
        return graph

    def _divided(self, lines: int) -> tuple[int, dict[str, int]]:
        """How many nodes a cycle has in `lines` lines, and how many lines of each kind beside it.

        A kind's lines are its share of the nodes, rounded down; the nodes are a multiple of a
        cycle. As many as fit.
        """
        unit = self.cycle or 1
        nodes = int((lines + len(self.shares)) / self._weight) // unit * unit + unit
        while nodes:
            counts = {name: int(share * nodes) for name, share in self.shares.items()}
            if nodes + sum(counts.values()) <= lines:
                return nodes, counts
            nodes -= unit
        return 0, dict.fromkeys(self.shares, 0)

    def _too_small(self, characters: int, nodes: int) -> str:
        least = self._least_nodes
        if self.cycle:
            needed = f"a cycle of {self.cycle} hashes needs {least}: take a shorter one"
        else:
            needed = f"{self.hops} hops need {2 * self.hops}: take at most {nodes // 2} hops"
        lines = int(np.ceil(least * self._weight)) + (self._weight > 1)
        return (
            f"{characters} characters hold {nodes} lines of chains and {needed} or at least "
            f"{lines * self.line_length} characters"
        )

    def _too_few_hashes(self, characters: int, needed: int) -> str:
        alphabet, most = self.names.alphabet, self.names.most
        enough = [
            length
            for length in range(alphabet.width, MAX_LENGTH + 1, alphabet.width)
            if characters // (2 * length + 4) + self.unanswerable
            <= alphabet.base ** min(length // alphabet.width, alphabet.core)
        ]
        remedy = f"take hash_length {enough[0]} or" if enough else "take a larger alphabet or"
        return (
            f"only {most} hashes have {self.names.length} letters of {alphabet.base} and "
            f"{characters} characters need {needed}: {remedy} at most {most * self.line_length} "
            "characters"
        )
