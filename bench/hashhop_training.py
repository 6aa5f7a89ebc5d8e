"""Training on HashHop: what a small transformer learns, with a curriculum and without.

A transformer of 2 layers, width 64 and 4 heads is trained from nothing on a CPU, on the examples of
`hashmem.hashhop.Curriculum`. Hashes have one letter, so each is one token, and of the question the
model sees which hashes are asked for. Two ways, from the same weights, with as many steps:

- *curriculum*: a third of the steps each on pairs (1 hop), on several steps (2 hops, both hashes
  named) and on skips (2 hops, only the end named), the last stage.
- *last stage only*: all steps on the last stage.

After each third it answers samples that it was not trained on, every hash of the answer written by
itself, the most likely one. Accuracy is `hashmem.hashhop.score`'s, over all training seeds, with
its 95 % Wilson interval, which knows of the questions asked and not of the few training seeds: the
accuracy of each stands beside it. Chance is one hash of the text at random.
"""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import harness
from bench.machine import machine
from hashmem.hashhop import HashHop, score
from hashmem.hashhop.curriculum import Curriculum, Stage
from hashmem.hashhop.names import ALPHABET
from hashmem.hashhop.score import wilson_interval
from hashmem.hashhop.torch_data import CurriculumDataset

NAME = "hashhop_training"
RATE = 3e-3  # AdamW's
FIRST_ASKED = 100_000  # seeds of the samples asked: those of training are 64-bit keys
VOCABULARY = {sign: i for i, sign in enumerate(ALPHABET + "=\n0123456789")}
ASKED = {  # a stage's name → what it asks for
    "pairs": {"hops": 1, "mode": "step"},
    "steps": {"hops": 2, "mode": "step"},
    "skips": {"hops": 2, "mode": "direct"},
}
WAYS = {"curriculum": ("pairs", "steps", "skips"), "last stage only": ("skips", "skips", "skips")}


@dataclass(frozen=True)
class Sizes:
    """How much is trained and asked."""

    lines: int = 8
    queries: int = 2
    steps: int = 300  # of each third
    batch: int = 32
    seeds: int = 2
    asked: int = 200  # samples, each with all its queries
    width: int = 64


QUICK = Sizes(lines=4, queries=1, steps=2, batch=2, seeds=1, asked=3, width=8)


class Block(nn.Module):
    """Attention and a multilayer perceptron, each on normalised input and added to it.

    The attention's input goes through a causal convolution over three places (D. R. So et al.,
    "Primer", 2021), which shows a target its source; it takes the place of position embeddings.
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.near = nn.Conv1d(width, width, 3, groups=width, padding=2)
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        near = self.near(self.norms[0](x).mT)[..., :length].mT
        parts = self.project(near).view(rows, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # (rows, heads, length, width / heads)
        read = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(read.transpose(1, 2).reshape(rows, length, width))
        return x + self.mlp(self.norms[1](x))


class Transformer(nn.Module):
    """Token ids (rows, length) → logits (rows, length, vocabulary); embeddings used both ways."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(VOCABULARY), width)
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        self.layers = nn.Sequential(Block(width), Block(width), nn.LayerNorm(width))

    def forward(self, ids: Tensor) -> Tensor:
        return self.layers(self.embed(ids)) @ self.embed.weight.T


def encode(text: str) -> list[int]:
    """A token for each letter of the pairs, sign and newline, then for each hash asked for."""
    pairs, _, question = text.partition("\n\n")
    shown = [*pairs, *re.findall(r"hash(\d)", question)]
    return [VOCABULARY[sign] for sign in shown if sign in VOCABULARY]


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, stage: Stage, seed: int, batch_size: int
) -> None:
    """Take a step on each batch of the stage's examples."""
    data = CurriculumDataset(Curriculum([stage], seed=seed), encode, batch_size=batch_size)
    for batch in data:
        logits = model(batch["input_ids"])[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def reply(model: nn.Module, samples: Sequence[HashHop]) -> list[str]:
    """The model's answers: after each query and "=", the likeliest token for every hash."""
    ids = torch.tensor([encode(sample.prompt) for sample in samples])
    signs = list(VOCABULARY)
    replies = [""] * len(samples)
    for number in range(samples[0].queries):
        said = [sample.chains[number][0] for sample in samples]  # last, and yet to be appended
        for _ in samples[0].positions:
            ids = torch.cat([ids, _tokens(said, "=")], dim=1)
            replies = [f"{text}{one} = " for text, one in zip(replies, said, strict=True)]
            said = [signs[i] for i in model(ids)[:, -1].argmax(-1).tolist()]
        ids = torch.cat([ids, _tokens(said, "\n")], dim=1)
        replies = [f"{text}{one}\n" for text, one in zip(replies, said, strict=True)]
    return replies


def _tokens(said: Sequence[str], sign: str) -> Tensor:
    return torch.tensor([[VOCABULARY[one], VOCABULARY[sign]] for one in said])


def run(sizes: Sizes) -> dict[str, Any]:
    """Train every way with every seed and return plain values for JSON."""
    torch.set_num_threads(1)  # products this small wait for a second thread longer than it saves
    begun = time.perf_counter()
    marks: dict[tuple[str, int, str], list[int]] = {}  # (way, steps, asked) → right, by seed
    same: dict[str, Any] = {"queries": sizes.queries, "hash_length": 1}
    for seed in range(sizes.seeds):
        for way, stages in WAYS.items():
            torch.manual_seed(seed)
            model = Transformer(sizes.width)
            optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
            for third, name in enumerate(stages):
                examples = sizes.steps * sizes.batch
                stage = Stage(lines=sizes.lines, examples=examples, **ASKED[name], **same)
                train(model, optimizer, stage, seed * len(stages) + third, sizes.batch)
                steps = (third + 1) * sizes.steps
                for asked, kind in ASKED.items():
                    samples = [
                        HashHop(characters=sizes.lines * 6, seed=FIRST_ASKED + i, **kind, **same)
                        for i in range(sizes.asked)
                    ]
                    replies = zip(samples, reply(model, samples), strict=True)
                    right = sum(score(sample, text).correct for sample, text in replies)
                    marks.setdefault((way, steps, asked), []).append(right)
                    print(f"seed {seed}, {way}, {steps} steps, {asked}: {right}", flush=True)
    each = sizes.asked * sizes.queries
    return {
        "name": NAME,
        "description": __doc__,
        "sizes": asdict(sizes),
        "parameters": sum(p.numel() for p in Transformer(sizes.width).parameters()),
        "chance": 1 / sizes.lines,
        "seconds": time.perf_counter() - begun,
        "trained": [
            {
                "way": way,
                "steps": steps,
                "asked": asked,
                "accuracy": sum(right) / (each * len(right)),
                "interval": wilson_interval(sum(right), each * len(right)),
                "by seed": [n / each for n in right],
            }
            for (way, steps, asked), right in marks.items()
        ],
        "machine": {**machine(), "torch": f"{torch.__version__}, {torch.get_num_threads()} thread"},
    }


def main() -> None:
    options = harness.arguments(__doc__).parse_args()
    result = run(QUICK if options.quick else Sizes())
    folder = options.results or (None if options.quick else harness.RESULTS)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
        (folder / f"{NAME}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
