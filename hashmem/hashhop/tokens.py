"""A training example → token ids, and which of them count.

Prompt and completion are encoded apart, so that no token spans their border and the model is
trained on the very tokens that a prompt is given as.

`encode` is any function from text to ids, a list or an array. If it returns a tuple (ids, offsets)
instead, offsets being each token's [start, stop) in characters, the completion is encoded as one
text and a token counts if any character of it does (a token may hold a space before a hash: it has
to be written to write the hash). From ids alone no one can tell which characters a token holds, so
the completion is then encoded in pieces, cut where the mask changes: exact, but a tokenizer that
would join a space to the hash after it gives other tokens than for the whole. Pass offsets where
there are any. With `transformers` and a fast tokenizer:

    def encode(text):
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return found["input_ids"], found["offset_mapping"]

Special tokens have to be off, or every piece gets its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashmem.hashhop.curriculum import Example

Ids = Sequence[int] | NDArray[Any]
Encode = Callable[[str], Ids | tuple[Ids, Sequence[tuple[int, int]]]]


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of a prompt and its completion, and those to learn."""

    ids: NDArray[np.int64]  # (tokens,)
    mask: NDArray[np.bool_]  # (tokens,): False throughout the prompt
    prompt: int  # how many of the tokens are the prompt's


def tokenise(example: Example, encode: Encode) -> Tokens:
    """Encode `example` with a tokenizer's `encode`; the module's head says how.

    Raises `ValueError` where `encode` adds tokens to an empty text, returns something else than
    ids or ids with offsets, or gives offsets that miss a character that counts.

    >>> from hashmem.hashhop.curriculum import Curriculum, Stage
    >>> example = Curriculum([Stage(hops=1, lines=2, hash_length=2)], question=False)[0]
    >>> tokens = tokenise(example, lambda text: list(text.encode()))
    >>> bytes(tokens.ids[tokens.prompt :].tolist()), bytes(tokens.ids[tokens.mask].tolist())
    (b'Yp = gV\\n', b'gV')
    """
    added, _ = _read(encode(""), 0)
    if len(added):
        raise ValueError(
            f"encode adds {len(added)} tokens to an empty text, and would to every piece: turn "
            "special tokens off (add_special_tokens=False) and add your own to the result"
        )
    prompt, offsets = _read(encode(example.prompt), len(example.prompt))
    completion = example.completion
    if offsets is not None:
        ids, offsets = _read(encode(completion), len(completion))
        if offsets is None:
            raise ValueError("encode gave offsets for the prompt and none for the completion")
        parts, masks = [ids], [_overlaps(offsets, example)]
    else:
        cuts = sorted({0, len(completion), *(at for span in example.spans for at in span)})
        counts = example.mask
        parts, masks = [], []
        for start, stop in pairwise(cuts):
            ids, _ = _read(encode(completion[start:stop]), stop - start)
            if counts[start] and not len(ids):
                raise ValueError(
                    f"encode gives no token for {completion[start:stop]!r}, which is to be learnt"
                )
            parts.append(ids)
            masks.append(np.full(len(ids), counts[start]))
    return Tokens(
        np.concatenate([prompt, *parts]),
        np.concatenate([np.zeros(len(prompt), bool), *masks]),
        len(prompt),
    )


def _read(encoded: Any, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """The ids, int64 (n,), and the offsets, int64 (n, 2), of a text of `length` characters."""
    pair = isinstance(encoded, tuple)
    if pair and len(encoded) != 2:
        raise ValueError(
            f"encode returned a tuple of {len(encoded)}: return ids as a list, or (ids, offsets)"
        )
    given, placed = encoded if pair else (encoded, None)
    ids = np.asarray(given)
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise ValueError(
            f"encode returned ids of shape {ids.shape} and type {ids.dtype}: return a flat list "
            "of whole numbers"
        )
    ids = ids.astype(np.int64)
    if not pair:
        return ids, None
    offsets = np.asarray(placed, np.int64).reshape(-1, 2)
    if len(offsets) != len(ids):
        raise ValueError(f"encode returned {len(ids)} ids and {len(offsets)} offsets: one for each")
    if offsets.size and not 0 <= offsets.min() <= offsets.max() <= length:
        raise ValueError(
            f"encode returned an offset outside the text's {length} characters: return [start, "
            "stop) in characters of the text it was given"
        )
    return ids, offsets


def _overlaps(offsets: NDArray[np.int64], example: Example) -> NDArray[np.bool_]:
    """Which tokens hold a character of the completion that counts, bool (tokens,)."""
    counts = example.mask
    before = np.concatenate([[0], np.cumsum(counts)])
    starts, stops = offsets.T
    held = np.zeros(len(counts) + 1, np.int64)
    np.add.at(held, starts, 1)
    np.add.at(held, np.maximum(starts, stops), -1)
    missed = counts & (np.cumsum(held)[:-1] == 0)
    if missed.any():
        at = int(np.argmax(missed))
        raise ValueError(
            f"encode's offsets leave out character {at} of {example.completion!r}, which is to be "
            "learnt: return [start, stop) in characters of the text it was given"
        )
    overlap: NDArray[np.bool_] = before[np.maximum(starts, stops)] > before[starts]
    return overlap
