"""What a HashHop query asks for, and the words it is asked in."""

from collections.abc import Sequence

MODES = ("step", "direct", "skip")


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


def question(hops: int, named: Sequence[int], queries: Sequence[str]) -> str:
    """Return the question for `queries`, whose answers name the hashes `named` hops away."""
    if len(named) == hops:
        wanted = "every hash on the way, in order, the last one included"
    elif len(named) == 1:
        wanted = f"only the hash that is {hops} hops away, none of those between"
    else:
        ordinals = ", ".join(map(str, named[:-1]))
        wanted = f"only the hashes that are {ordinals} and {named[-1]} hops away, in order"
    pattern = " = ".join(["query", *(f"hash{i}" for i in named)])
    return (
        'Each line "A = B" above says that one hop leads from hash A to hash B.\n'
        f"Start at each query below and take {hops} hop{'s' * (hops != 1)}. Name {wanted}.\n"
        f"Answer with one line for each query, in the form\n{pattern}\n\n"
        "Queries:\n" + "".join(f"{query}\n" for query in queries)
    )
