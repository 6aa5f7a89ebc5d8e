"""Probe lengths of a table, measured and as theory has them.

A probe is one bucket looked at (open addressing) or one entry (chaining).

`hashmem.tables.theory` has the expected means, `hashmem.tables.fit` the histograms and the test
that compares them; their functions are here under the same names.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hashmem.tables.fit import (
    SIGNIFICANCE,
    Fit,
    chaining_histogram,
    chi_square_tail,
    expected_occupancy,
    expected_probe_histogram,
    goodness_of_fit,
    occupancy,
    probe_histogram,
    thinned,
    two_choice_histogram,
)
from hashmem.tables.theory import chaining_theory, two_choice_theory

__all__ = [
    "SIGNIFICANCE",
    "Fit",
    "TableStatistics",
    "chaining_histogram",
    "chaining_theory",
    "chi_square_tail",
    "expected_occupancy",
    "expected_probe_histogram",
    "goodness_of_fit",
    "occupancy",
    "probe_histogram",
    "thinned",
    "two_choice_histogram",
    "two_choice_theory",
]


@dataclass(frozen=True)
class TableStatistics:
    """How full a table is and how far searches go."""

    entries: int
    buckets: int
    slots: int  # entries a bucket has room for; 1 for chains, which have no end
    theory: Literal["chaining", "two choices"]  # what `expected_probe_histogram` goes by
    load: float  # entries a slot (open addressing) or a bucket (chaining)
    nbytes: int
    overhead: float  # bytes an entry beyond its digest and its value
    reseeds: int  # how often the hash got another seed
    hashed: int  # bytes of a digest that are hashed: 8, or its width
    hit_probes: NDArray[np.int64]  # [i]: entries found by exactly i probes
    hit_mean: float
    hit_mean_expected: float
    miss_mean: float  # over all buckets a miss can start from
    miss_mean_expected: float
    longest: int

    def __getitem__(self, name: str) -> object:
        return getattr(self, name)
