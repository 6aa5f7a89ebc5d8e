"""HashHop: shuffled pairs of random hashes, and chains of them to follow.

`HashHop` makes samples without shortcuts, any line from its number alone, and `HiddenHop` hides
them in real text; `MultiHopEval` makes them in the public generator's format. `solve` answers them
by lookup, `run` has a model answer them, `score` marks replies, `compare_orders` and `heatmaps` say
whether order and place matter, `report` draws it all. `Curriculum` makes training data of them.
"""

from hashmem.hashhop.ask import Endpoint, EndpointError
from hashmem.hashhop.compare import Comparison, compare
from hashmem.hashhop.compat import MultiHopEval, MultiHopSample
from hashmem.hashhop.curriculum import Curriculum, Example, Stage, three_stages
from hashmem.hashhop.files import load, save
from hashmem.hashhop.generate import HashHop
from hashmem.hashhop.heatmaps import Heatmap, Heatmaps, heatmaps, place_answers
from hashmem.hashhop.hidden import HiddenHop
from hashmem.hashhop.measuring import single_tokens
from hashmem.hashhop.orders import OrderComparison, compare_orders
from hashmem.hashhop.places import Places, find_places
from hashmem.hashhop.preview import Preview, preview
from hashmem.hashhop.report import report
from hashmem.hashhop.run import Result, run
from hashmem.hashhop.schedules import Constant, Linear, Staircase
from hashmem.hashhop.score import Score, score
from hashmem.hashhop.solve import Solution, solve, solve_file
from hashmem.hashhop.tokens import Tokens, tokenise

__all__ = [
    "Comparison", "Constant", "Curriculum", "Endpoint", "EndpointError", "Example", "HashHop",
    "Heatmap", "Heatmaps", "HiddenHop", "Linear", "MultiHopEval", "MultiHopSample",
    "OrderComparison", "Places", "Preview", "Result", "Score", "Solution", "Stage", "Staircase",
    "Tokens", "compare", "compare_orders", "find_places", "heatmaps", "load", "place_answers",
    "preview", "report", "run", "save", "score", "single_tokens", "solve", "solve_file",
    "three_stages", "tokenise",
]  # fmt: skip
