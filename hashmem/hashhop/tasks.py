"""What a HashHop query asks for, and the words it is asked in."""

from collections.abc import Sequence

MODES = ("step", "direct", "skip")
NONE = "none"  # the answer to a query that has none


def positions(hops: int, mode: str, stride: int = 2) -> tuple[int, ...]:
    """Return which hashes of a chain an answer names: how many hops each is from the query.

    Raises `ValueError` on a mode there is not, fewer than one hop, or a stride that skips nothing
    or everything.

    >>> positions(6, "step"), positions(6, "direct"), positions(6, "skip", 4)
    ((1, 2, 3, 4, 5, 6), (6,), (4, 6))
    """
    if hops < 1:
        raise ValueError(f"a query takes at least 1 hop, not {hops}")
    if mode == "step":
        return tuple(range(1, hops + 1))
    if mode == "direct":
        return (hops,)
    if mode != "skip":
        raise ValueError(f"no mode is called {mode!r}: take 'step', 'direct' or 'skip'")
    if not 1 < stride < hops:
        raise ValueError(
            f"a stride of {stride} over {hops} hops skips nothing or everything: take 2 to "
            f"{hops - 1} (more than 2 hops), or mode 'step' or 'direct'"
        )
    return (*range(stride, hops, stride), hops)


def question(
    asked: Sequence[tuple[str, int]],
    mode: str,
    stride: int = 2,
    *,
    form: str = "A = B",
    overwritten: bool = False,
    unanswerable: bool = False,
) -> str:
    """Return the question for queries, each with its number of hops, answered as `mode` says.

    `form`: how a pair is written. `overwritten`: it says that of two lines with one source the last
    counts. `unanswerable`: it says what to answer to a query that is on no line.
    """
    counts = {hops for _, hops in asked}
    if len(counts) == 1:
        (hops,) = counts
        take = f"take {_hops(hops)}"
        named = positions(hops, mode, stride)
        wanted = _wanted(hops, named)
        pattern = " = ".join(["query", *(f"hash{i}" for i in named)])
    else:
        take = "take as many hops as stand beside it"
        wanted = {
            "step": "every hash on the way, in order, the last one included",
            "direct": "only the hash at the end, none of those between",
        }.get(mode, f"only every {stride}. hash on the way and the one at the end, in order")
        pattern = "query = hash" if mode == "direct" else "query = hash = hash = ..."
    rules = f'Each line "{form}" above says that one hop leads from hash A to hash B.\n'
    if overwritten:
        rules += "Where several lines have the same A, only the last of them counts.\n"
    missing = f'Of a query that is on no line, answer "query = {NONE}".\n' if unanswerable else ""
    return (
        f"{rules}Start at each query below and {take}. Name {wanted}.\n{missing}"
        f"Answer with one line for each query, in the form\n{pattern}\n\nQueries:\n"
        + "".join(
            f"{query}\n" if len(counts) == 1 else f"{query} ({_hops(hops)})\n"
            for query, hops in asked
        )
    )


def _hops(count: int) -> str:
    return f"{count} hop{'s' * (count != 1)}"


def _wanted(hops: int, named: Sequence[int]) -> str:
    if len(named) == hops:
        return "every hash on the way, in order, the last one included"
    if len(named) == 1:
        return f"only the hash that is {hops} hops away, none of those between"
    ordinals = ", ".join(map(str, named[:-1]))
    return f"only the hashes that are {ordinals} and {named[-1]} hops away, in order"
