"""The records of the store benches: pieces of source text, each made distinct by a counter."""

import hashlib
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xxhash

from bench import harness

Payloads = Sequence[bytes]

STAMP = 8  # bytes of the counter that ends every payload
HASHERS: dict[str, Callable[[bytes], bytes]] = {
    "sha256": lambda payload: hashlib.sha256(payload).digest(),
    "xxh3_128": xxhash.xxh3_128_digest,
}


def source_text() -> bytes:
    """Return the Python standard library's own source, in one piece."""
    library = Path(sysconfig.get_path("stdlib"))
    files = sorted(p for p in library.rglob("*.py") if "site-packages" not in p.parts)
    return b"".join(path.read_bytes() for path in files)


def payloads_of(n: int, size: int, text: bytes, first: int = 0) -> list[bytes]:
    """Cut `n` distinct payloads of `size` bytes, numbered from `first`; the text repeats."""
    piece = size - STAMP
    pieces = max(1, (len(text) - piece) // piece)  # whole ones
    return [
        text[at : at + piece] + number.to_bytes(STAMP, "little")
        for number in range(first, first + n)
        for at in [number % pieces * piece]
    ]


def hashed(payloads: Payloads, algorithm: str = "sha256") -> list[tuple[bytes, bytes]]:
    """Return (digest, payload) pairs, by hashlib or the xxhash package, as users would."""
    if algorithm == "sha256":
        sha256 = hashlib.sha256
        return [(sha256(payload).digest(), payload) for payload in payloads]
    one = HASHERS[algorithm]
    return [(one(payload), payload) for payload in payloads]


def digests_of(payloads: Payloads, algorithm: str = "sha256") -> np.ndarray:
    """Return the digest of every payload, not by hashmem → uint8 (n, width)."""
    digests = [digest for digest, _ in hashed(payloads, algorithm)]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), -1)


def joined(keys: Sequence[bytes]) -> np.ndarray:
    """Return digests as rows, uint8 (n, width); there is one at least."""
    return np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1)


def picks(n: int, of: int, *seed: int) -> np.ndarray:
    """Choose `n` of the first `of` numbers, with repeats; the same for the same seed."""
    return np.random.default_rng([harness.SEED, *seed]).integers(0, of, n)


def title(n: int, size: int) -> str:
    return f"{n:,} records of {size} bytes".replace(",", " ")
