"""The commands `hashmem hashhop …`: generate, solve, run, score and report."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hashmem.hashhop import report_command, run_command

__all__ = ["COMMANDS", "add_commands"]

DONE, NO = 0, 1


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add all of them below `parser`; the chosen one is `options.run`."""
    commands = parser.add_subparsers(dest="hashhop", required=True, metavar="command")
    for name, (add_arguments, run, text) in COMMANDS.items():
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="print JSON")
        add_arguments(added)


# -- generate -----------------------------------------------------------------------------------


def _add_generate(parser: argparse.ArgumentParser) -> None:
    from hashmem.hashhop.tasks import MODES

    parser.add_argument("--out", required=True, metavar="FILE", help="the text; FILE.json beside")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument(
        "--characters", type=int, metavar="N", help="of all pairs; a filler comes on top"
    )
    size.add_argument(
        "--tokens", type=int, metavar="N", help="the same, of 3 characters, or of --count"
    )
    parser.add_argument(
        "--count", type=run_command.function, metavar="MODULE:FUNCTION",
        help="a tokenizer: text → number of tokens",
    )  # fmt: skip
    parser.add_argument(
        "--hops", type=int, nargs="+", default=[6], metavar="N", help="or the least and the most"
    )
    parser.add_argument("--queries", type=int, default=5, help="default: 5")
    parser.add_argument("--hash-length", type=int, default=16, help="characters (default: 16)")
    parser.add_argument("--mode", choices=MODES, default="step", help="default: step")
    parser.add_argument("--stride", type=int, default=2, help="of --mode skip (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--public", action="store_true",
        help="in the public generator's format, from both of its generators, seeded with --seed",
    )  # fmt: skip
    _add_harder(parser.add_argument_group("harder texts, not with --public"))


def _add_harder(harder: "argparse._ActionsContainer") -> None:
    from hashmem.hashhop.hidden import KINDS
    from hashmem.hashhop.names import ALPHABET, NEAR_MISSES

    harder.add_argument("--order", type=int, default=0, help="another shuffle of the same lines")
    harder.add_argument("--alphabet", default=ALPHABET, help="letters and digits of hashes")
    harder.add_argument("--cycle", type=int, metavar="N", help="chains come round after N hashes")
    for name, text in (
        ("overwritten", "of the hashes have an earlier line that does not count"),
        ("branches", "of the hashes are led to from elsewhere, too"),
        ("near", "of the hashes have a near miss on lines of its own"),
    ):
        harder.add_argument(f"--{name}", type=float, default=0.0, metavar="SHARE", help=text)
    harder.add_argument("--near-kind", choices=NEAR_MISSES, default="letter")
    harder.add_argument("--unanswerable", type=int, default=0, metavar="N", help="of the queries")
    harder.add_argument("--filler", metavar="FILE", help="hide the pairs between this text's lines")
    harder.add_argument("--kind", choices=list(KINDS), default="assignment", help="with --filler")
    harder.add_argument("--between", type=int, default=5, help="lines of the filler (default: 5)")


def _generate(options: argparse.Namespace) -> int:
    from hashmem.hashhop.files import save

    sample = _make(options)
    size = getattr(sample, "characters", None)
    with run_command.bar("generate", size, "c") as bar:
        save(sample, options.out, bar.update)
    told = sample.metadata() | {"file": options.out}
    shown = ("file", "format", "characters", "tokens", "lines", "queries", "sha256")
    text = "\n".join(f"{name:10}  {told[name]}" for name in shown if told.get(name) is not None)
    _print(options, told, text)
    return DONE


def _make(options: argparse.Namespace) -> Any:
    from hashmem.hashhop import HashHop
    from hashmem.hashhop.hidden import HiddenHop

    hops = options.hops[0] if len(options.hops) == 1 else options.hops
    if options.public:
        return _make_public(options, hops)
    names = (
        "characters", "tokens", "count", "queries", "hash_length", "mode", "stride", "seed",
        "order", "alphabet", "cycle", "overwritten", "branches", "near", "near_kind",
        "unanswerable",
    )  # fmt: skip
    sample = HashHop(hops=hops, **{name: getattr(options, name) for name in names})
    if options.filler is None:
        return sample
    filler = Path(options.filler).read_text(encoding="utf-8")
    return HiddenHop(sample, filler, kind=options.kind, between=options.between)


