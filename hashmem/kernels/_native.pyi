"""Types of the compiled kernels; `hashmem.kernels.reference` says what each does."""

from typing import Any

def hop(successors: Any, starts: Any, n: int, out: Any) -> None: ...
