"""What HashHop's tasks for evaluation harnesses share: their samples, and a score's figures.

One document of a harness is one sample with all its queries, and its figures are shares of these.
So a harness's standard error is over samples, whose queries share a text and may err together.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from hashmem.hashhop.generate import HashHop
from hashmem.hashhop.score import Score


def make_samples(seeds: Sequence[int], arguments: dict[str, Any]) -> list[HashHop]:
    """Return a sample for each seed with the `arguments` of `HashHop`.

    Raises `ValueError` without seeds and where a sample cannot be made.
    """
    if "seed" in arguments:
        raise ValueError("pass seeds=[…] and not seed=: there is one sample for each")
    if not len(seeds):
        raise ValueError("there is a sample for each seed: pass at least one, as in seeds=[0]")
    return [HashHop(seed=seed, **arguments) for seed in seeds]


def shared_hops(samples: Iterable[HashHop]) -> list[int]:
    """Return the hops that every query with an answer asks for, of which there are shares always.

    None where a sample has only queries without an answer.
    """
    hops: set[int] | None = None
    for sample in samples:
        asked = [set(positions) for positions in sample.asked.values() if positions]
        own = set[int].intersection(*asked) if asked else set[int]()
        hops = own if hops is None else hops & own
    return sorted(hops or ())


def figures(positions: Sequence[int], score: Score) -> dict[str, float]:
    """Return the share of queries right, "accuracy", and of hashes right at each hop, "hop_1" …"""
    by_hop = score.by_hop
    return {"accuracy": score.accuracy, **{_name(hop): by_hop[hop] for hop in positions}}


def figure_names(positions: Sequence[int]) -> list[str]:
    """Return the names of `figures` for answers that name these `positions`."""
    return ["accuracy", *map(_name, positions)]


def _name(hop: int) -> str:
    return f"hop_{hop}"
