"""The public HashHop generator's format, for scores that are to stand beside others'.

`MultiHopEval.make_one` takes its letters from NumPy's global generator and its shuffle from
Python's, as the public generator does, and leaves both in the state that it leaves them in: seed
`random` and `numpy.random` alike and the samples that follow are the same, character by character.
(NumPy keeps that generator's stream fixed: NEP 19.) Its letters are drawn here by the million and
not one hash at a time, which takes the same numbers from the stream.

The format's own properties are kept, and `docs/hashhop.md` lists what they mean for a score: the
last line of a chain is quoted, a head is never a target, the text is longer than asked for, and
two hashes may be equal where they are short.

Neither generator is shared safely between threads.
"""

import random
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hashmem.hashhop.names import ALPHABET
from hashmem.hashhop.tasks import positions

_LETTERS = np.frombuffer(ALPHABET.encode(), np.uint8)


@dataclass
class MultiHopSample:
    """The pairs, the wanted reply to the queries in it, and the answer of every chain's head."""

    prompt: str
    completion: str
    targets: dict[str, str]

    def text(self) -> str:
        """Return the pairs, which here are the whole prompt."""
        return self.prompt

    @cached_property
    def chains(self) -> list[tuple[str, ...]]:
        """The chains that `completion` asks for, from the query to the end.

        Raises `ValueError` where hashes so short that two are equal leave no single answer.
        """
        chains = []
        for query in self.queries:
            chain = [query]
            while len(chain) <= self.hops and chain[-1] in self._links:
                chain.append(self._links[chain[-1]])
            if (
                " = ".join(chain[i] for i in self.positions if i < len(chain))
                != self.targets[query]
            ):
                raise ValueError(
                    f"the lines lead from {query!r} elsewhere than its answer says, since two "
                    "hashes of the sample are equal: make it with longer hashes"
                )
            chains.append(tuple(chain))
        return chains

    @property
    def queries(self) -> list[str]:
        """The queries that `completion` answers."""
        return [line.split(" = ")[0] for line in self.completion.split("\n")[5:-1] if line]

    @property
    def hops(self) -> int:
        """The edges of each chain."""
        return int(self.completion.split("\n")[1].removeprefix("Hops="))

    @property
    def mode(self) -> str:
        """What an answer names: "step", every hash on the way, or "direct", the end only."""
        return "step" if self.completion.split("\n")[3] == "CoT=True" else "direct"

    @property
    def positions(self) -> tuple[int, ...]:
        """How many hops from the query each hash is that an answer names."""
        return positions(self.hops, self.mode)

    @property
    def asked(self) -> dict[str, tuple[int, ...]]:
        """Each query and how many hops away the hashes are that its answer names."""
        return dict.fromkeys(self.queries, self.positions)

    @property
    def characters_of_hashes(self) -> str:
        """Every character that occurs in hashes."""
        return ALPHABET

    @property
    def hash_length(self) -> int:
        """The letters of a hash."""
        return len(next(iter(self._links)))

    def metadata(self) -> dict[str, object]:
        """Return what a score says of the sample it is from, fit for JSON."""
        return {
            "format": "public",
            "hash_length": self.hash_length,
            "hops": self.hops,
            "queries": len(self.queries),
            "mode": self.mode,
            "lines": self.prompt.count("\n") + 1,
            "characters": len(self.prompt),
        }

    def __contains__(self, text: object) -> bool:
        """Whether `text` is one of the sample's hashes."""
        return text in self._hashes

    @cached_property
    def _links(self) -> dict[str, str]:
        pairs = (line.split(" = ") for line in self.prompt.split("\n"))
        return {source: target.strip("'") for source, target in pairs}

    @cached_property
    def _hashes(self) -> set[str]:
        return {*self._links, *self._links.values()}


class MultiHopEval:
    """Makes samples in the public generator's format."""

    @staticmethod
    def make_one(
        n_chars_problem: int,
        num_queries: int,
        hops: int,
        hash_pair_str_length: int,
        chain_of_thought: bool,
    ) -> MultiHopSample:
        """Make one sample from the two global random generators.

        n_chars_problem:      characters to cover; the text is up to a chain and 1 to 16 % longer.
        num_queries:          answers in `completion`; `targets` holds those of every chain.
        hops:                 edges of every chain.
        hash_pair_str_length: letters in a hash.
        chain_of_thought:     answers name every hash on the way, or the end only.

        The shuffle takes most of the time. Raises `ValueError` on fewer than one hop or letter,
        and on more queries than there are chains.
        """
        if hops < 1:
            raise ValueError(f"a query takes at least 1 hop, not {hops}")
        if hash_pair_str_length < 1:
            raise ValueError(f"a hash has at least 1 letter, not {hash_pair_str_length}")
        chains = -(-n_chars_problem // ((2 * hash_pair_str_length + 3) * hops))
        if chains < 1 or not 0 <= num_queries <= chains:
            raise ValueError(
                f"{n_chars_problem} characters make {max(chains, 0)} chains of {hops} hops, not "
                f"enough for {num_queries} queries: take fewer queries or more characters"
            )
        levels = _draw_levels(chains, hops, hash_pair_str_length)
        lines = [
            f"{source} = {target}" for links in levels[:-1] for source, target in links.items()
        ]
        lines += [f"{source} = '{target}'" for source, target in levels[-1].items()]

        targets = {}
        for query, target in levels[0].items():
            named = [target]
            for links in levels[1:]:
                named.append(links[named[-1]])
            targets[query] = " = ".join(named) if chain_of_thought else named[-1]

        random.shuffle(lines)
        random.shuffle([None] * len(targets))  # the public one shuffles a copy of the queries here
        if num_queries > len(targets):
            raise ValueError(
                f"equal hashes of {hash_pair_str_length} letters left {len(targets)} chains, fewer "
                f"than {num_queries} queries: take longer hashes or fewer queries"
            )
        answers = list(targets.items())[:num_queries]
        completion = "\n".join(f"{query} = '{answer}'" for query, answer in answers)
        return MultiHopSample(
            prompt="\n".join(lines),
            completion=f"COMPLETION:\nHops={hops}\n\nCoT={chain_of_thought}\n\n{completion}\n",
            targets=targets,
        )


def _draw_levels(chains: int, hops: int, length: int) -> list[dict[str, str]]:
    """Draw the links from every hash to the next, one dict for each hop of the chains.

    The first level draws source and target in turn, every further one a target for each target of
    the level before, also where two of these are equal and the later one then replaces the earlier.
    """
    drawn = _draw(2 * chains, length)
    levels = [dict(zip(drawn[::2], drawn[1::2], strict=True))]
    for _ in range(hops - 1):
        sources = levels[-1].values()
        levels.append(dict(zip(sources, _draw(len(sources), length), strict=True)))
    return levels


def _draw(count: int, length: int) -> list[str]:
    """Draw `count` hashes of `length` letters from NumPy's global generator."""
    # The legacy generator is the point here: it is the one that users of the format seed.
    numbers = np.random.choice(len(_LETTERS), count * length)  # noqa: NPY002 - see above
    text = str(_LETTERS[numbers].tobytes(), "ascii")
    return [text[i : i + length] for i in range(0, len(text), length)]
