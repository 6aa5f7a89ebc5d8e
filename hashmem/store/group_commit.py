"""Group commit: threads that commit at the same time share one transaction, and so one sync.

A commit takes what every thread has written so far. So the first that comes leads; those that come
while it is under way wait, and when it is done, one of them leads the next for all of them. After a
commit that several shared, the next leader waits a moment for as many to come again, as they do
where each writes a record and commits it; a single thread never waits.
(DeWitt and others, "Implementation techniques for main memory database systems", SIGMOD 1984.)
"""

import threading
import time
from collections.abc import Callable

__all__ = ["Group"]

PATIENCE = 0.25  # of the time the last commit took, for others to come


class Group:
    """The threads that commit through one handle."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._leading = False
        self._begun = 0  # commits
        self._done = 0  # the last one begun that has ended well
        self._waiting = 0  # threads, for the next to begin
        self._shared = 1  # threads that waited for the last
        self._seconds = 0.0  # it took

    def commit(self, commit: Callable[[], None]) -> None:
        """Return once a `commit` that began after this call has ended well: ours or another's.

        Raises what ours raises. Must not be called by a thread that holds what a commit needs.
        """
        with self._turn:
            needed = self._begun + 1
            self._waiting += 1
            self._turn.notify_all()  # a leader may wait for company
            while self._leading and self._done < needed:
                self._turn.wait()
            if self._done >= needed:
                return
            self._leading = True
        try:
            self._gather()
            start = time.perf_counter()
            commit()
            self._seconds = time.perf_counter() - start
            self._done = self._begun
        finally:
            with self._turn:
                self._leading = False
                self._turn.notify_all()

    def _gather(self) -> None:
        """Begin a commit, once as many have come as shared the last, or do not come soon."""
        with self._turn:
            if self._shared > 1:
                self._turn.wait_for(lambda: self._waiting >= self._shared, PATIENCE * self._seconds)
            self._begun += 1
            self._shared, self._waiting = self._waiting, 0
