"""C and C++ yardsticks, built on the spot where a compiler is there and called in this process.

Called through ctypes they take NumPy's arrays as they are, run in the same rounds as everything
else, and let go of the GIL.
"""

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
COMPILERS = {".c": ("cc", "gcc", "clang"), ".cpp": ("c++", "g++", "clang++")}


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()  # kept until the process ends


def _compiler(suffix: str) -> str | None:
    return next(filter(None, map(shutil.which, COMPILERS[suffix])), None)


@cache
def library(source: str, *flags: str) -> ctypes.CDLL:
    """Build bench/`source` and load it. Raises `ImportError`, with the reason, where that fails."""
    path = HERE / source
    compiler = _compiler(path.suffix)
    if compiler is None:
        raise ImportError(f"no {'C++' if path.suffix == '.cpp' else 'C'} compiler")
    built = Path(_folder().name) / f"{path.stem}-{len(list(Path(_folder().name).iterdir()))}.so"
    command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", built, path, *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise ImportError((errors or ["the compiler failed"])[0].rpartition("error: ")[2])
    return ctypes.CDLL(str(built))


def address(array: np.ndarray) -> ctypes.c_void_p:
    """Where a contiguous array lies."""
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def compiler_version() -> str:
    """The C++ compiler in one line, for the description of the machine; "none" without."""
    compiler = _compiler(".cpp")
    if compiler is None:
        return "none"
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True)
    return done.stdout.partition("\n")[0]
