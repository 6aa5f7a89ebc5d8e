"""Pairs hidden in real text: the lines of a sample between those of prose or code.

Each pair stands on a line of its own, written as the kind says, after so many lines of the filler,
which begins anew where it ends; in code with the indentation of the line that follows. So any pair
can be told from its number alone, as in the sample.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hashmem.hashhop.generate import HashHop

__all__ = ["KINDS", "HiddenHop"]

KINDS = {
    "assignment": "{source} = {target}",
    "import": "from {source} import {target}",
    "sentence": "The key {source} opens {target}.",
}


class HiddenHop:
    """A sample whose pairs stand between the lines of real text.

    sample:  the pairs, and what is asked about them. Its size is that of the pairs; `metadata`
             tells the size of the whole text.
    filler:  the text between them, a string or its lines.
    kind:    how a pair is written: "assignment", "import" or "sentence".
    between: lines of the filler before each pair.

    Raises `ValueError` on a filler that is empty or holds a hash of the sample.
    """

    def __init__(
        self,
        sample: HashHop,
        filler: str | Sequence[str],
        *,
        kind: str = "assignment",
        between: int = 5,
    ) -> None:
        lines = filler.splitlines() if isinstance(filler, str) else list(filler)
        if kind not in KINDS:
            raise ValueError(f"no kind is called {kind!r}: take {', '.join(KINDS)}")
        if between < 1:
            raise ValueError(f"at least 1 line stands between two pairs, not {between}")
        if not any(line.strip() for line in lines) or any("\n" in line for line in lines):
            raise ValueError("the filler is a text of at least one line, or its lines")
        self.sample, self.kind, self.between = sample, kind, between
        self._lines = lines
        word = re.compile(rf"[{sample.characters_of_hashes}]{{{sample.hash_length}}}")
        for number, line in enumerate(lines):
            known = [text for text in word.findall(line) if text in sample]
            if known:
                raise ValueError(
                    f"line {number + 1} of the filler holds {known[0]!r}, a hash of the sample: "
                    "take longer hashes, or another seed"
                )

    # What is asked is the sample's.

    @property
    def chains(self) -> list[tuple[str, ...]]:
        """The sample's."""
        return self.sample.chains

    @property
    def asked(self) -> dict[str, tuple[int, ...]]:
        """The sample's."""
        return self.sample.asked

    @property
    def positions(self) -> tuple[int, ...]:
        """The sample's."""
        return self.sample.positions

    @property
    def hops(self) -> int:
        """The sample's."""
        return self.sample.hops

    @property
    def mode(self) -> str:
        """The sample's."""
        return self.sample.mode

    @property
    def hash_length(self) -> int:
        """The sample's."""
        return self.sample.hash_length

    @property
    def characters_of_hashes(self) -> str:
        """The sample's."""
        return self.sample.characters_of_hashes

    @property
    def targets(self) -> dict[str, str]:
        """The sample's."""
        return self.sample.targets

    @property
    def completion(self) -> str:
        """The sample's."""
        return self.sample.completion

    def __contains__(self, text: object) -> bool:
        return text in self.sample

    # The text

    def __len__(self) -> int:
        """The number of lines."""
        return len(self.sample) * (self.between + 1)

    def pieces(self) -> Iterator[str]:
        """Yield the text, some lines at a time."""
        form, count, step = KINDS[self.kind], len(self._lines), self.between
        at = 0
        for block in self.sample.blocks():
            for pair in block.decode().splitlines():
                source, target = pair.split(" = ")
                filler = [self._lines[(at + i) % count] for i in range(step)]
                at = (at + step) % count
                following = self._lines[at] if self.kind != "sentence" else ""
                indent = following[: len(following) - len(following.lstrip())]
                shown = form.format(source=source, target=target)
                yield "\n".join([*filler, f"{indent}{shown}", ""])

    def text(self) -> str:
        """Return the whole text."""
        return "".join(self.pieces())

    def chain_lines(self) -> list[NDArray[np.int64]]:
        """Return for each of `chains` the line of the text that each of its hops is taken on."""
        step = self.between + 1
        return [step * lines + self.between for lines in self.sample.chain_lines()]

    def question(self) -> str:
        """Return what is asked about the text."""
        return self.sample.question(KINDS[self.kind].format(source="A", target="B"))

    @property
    def prompt(self) -> str:
        """The whole text with the question after it."""
        return f"{self.text()}\n{self.question()}"

    @cached_property
    def _measured(self) -> tuple[int, str]:
        digest, characters = hashlib.sha256(), 0
        for piece in self.pieces():
            digest.update(piece.encode("utf-8", "surrogatepass"))
            characters += len(piece)
        return characters, digest.hexdigest()

    def metadata(self) -> dict[str, object]:
        """Return the sample's, with the form, and the size and SHA-256 of this text."""
        characters, digest = self._measured
        return self.sample.metadata() | {
            "format": f"hidden, {self.kind}",
            "between": self.between,
            "lines": len(self),
            "characters": characters,
            "tokens": None,
            "sha256": digest,
        }
