"""Checking what is stored: all of it, or a part at a time; and not serving what is damaged."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashmem.digests import Digests, digest_many
from hashmem.errors import CorruptStoreError
from hashmem.store.handle import Handle
from hashmem.store.state import State
from hashmem.store.verification import Round, Verification, scrub, verify

__all__ = ["Checking"]

Progress = Callable[[int], object]


class Checking(Handle):
    """The part of `MemoryStore` that looks for damage."""

    _round: Round | None = None  # what scrubs have left

    def verify(self, progress: Progress | None = None) -> Verification:
        """Read everything committed and check it: records against digests, packs and the
        checkpoint against checksums and against each other, LMDB's pages.

        `progress` is called with the number of records just checked. The result's `corrupt` lists
        the digests of what is damaged, `packs` the damaged packs. Nothing is changed; but this
        handle remembers, and a read of a record found damaged raises `CorruptStoreError` from then
        on. O(bytes stored), most of it digesting; memory for two places a record, 16 bytes.
        """
        self.refresh()
        with self._reading(), self._current() as reader:
            found = verify(self._state, reader, self._digest_pieces, progress or _nobody)
        try:
            self._backend.check()
        except CorruptStoreError as error:
            found.damage.append(str(error))
        return found

    def scrub(
        self,
        seconds: float | None = None,
        sample: float | None = None,
        progress: Progress | None = None,
    ) -> Verification:
        """Check a part of what `verify` checks, in random order: what it finds, it remembers too.

        As much as `seconds` allow, or a `sample`: of so many records (int), or a share of all packs
        (float, 0 to 1); or with neither, the rest. Each scrub of this handle goes on where the last
        one ended, so that in the end everything has had its turn, and then it begins anew. Left to
        `verify`: LMDB's pages, the header, and whether packs are missing. O(bytes checked + packs).
        Raises `ValueError` on a negative number or a share above 1.
        """
        if isinstance(sample, float) and not 0 <= sample <= 1:
            raise ValueError(f"sample is a share from 0.0 to 1.0 or a number, not {sample!r}")
        if (sample is not None and sample < 0) or (seconds is not None and seconds < 0):
            raise ValueError("there is no scrub of less than nothing: give 0 or more")
        self.refresh()
        with self._reading(), self._current() as reader:
            self._round = self._round or Round()
            return scrub(
                self._state, reader, self._digest_pieces, progress or _nobody, self._round,
                seconds, sample,
            )  # fmt: skip

    def _digest_pieces(self, content: Any, offsets: NDArray[np.int64]) -> Digests:
        return digest_many(content, self.algorithm, offsets=offsets, key=self._key)

    def _spoilt(
        self, state: State, rows: NDArray[np.int64], spoilt: NDArray[np.int64]
    ) -> CorruptStoreError:
        """What a read of `rows` raises where some were found damaged: none is served knowingly."""
        at = int(np.argmax(np.isin(rows, spoilt)))
        digest = state.table.digests(rows[at : at + 1]).tobytes()
        return CorruptStoreError(
            f"position {at}: the content stored for {digest.hex()} was found damaged; delete and "
            "put it again, or close the store and run hashmem.store.repair"
        )


def _nobody(count: int) -> None:
    """Where nobody asked for progress."""
