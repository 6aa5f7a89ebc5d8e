"""Textbook tables to hold theory and hashmem's own against: where entries come to lie, no more.

Specimens, not products: they take hashes, which they trust, and hold nothing. What they return is
the number of places a search looks at, 1 where it finds an entry at its home.
"""

import numpy as np
from numpy.typing import NDArray

from hashmem.errors import TableFullError

__all__ = ["find_linear", "linear_probing", "miss_probes", "robin_hood"]

Places = NDArray[np.int64]


def linear_probing(homes: Places, size: int) -> tuple[Places, Places]:
    """Insert entries with `homes` (n,) into `size` slots in order, each into the next free slot.

    The slot each lies in (n,) and the probes that find it (n,). First come, first served: no entry
    moves, so the first k results are those of a table of k entries. O(n) nearly: a forest of
    shortcuts finds the next free slot, not a walk, so that a hostile run costs no more.
    """
    following = list(range(size + 1))  # the free slot at or after each, as far as known
    slots = np.empty(len(homes), np.int64)
    if len(homes) > size:
        raise TableFullError(f"{len(homes)} entries do not fit into {size} slots")
    for entry, home in enumerate(homes.tolist()):
        slot = _free(following, home)
        if slot == size:  # past the end: around
            slot = _free(following, 0)
        slots[entry] = slot
        following[slot] = slot + 1
    return slots, (slots - homes) % size + 1


def _free(following: list[int], at: int) -> int:
    while following[at] != at:
        following[at] = at = following[following[at]]
    return at


def find_linear(keys: Places, table: Places, homes: Places) -> Places:
    """Search `table` (size,), -1 where free, for `keys` (n,): the probes each takes (n,).

    All searches step together, one slot a round; this one does walk, and its time shows it.
    """
    probes, at = np.zeros(len(keys), np.int64), homes.copy()
    pending = np.arange(len(keys))
    while len(pending):
        probes[pending] += 1
        there = table[at]
        onward = (there != keys[pending]) & (there != -1)
        pending, at = pending[onward], (at[onward] + 1) % len(table)
    return probes


def miss_probes(slots: Places, size: int) -> Places:
    """Return the probes of a miss that starts at each of `size` slots, `slots` of them taken.

    Under linear probing, whatever the policy: the way to the next free slot, that one included.
    """
    is_free = np.ones(size, bool)
    is_free[slots] = False
    free = np.flatnonzero(is_free)
    if not len(free):
        raise TableFullError("without a free slot, a miss never ends")
    ends = np.append(free, free[0] + size)
    return ends[np.searchsorted(ends, np.arange(size))] - np.arange(size) + 1


def robin_hood(homes: Places, size: int) -> Places:
    """Return the probes (n,) of entries with `homes` (n,) in `size` slots, Robin Hood probing.

    Whoever is further from home keeps the slot (Celis, Robin Hood Hashing, 1985): then entries lie
    in the order of their homes, whatever the order of insertion. Those of one home take turns, so
    only the counts matter, not whose each is. O(n log n).
    """
    n = len(homes)
    if n > size:
        raise TableFullError(f"{n} entries do not fit into {size} slots")
    ordered = np.sort(homes)
    twice = np.concatenate([ordered, ordered + size])  # the second round knows what comes around
    slots = np.maximum.accumulate(twice - np.arange(2 * n)) + np.arange(2 * n)
    return np.asarray((slots - twice)[n:] + 1)
