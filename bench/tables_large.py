"""Large tables: a hundred million digests, inserted and found, beside memory and pandas.

As in the bench of tables, whose page says how all is measured: finds in batches of 2^20 beside
*memory alone*, which reads what they touch. Each of our tables runs in a process of its own, the
first together with pandas, which keeps 8 bytes of each digest. Other rivals do not fit beside a
table of that size, or take minutes to fill.
"""

from bench import harness
from bench.harness import Result
from bench.table_finds import limits_of, race_finds
from bench.table_headlines import add_headlines
from bench.table_inserts import AT_ONCE, INSERT
from bench.table_race import OURS, Case, contestants, race
from bench.table_rivals import Pandas
from hashmem import kernels

NAMES = ((OURS[0], Pandas.name), (OURS[1],))  # one process each
N, QUICK_N, WIDTHS = 100_000_000, 2000, (8, 16)


def _alone(case: Case) -> Result:
    result = Result("tables_large", "")
    running = contestants(result, case.names)
    digests, limits = case.digests(), {}
    for contestant in running:  # our own first: its statistics take memory that is free by then
        if contestant.name in OURS:
            race(result, case, INSERT, case.n, [contestant], lambda c, _: c.insert(digests), 1)
            limits |= limits_of(result, case, [contestant])
        else:
            race(result, case, AT_ONCE, case.n, [contestant], lambda c, _: c.insert(digests, 1), 1)
    race_finds(result, case, running, digests, limits)
    return result


def run(quick: bool = False) -> Result:
    """Race both tables at both widths."""
    result = Result("tables_large", __doc__)
    if "native" not in kernels.available:
        result.left_out |= dict.fromkeys(OURS, "the compiled kernels are not there")
        return result
    cases = [Case(QUICK_N if quick else N, width, quick=quick) for width in WIDTHS]
    for case in cases:
        for names in NAMES:
            found = harness.in_child(_alone, Case(case.n, case.width, names, quick))
            result.rows += found.rows
            result.left_out |= found.left_out
    add_headlines(result, cases)
    return result


def main() -> None:
    options = harness.arguments(__doc__).parse_args()
    harness.finish(run(options.quick), options)


if __name__ == "__main__":
    main()
