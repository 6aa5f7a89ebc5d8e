"""Make the archive that later releases must go on reading: `python tests/golden/make_archive.py`.

Run once for each version of the archive; the file is never replaced.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from hashmem import MemoryStore
from hashmem.store.archive import VERSION

PAYLOADS = [b"", b"one", b"two", b"three" * 100, bytes(range(256))]
MAPS = [{"place": i, "ü": [None, 1.5, True], "bytes": b"\xff"} for i in range(4)] + [None]
NEVER = b"never stored"


def write(file: BinaryIO) -> None:
    with MemoryStore(algorithm="xxh3_128") as store:
        digests = store.put_many(PAYLOADS, MAPS)
        store.link_many(digests[:-1], digests[1:])
        store.link(bytes(digests[4]), store.digest(NEVER))
        store.add_links(digests[:2], digests[2:4], "imports")
        store.add_link(store.digest(NEVER), bytes(digests[0]), "ü")
        store.write_column("vector", digests, np.arange(10, dtype=np.float32).reshape(5, 2))
        store.write_column("flag", digests[:2], np.array([[True], [False]]))
        store.commit()
        store.export_to(file)


if __name__ == "__main__":
    with open(Path(__file__).parent / f"archive-v{VERSION}.bin", "xb") as archive:
        write(archive)
