"""SHA-256 of many pieces: hashlib is the definition, and NumPy has nothing to add to it."""

from typing import Any

__all__ = ["sha256"]


def sha256(data: Any, offsets: Any, out: Any) -> bool:
    """Answer False: the caller takes hashlib, as it does where a CPU lacks the instructions."""
    return False
