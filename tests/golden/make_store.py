"""Make the store that later releases must go on reading: `python tests/golden/make_store.py`.

Run once for each version of the format; the archive is never replaced.
"""

import tarfile
import tempfile
from pathlib import Path

import numpy as np

from hashmem import MemoryStore
from hashmem.store import checkpoint
from hashmem.store.lmdb import FORMAT

PAYLOADS = [b"", b"one", b"two", b"three" * 1000, bytes(range(256))]


checkpoint.FEWEST = 4  # so that there is one


def fill(path: Path) -> None:
    with MemoryStore(path) as store:
        digests = store.put_many(PAYLOADS, [{"place": i, "ü": [None, 1.5, True]} for i in range(5)])
        store.link_many(digests[:-1], digests[1:])
        store.add_links(digests[:2], digests[2:4], "imports")
        store.write_column("vector", digests, np.arange(10, dtype=np.float32).reshape(5, 2))
        store.commit()
        store.delete(bytes(digests[2]))
        store.link(bytes(digests[4]), store.digest(b"never stored"))
        store.commit()
    with MemoryStore(path, namespace="keyed", algorithm="xxh3_64", key=b"the key") as store:
        store.put_many(PAYLOADS)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder) / "store")
        archive = Path(__file__).parent / f"store-v{FORMAT}.tar.gz"
        with tarfile.open(archive, "x:gz") as tar:
            for path in sorted((Path(folder) / "store").iterdir()):
                if path.name != "LOCK" and not path.name.endswith("-lock"):
                    tar.add(path, arcname=f"store/{path.name}")
