"""Make the frozen table that later releases must read: `python tests/golden/make_frozen.py`.

Run once for each version of the format; the file is never replaced. Digest i is 11 bytes, each
17 i + its place, and its value i^3 - 100.
"""

import gzip
from pathlib import Path

import numpy as np

from hashmem import OpenAddressingTable
from hashmem.tables import freeze
from hashmem.tables.frozen_layout import VERSION

ENTRIES, WIDTH = 200, 11


def entries() -> tuple[np.ndarray, np.ndarray]:
    numbers = np.arange(ENTRIES)
    digests = (17 * numbers[:, None] + np.arange(WIDTH)).astype(np.uint8)
    digests[:, 0] = numbers  # all different
    return digests, numbers**3 - 100


if __name__ == "__main__":
    table = OpenAddressingTable(WIDTH)
    table.insert(*entries())
    path = Path(__file__).parent / f"frozen-v{VERSION}.gz"
    with path.open("xb") as file:
        file.write(gzip.compress(freeze(table, seed=2026), mtime=0))
