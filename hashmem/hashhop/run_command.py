"""The command `hashmem hashhop run`: ask a model, show what it would cost, weigh its memory.

Exit codes: 0 every query has its reply; 1 some have none, and the same command asks only those;
2 wrong input, or an endpoint that refuses. The key is read from the environment and goes nowhere
but into the requests.
"""

import argparse
import importlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

DONE, NO = 0, 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to `parser`, all but --json."""
    model = parser.add_argument_group("the model")
    model.add_argument("--base-url", required=True, metavar="URL", help="such as …/v1")
    model.add_argument("--model", required=True, metavar="NAME", help="as the endpoint calls it")
    model.add_argument(
        "--api-key-env", default="OPENAI_API_KEY", metavar="NAME",
        help="the environment variable that holds the key (default: OPENAI_API_KEY)",
    )  # fmt: skip
    model.add_argument("--max-tokens", type=int, default=1024, help="of a reply (default: 1024)")
    model.add_argument("--temperature", type=float, default=0.0, help="default: 0")
    model.add_argument(
        "--parameters", type=_parameters, default={}, metavar="JSON",
        help="further parameters of the request, an object; null leaves one out of it, such as "
        '\'{"temperature": null, "max_tokens": null, "max_completion_tokens": 4096}\'',
    )  # fmt: skip
    model.add_argument("--timeout", type=float, default=600.0, help="seconds (default: 600)")
    model.add_argument("--retries", type=int, default=6, help="of a request (default: 6)")
    model.add_argument("--concurrency", type=int, default=8, help="requests at once (default: 8)")

    made = parser.add_argument_group("the samples", "one of every size and number of hops")
    made.add_argument(
        "--sample", nargs="+", metavar="FILE", help="texts that generate wrote, instead of all this"
    )
    size = made.add_mutually_exclusive_group()
    size.add_argument("--characters", type=int, nargs="+", metavar="N")
    size.add_argument(
        "--tokens", type=int, nargs="+", metavar="N", help="of 3 characters each (default: 1000)"
    )
    made.add_argument("--hops", type=int, nargs="+", default=[2], metavar="N", help="default: 2")
    made.add_argument("--queries", type=int, default=5, help="of each sample (default: 5)")
    made.add_argument("--hash-length", type=int, default=16, help="letters (default: 16)")
    made.add_argument("--mode", choices=["step", "direct", "skip"], default="step")
    made.add_argument("--stride", type=int, default=2, help="of --mode skip (default: 2)")
    made.add_argument("--seed", type=int, default=0, help="of the first sample (default: 0)")
    made.add_argument(
        "--samples", type=int, default=1, help="of each kind, with seeds in a row (default: 1)"
    )

    asked = parser.add_argument_group("the run")
    asked.add_argument(
        "--replies", default="hashhop-replies", metavar="FOLDER",
        help="the store that keeps every answer; a run goes on from it (default: hashhop-replies)",
    )  # fmt: skip
    asked.add_argument("--each", action="store_true", help="a request for each query")
    asked.add_argument(
        "--window", type=int, metavar="TOKENS", help="refuse samples that the model cannot hold"
    )
    asked.add_argument(
        "--count", type=function, metavar="MODULE:FUNCTION",
        help="text → number of tokens; without it --window takes every byte for a token, "
        "the most that a tokenizer makes of such text",
    )  # fmt: skip
    what = asked.add_mutually_exclusive_group()
    what.add_argument("--preview", action="store_true", help="tell what it would ask; ask nothing")
    what.add_argument("--compare", action="store_true", help="without and with --tools, paired")
    asked.add_argument("--tools", action="store_true", help="let the model call lookup instead")
    asked.add_argument("--keep-text", action="store_true", help="with --tools show the text too")
    asked.add_argument("--rounds", type=int, help="requests that a conversation with tools takes")
    asked.add_argument(
        "--prices", type=float, nargs=2, metavar=("IN", "OUT"), help="of a million tokens"
    )


def main(options: argparse.Namespace) -> int:
    """Run the command and return its exit code. Raises what `run` raises."""
    from hashmem.hashhop.compare import compare
    from hashmem.hashhop.preview import preview
    from hashmem.hashhop.run import run

    endpoint, samples = _endpoint(options), _samples(options)
    settings: dict[str, Any] = {
        "replies": options.replies,
        "each": options.each,
        "keep_text": options.keep_text,
        "rounds": options.rounds,
    }
    settings |= {"window": options.window, "count": options.count or _count_bytes}
    if options.preview:
        settings |= {"tools": options.tools, "prices": options.prices}
        seen = preview(samples, endpoint, **settings)
        if options.count is None:  # what was taken for a token is a bound, and no figure to show
            seen = preview(samples, endpoint, **{**settings, "window": None, "count": None})
        _print(options, seen.to_dict(), seen.table())
        return DONE

    settings["concurrency"] = options.concurrency
    total = sum(len(sample.chains) for sample in samples) * (2 if options.compare else 1)
    with bar("run", total, " queries") as shown:
        settings["progress"] = shown.update
        if options.compare:
            compared = compare(samples, endpoint, **settings)
        else:
            results = run(samples, endpoint, tools=options.tools, **settings)
    if options.compare:
        _print(options, compared.to_dict(), compared.table())
        return NO if compared.left_out else DONE
    text = "\n\n".join(result.table() for result in results)
    _print(options, [result.to_dict() for result in results], text)
    return NO if any(result.failures for result in results) else DONE


def _endpoint(options: argparse.Namespace) -> Any:
    from hashmem.hashhop.ask import Endpoint

    given = {"temperature": options.temperature, "max_tokens": options.max_tokens}
    given |= options.parameters
    return Endpoint(
        options.base_url, options.model,
        api_key=os.environ.get(options.api_key_env) or None,
        temperature=given.pop("temperature"), max_tokens=given.pop("max_tokens"),
        parameters={name: value for name, value in given.items() if value is not None},
        timeout=options.timeout, retries=options.retries,
    )  # fmt: skip


def _samples(options: argparse.Namespace) -> Sequence[Any]:
    from hashmem.hashhop.generate import HashHop

    if options.sample:
        from hashmem.hashhop.files import load

        return [load(path) for path in options.sample]
    if options.samples < 1:
        raise ValueError(f"--samples is 1 or more, not {options.samples}")
    unit = "characters" if options.characters else "tokens"
    sizes = options.characters or options.tokens or [1000]
    seeds = range(options.seed, options.seed + options.samples)
    return [
        HashHop(
            **{unit: size}, hops=hops, queries=options.queries, hash_length=options.hash_length,
            mode=options.mode, stride=options.stride, seed=seed,
        )
        for size, hops, seed in itertools.product(sizes, options.hops, seeds)
    ]  # fmt: skip


def _parameters(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"no JSON: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError('not an object, such as {"seed": 1}')
    return found


def function(text: str) -> Callable[[str], int]:
    """Return the function that an option names as MODULE:FUNCTION."""
    module, _, name = text.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"no such function: {error}") from None
    if not callable(found):
        raise argparse.ArgumentTypeError(f"{name} is nothing to call")
    return found  # type: ignore[no-any-return]


def _count_bytes(text: str) -> int:
    return len(text.encode())


def bar(name: str, total: int | None, unit: str) -> Any:
    """A bar of progress, where somebody looks on."""
    from tqdm import tqdm

    watched = sys.stderr is not None and sys.stderr.isatty()
    return tqdm(
        total=total, unit=unit, unit_scale=True, desc=name, leave=False, disable=not watched
    )


def _print(options: argparse.Namespace, answer: Any, text: str) -> None:
    print(json.dumps(answer) if options.json else text)
