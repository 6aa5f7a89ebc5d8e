"""Copies of the package whose kernels are compiled another way.

What is tried out runs in child processes that import from the copy, so that the compiled kernels in
use are never touched.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from bench.harness import ROOT

# No optimisation beyond -O1: the stack traces then name the lines that were at fault.
SANITIZED = (
    *("-O1", "-g", "-fno-omit-frame-pointer"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)
COUNTED = ("-O1", "--coverage")  # what gcov reads
COPIED = ("hashmem", "bench", "tests", "docs")
FILES = ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "CHANGELOG.md")


def compiler() -> str:
    return os.environ.get("CC", "gcc")


def compiler_version() -> str:
    """The first line that the compiler says of itself."""
    said = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True)
    return said.stdout.splitlines()[0]


def build(folder: Path, flags: tuple[str, ...]) -> None:
    """Copy package, benches and tests into `folder`, and compile its kernels with `flags`."""
    unwanted = shutil.ignore_patterns("__pycache__", "*.so", "*.o")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    for name in FILES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)
    kernels = folder / "hashmem" / "kernels"
    command = [compiler(), "-shared", "-fPIC", "-std=c11", "-Wall", "-Wextra", *flags]
    command += [f"-I{sysconfig.get_path('include')}", "-DPy_LIMITED_API=0x030B0000"]
    command += [*sorted(path.name for path in kernels.glob("*.c")), "-o", "_native.abi3.so"]
    subprocess.run(command, cwd=kernels, check=True)


def environment(folder: Path, sanitized: bool, reports: Path | None = None) -> dict[str, str]:
    """The environment of a process that imports from the copy in `folder`.

    Where the kernels are sanitized, the interpreter gets the runtime of AddressSanitizer first, and
    an allocation a buffer instead of its own pools, in which nothing lies between two of them. What
    the interpreter itself leaks at its end is not reported. `reports` is where reports are written,
    one file a process, beside standard error otherwise.
    """
    settings = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    if sanitized:
        found = [
            subprocess.run(
                [compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=True
            ).stdout.strip()
            for name in ("libasan.so", "libubsan.so")
        ]
        log = f":log_path={reports}" if reports is not None else ""
        settings |= {
            "LD_PRELOAD": " ".join(found),
            "ASAN_OPTIONS": f"detect_leaks=0:abort_on_error=1:allocator_may_return_null=1{log}",
            "UBSAN_OPTIONS": f"print_stacktrace=1:abort_on_error=1{log}",
            "PYTHONMALLOC": "malloc",
        }
    return settings


def is_sanitized() -> bool:
    """Whether this very process runs under AddressSanitizer."""
    return "libasan" in os.environ.get("LD_PRELOAD", "")


def python() -> str:
    return sys.executable
