"""HashHop: shuffled pairs of random hashes, and chains of them to follow.

`HashHop` makes samples without shortcuts, any line from its number alone; `MultiHopEval` makes
them in the public generator's format. `solve` answers them by lookup, `score` marks replies.
"""

from hashmem.hashhop.compat import MultiHopEval, MultiHopSample
from hashmem.hashhop.generate import HashHop
from hashmem.hashhop.score import Score, score
from hashmem.hashhop.solve import Solution, solve

__all__ = ["HashHop", "MultiHopEval", "MultiHopSample", "Score", "Solution", "score", "solve"]
