"""Baselines that a lookup is held against: search without an index, and guessing.

`ScanSolver` and `GrepSolver` are right on every sample, at the price of reading the text for every
hop. `RandomSolver` and `QuoteSolver` guess: their share of right answers is what a score has to be
above before it says anything.
"""

import os
import re
import shutil
import subprocess
import tempfile
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from hashmem.hashhop.names import Letters
from hashmem.hashhop.parse import Text, as_buffer, hash_length, parse_pieces, read_line
from hashmem.hashhop.solvers import Solver, make_answers

_SPECIAL = re.compile(rb"[.*\[\\^$]")  # in a basic regular expression


class StepSolver(Solver):
    """Takes one hop of one query at a time: what both searches have in common."""

    _width: int  # letters of a hash

    @abstractmethod
    def _next(self, source: bytes) -> bytes | None:
        """The target of the last line with this source, None where there is none."""

    def follow(self, queries: Letters, positions: Sequence[int]) -> Letters:
        out = make_answers(queries, positions, self._width)
        for i, query in enumerate(queries):
            at: bytes | None = query.tobytes()
            hops = 0
            for j, position in enumerate(positions):
                while at is not None and hops < position:
                    at = self._next(at)
                    hops += 1
                if at is not None:
                    out[i, j] = np.frombuffer(at, np.uint8)
        return out


class ScanSolver(StepSolver):
    """A linear scan in Python: a pass over the text's bytes for every hop of every query.

    Each pass begins at the end and stops at the last line with the source, on average half way.
    O(1) to build besides a copy of the text, O(len(text)) a hop. Lines are checked when met.
    """

    def __init__(self, text: Text) -> None:
        buffer = as_buffer(text)
        self._width = hash_length(buffer)
        self._text = b"\n" + buffer.tobytes()  # so that every line comes after a newline

    def _next(self, source: bytes) -> bytes | None:
        at = self._text.rfind(b"\n" + source + b" = ")
        if at < 0:
            return None
        end = self._text.find(b"\n", at + 1)
        line = self._text[at + 1 : end if end >= 0 else None]
        return read_line(line, self._text.count(b"\n", 0, at), self._width)[1]


class GrepSolver(StepSolver):
    """The system's `grep`: one call for every hop of every query, the source at a line's start.

    A text that is not in a file, `path`, is written to a temporary one first. O(len(text)) a hop,
    and a process to start. Lines are checked when met. Raises `FileNotFoundError` where there is no
    grep, `OSError` where it fails.
    """

    def __init__(self, text: Text, path: str | os.PathLike[str] | None = None) -> None:
        program = shutil.which("grep")
        if program is None:
            raise FileNotFoundError(
                "there is no grep on the PATH: install it, or take another method"
            )
        buffer = as_buffer(text)
        self._width = hash_length(buffer)
        self._file = None
        if path is None:
            self._file = tempfile.NamedTemporaryFile(prefix="hashhop-")  # noqa: SIM115 - see close
            self._file.write(buffer.data)
            self._file.flush()
            path = self._file.name
        # Bytes, not characters: several times faster, and a text need be no UTF-8.
        self._environment = {**os.environ, "LC_ALL": "C"}
        self._command = [program, "-a", "-n", "-e"]
        self._path = path

    def _next(self, source: bytes) -> bytes | None:
        pattern = b"^" + _SPECIAL.sub(rb"\\\g<0>", source) + b" = "
        command = [*self._command, pattern, "--", self._path]
        done = subprocess.run(command, capture_output=True, env=self._environment)
        if done.returncode == 1:
            return None
        if done.returncode != 0:
            raise OSError(
                f"grep ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()}"
            )
        number, _, line = done.stdout.removesuffix(b"\n").rpartition(b"\n")[2].partition(b":")
        return read_line(line, int(number) - 1, self._width)[1]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class RandomSolver(Solver):
    """Guesses: any target of the text, each as likely, for every hash that is asked for."""

    def __init__(self, text: Text, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        pieces = list(parse_pieces(as_buffer(text)))
        self._targets = np.concatenate([pairs.targets for pairs in pieces])
        self._quoted = np.concatenate([pairs.targets[pairs.quoted] for pairs in pieces])

    def follow(self, queries: Letters, positions: Sequence[int]) -> Letters:
        out = make_answers(queries, positions, self._targets.shape[1])
        for j in range(len(positions)):
            out[:, j] = self._guess(self._targets, len(queries))
        return out

    def _guess(self, targets: Letters, count: int) -> Letters:
        return targets[self._random.integers(0, len(targets), count)]


class QuoteSolver(RandomSolver):
    """The shortcut through quotes: guesses every end among the targets that stand in quotes.

    In the public format these are exactly the ends. Where nothing is quoted it guesses as
    `RandomSolver` does, and `note` says so.
    """

    def __init__(self, text: Text, seed: int = 0) -> None:
        super().__init__(text, seed)
        if not len(self._quoted):
            self.note = "nothing is quoted in this text: guessed among all targets"
            self._quoted = self._targets

    def follow(self, queries: Letters, positions: Sequence[int]) -> Letters:
        out = super().follow(queries, positions)
        out[:, -1] = self._guess(self._quoted, len(queries))
        return out