def _make_public(options: argparse.Namespace, hops: Any) -> Any:
    import random

    import numpy as np

    from hashmem.hashhop import MultiHopEval
    from hashmem.hashhop.generate import CHARACTERS_PER_TOKEN

    plain = argparse.ArgumentParser()
    _add_harder(plain)
    defaults = vars(plain.parse_args([]))
    given = [name for name, default in defaults.items() if getattr(options, name) != default]
    if not isinstance(hops, int) or options.mode == "skip" or options.count or given:
        raise ValueError(
            "--public makes chains of one length, by step or direct, of a size in characters, and "
            "nothing harder: leave out a second --hops, --mode skip, --count"
            + "".join(f", --{name.replace('_', '-')}" for name in given)
        )
    random.seed(options.seed)
    np.random.seed(options.seed % 2**32)  # noqa: NPY002 - the format's own generator
    return MultiHopEval.make_one(
        options.characters or options.tokens * CHARACTERS_PER_TOKEN,
        options.queries, hops, options.hash_length, options.mode == "step",
    )  # fmt: skip


# -- solve and score ----------------------------------------------------------------------------


def _add_solve(parser: argparse.ArgumentParser) -> None:
    from hashmem.hashhop.solve import METHODS

    parser.add_argument("file", help="a text that generate wrote")
    parser.add_argument(
        "--method", choices=[name for name in METHODS if name != "store"], default="table",
        help="default: table",
    )  # fmt: skip


def _solve(options: argparse.Namespace) -> int:
    from hashmem.hashhop.files import load
    from hashmem.hashhop.hidden import HiddenHop
    from hashmem.hashhop.solve import GUESSES, solve_file

    sample = load(options.file)
    if isinstance(sample, HiddenHop):
        raise ValueError(
            f"{options.file} has its pairs hidden in text: the solvers read bare lines of pairs"
        )
    found = solve_file(sample, options.file, options.method)
    text = (
        f"{found.correct} of {found.queries} right, built in {found.build_seconds:.3f} s, "
        f"{found.hops_per_second:.0f} hops/s, {found.peak_bytes / 1e6:.0f} MB"
    )
    _print(options, found.to_dict(), text + (f"\n{found.note}" if found.note else ""))
    return DONE if found.correct == found.queries or options.method in GUESSES else NO


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="a text that generate wrote")
    parser.add_argument(
        "replies", help="the reply as text; or JSON, a map from each query to its reply or null"
    )
    parser.add_argument("--model", default="", help="what replied, for the report")
    parser.add_argument("--out", metavar="FILE", help="write JSON here, for the report")


def _score(options: argparse.Namespace) -> int:
    from hashmem.hashhop import score
    from hashmem.hashhop.files import load
    from hashmem.hashhop.heatmaps import place_answers

    sample = load(options.file)
    found = score(sample, _read_replies(options.replies))
    told = place_answers(found, sample) | ({"model": options.model} if options.model else {})
    if options.out:
        Path(options.out).write_text(json.dumps(told) + "\n")
    _print(options, told, found.table())
    return DONE


def _read_replies(path: str) -> str | dict[str, str | None]:
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(found, dict) and all(isinstance(r, str | None) for r in found.values()):
        return found
    return text


def _print(options: argparse.Namespace, answer: Any, text: str) -> None:
    print(json.dumps(answer) if options.json else text)


COMMANDS: dict[str, tuple[Callable[[Any], None], Callable[[argparse.Namespace], int], str]] = {
    "generate": (_add_generate, _generate, "Write a sample: its text, and what is asked of it."),
    "solve": (_add_solve, _solve, "Answer a sample by lookup, and check every answer."),
    "run": (run_command.add_arguments, run_command.main, "Ask a model behind an endpoint."),
    "score": (_add_score, _score, "Mark the replies to a sample."),
    "report": (report_command.add_arguments, report_command.main, "Draw scores as one HTML page."),
}
