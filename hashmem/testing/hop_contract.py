"""The contract of a function that follows links: n hops in one call, whatever the shape.

    class TestMine(HopContract):
        def hop(self, successors, starts, n):
            return my_hop(successors, starts, n)

A cycle that never ends is found and not waited for. Code in Python fails after `max_steps` lines
in one call, the same count in every run. Compiled code runs no lines, so cycles of fixed shapes
are first tried in a child process, which is killed after `seconds`; the other tests then fail at
once instead of hanging.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hashmem.testing.chains import HopChain, LinkGraph, hop_chains, link_graphs, walk
from hashmem.testing.steps import Endless, returns_in_time, step_limit
from hashmem.testing.table_machine import LAYOUTS, agree, laid_out

__all__ = ["HopContract"]

Rows = NDArray[np.int64]

CYCLES = [
    HopChain(np.array(successors, np.int64), start, n)
    for successors in ([0], [1, 0], [1, 2, 0], [1, 2, 3, 1], [1, 1, 1])
    for start in range(len(successors))
    for n in (0, 1, 2, 3, 30)
]


class HopContract:
    """What every ``hop(successors, starts, n)`` keeps. Override `hop`.

    `successors` (rows,) and `starts` (m,) are int64 and hold rows or numbers that are none; the
    answer (m,) is the row n successors on from each start, or -1 where there is none: `walk` is
    the definition. 0 hops lead to the start itself.
    """

    examples: ClassVar[int] = 100  # of each test
    max_hops: ClassVar[int] = 40  # raise it where many hops cost little: rounds are counted out
    max_steps: ClassVar[int] = 50_000  # lines of Python a call may take
    seconds: ClassVar[float] = 20.0  # that the fixed cycles, tried in a child, may take together
    _cycles_end: ClassVar[bool | None] = None

    def hop(self, successors: Rows, starts: Rows, n: int) -> Rows:
        """Return the row n successors on from each start, -1 where there is none."""
        raise NotImplementedError("override `hop` with the function under test")

    # -- tests --------------------------------------------------------------------------------

    def test_cycles_come_back(self) -> None:
        self.check_that_cycles_end()
        for chain in CYCLES:
            self.check(chain.successors, [chain.start], chain.n)

    def test_one_chain_is_stepped_along(self) -> None:
        def check(chain: HopChain) -> None:
            self.check(chain.successors, [chain.start], chain.n)

        self.run(check, chain=hop_chains(max_hops=self.max_hops))

    def test_starts_do_not_disturb_each_other(self) -> None:
        def check(graph: LinkGraph, n: int) -> None:
            rows = len(graph.successors)
            self.check(graph.successors, [*range(rows), *range(rows)[::-1]], n)

        self.run(check, graph=link_graphs(8, max_edges=0), n=st.integers(0, self.max_hops))

    def test_a_start_that_is_no_row_leads_nowhere(self) -> None:
        def check(graph: LinkGraph, starts: list[int], n: int) -> None:
            self.check(graph.successors, starts, n)

        starts = st.lists(st.integers(-2, 9) | st.sampled_from([-(2**63), 2**63 - 1]), max_size=4)
        self.run(check, graph=link_graphs(8, max_edges=0), starts=starts, n=st.integers(0, 3))

    def test_arrays_may_lie_in_memory_anyhow(self) -> None:
        def check(chain: HopChain, layout: str) -> None:
            self.check(chain.successors, [chain.start] * 2, chain.n, layout)

        self.run(check, chain=hop_chains(4, max_hops=8), layout=st.sampled_from(LAYOUTS))

    # -- their means --------------------------------------------------------------------------

    def run(self, check: Callable[..., None], **strategies: st.SearchStrategy[Any]) -> None:
        """Run `check` on `examples` examples of the strategies."""
        self.check_that_cycles_end()
        chosen = settings(max_examples=self.examples, deadline=None)
        chosen(given(**strategies)(check))()

    def check(self, successors: Rows, starts: Sequence[int], n: int, layout: str = "C") -> None:
        """Compare one call with steps taken one at a time, and see that it changed nothing."""
        given_rows = laid_out(successors, layout)
        given_starts = laid_out(np.array(starts, np.int64), layout)
        with step_limit(self.max_steps):
            ends = self.hop(given_rows, given_starts, n)
        expected = [walk(successors, start, n) for start in starts]
        agree(
            f"{n} hops from {list(starts)} along {successors.tolist()}", np.asarray(ends), expected
        )
        agree("successors after the call", given_rows, successors.tolist())
        agree("starts after the call", given_starts, list(starts))

    def check_that_cycles_end(self) -> None:
        """Raise `Endless` where the cycles of fixed shapes do not end in a child process."""
        kind = type(self)
        if "_cycles_end" not in vars(kind):
            kind._cycles_end = returns_in_time(self._walk_cycles, self.seconds)
        if not kind._cycles_end:
            raise Endless(f"hops along small cycles were not done in {self.seconds:g} seconds")

    def _walk_cycles(self) -> None:
        for chain in CYCLES:
            with step_limit(self.max_steps):
                self.hop(chain.successors.copy(), np.array([chain.start], np.int64), chain.n)
