"""Training on HashHop: what a small transformer learns, with a curriculum and without.

A transformer of 2 layers, width 64 and 4 heads is trained from nothing on a CPU with AdamW on
`hashmem.hashhop.Curriculum` examples whose hashes are one letter, so that each is one token, and
then answers samples with seeds it was not trained on, greedily, every hash written by itself.

- *curriculum*: a third of the steps each on pairs (1 hop), on 1 to 2 hops with every hash named,
  and on the last stage, 2 hops of which only the end is named.
- *last stage only*: the same model, start and number of steps, all of them on the last stage.

Every cell is a share of wrong answers, so lower is better; a sample is one seed of the training,
which chooses weights and examples alike. *Chance* is the error of guessing any hash of the text.
Counts and their 95 % Wilson intervals stand in the JSON file under `marks`.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import harness
from hashmem.hashhop import HashHop, score
from hashmem.hashhop.curriculum import Curriculum, Stage
from hashmem.hashhop.names import ALPHABET
from hashmem.hashhop.score import wilson_interval
from hashmem.hashhop.tokens import tokenise

NAME = "hashhop_training"
EVALUATED = 100_000  # the first seed of the samples asked: training seeds are 64-bit keys


@dataclass(frozen=True)
class Sizes:
    """How much is trained and asked."""

    lines: int = 12
    queries: int = 4
    steps: int = 2400
    batch: int = 64
    seeds: int = 3
    asked: int = 250  # samples, each with all its queries
