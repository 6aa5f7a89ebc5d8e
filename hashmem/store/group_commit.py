"""Group commit: threads that commit at the same time share one transaction, and so one sync.

A commit takes what every thread has written so far. So the first that comes leads; those that come
while it is under way wait, and when it is done, one of them leads the next for all of them. The
next leader waits for as many as shared the last commit or came too late for it, as each comes again
where each writes a record and commits it: at most as long as the last commit took, and only for as
many as came last time. A single thread never waits.
(DeWitt and others, "Implementation techniques for main memory database systems", SIGMOD 1984.)
"""

import threading
import time
from collections.abc import Callable

__all__ = ["Group"]


class Group:
    """The threads that commit through one handle."""

    def __init__(self) -> None:
        lock = threading.Lock()
        self._turn = threading.Condition(lock)  # what the others wait for
        self._company = threading.Condition(lock)  # what a leader waits for
        self._leading = False
        self._begun = 0  # commits
        self._done = 0  # the last one begun that has ended well
        self._waiting = 0  # threads, for the next to begin
        self._shared = 1  # threads that waited for the last
        self._expected = 1  # threads that may wait for the next
        self._seconds = 0.0  # it took

    def commit(self, commit: Callable[[], None]) -> None:
        """Return once a `commit` that began after this call has ended well: ours or another's.

        Raises what ours raises. Must not be called by a thread that holds what a commit needs.
        """
        with self._turn:
            needed = self._begun + 1
            self._waiting += 1
            self._company.notify()
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
                self._expected = self._shared + self._waiting  # who came meanwhile was too late
                self._turn.notify_all()

    def _gather(self) -> None:
        """Begin a commit, once as many have come as are expected, or do not come soon."""
        with self._turn:
            if self._expected > 1:
                self._company.wait_for(lambda: self._waiting >= self._expected, self._seconds)
            self._begun += 1
            self._shared, self._waiting = self._waiting, 0
