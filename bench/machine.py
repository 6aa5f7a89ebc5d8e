"""What a reader must know of the machine to judge a figure, and nothing of whose it is.

No host name, user name or path is among it.
"""

import importlib.metadata
import os
import platform
import time
from pathlib import Path

from bench.compiled import compiler_version

HERE = Path(__file__).resolve().parent
LIBRARIES = (
    "hashmem",
    "numpy",
    "lmdb",
    "xxhash",
    "hirola",
    "cykhash",
    "pandas",
    "borghash",
    "numba",
    "polars",
    "pyarrow",
    "libboost-headers",
    "nanobind",
    "diskcache",
    "rocksdict",
    "apsw",
    "plyvel",
    "libmdbx",
    "lsm-db",
    "unqlite",
    "pure-cdb",
    "marisa-trie",
    "bbhash",
)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _huge_pages() -> str:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return "unknown"
    return text[text.index("[") + 1 : text.index("]")]  # "always [madvise] never"


def _disk(folder: Path) -> str:
    """Say what `folder` lies on: the file system's type and whether the device says it spins."""
    kind, device = "unknown file system", os.stat(folder).st_dev
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        resolved = str(folder.resolve())
        holding = [
            m for m in mounts if resolved == m[1] or resolved.startswith(m[1].rstrip("/") + "/")
        ]
        kind = max(holding, key=lambda mount: len(mount[1]))[2]
        block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
        queue = next(p / "queue" for p in (block, block.parent) if (p / "queue").is_dir())
        spins = (queue / "rotational").read_text().strip() == "1"
        if block.name.startswith("vd"):  # the host does not tell the guest what it is
            return f"{kind} on a virtual disk"
        return f"{kind} on a {'rotating' if spins else 'non-rotating'} disk"
    except (OSError, StopIteration, ValueError):
        return kind


def machine(folder: Path = HERE) -> dict[str, str]:
    """Describe the machine by what moves the figures; `folder` is where files are written."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = []
    for library in LIBRARIES:
        try:
            versions.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{library} not installed")
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores, {platform.machine()}",
        "memory": f"{memory / 2**30:.1f} GiB",
        "huge pages": f"transparent, {_huge_pages()}",
        "disk": _disk(folder),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": compiler_version(),
        "libraries": ", ".join(versions),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
