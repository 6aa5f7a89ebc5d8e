"""Writes docs/api.md from the docstrings: python docs/build_api.py (a test holds it up to date)."""

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODULES = [
    "hashmem",
    "hashmem.digests",
    "hashmem.errors",
    "hashmem.kernels",
    "hashmem.hops",
    "hashmem.store",
    "hashmem.text",
    "hashmem.summaries",
    "hashmem.retrieval",
    "hashmem.attention",
    "hashmem.hashhop",
    "hashmem.testing",
]


def public(module: Any) -> list[str]:
    """The public names of a module: its `__all__`."""
    return [name for name in sorted(module.__all__) if not name.startswith("__")]


def render() -> str:
    """The text of docs/api.md."""
    parts = [
        "# Public names\n",
        "Made from the docstrings by `docs/build_api.py`. Digests are uint8 arrays (n, width) in",
        "batches and `bytes` one at a time. A miss is -1 in tables, None in records and False in a",
        "mask, never an exception in a batch call.\n",
    ]
    seen: dict[int, str] = {}
    for path in MODULES:
        module = importlib.import_module(path)
        parts.append(f"## {path}\n")
        if path != "hashmem":
            parts.append(inspect.cleandoc(module.__doc__ or "").split("\n\n")[0] + "\n")
        for name in public(module):
            value = getattr(module, name)
            full = f"{path}.{name}"
            if callable(value) and id(value) in seen:
                parts.append(f"### {full}\n\nSee `{seen[id(value)]}`.\n")
                continue
            seen[id(value)] = full
            parts.append(f"### {full}\n")
            parts.extend(describe(name, value))
    return "\n".join(parts).rstrip() + "\n"


def describe(name: str, value: Any) -> Iterator[str]:
    """The entry of one name, without its heading."""
    if inspect.isclass(value):
        yield fence(signature(name, value)) + text(value)
        for member, function in methods(value):
            yield f"#### {name}.{member}\n\n" + fence(signature(member, function)) + text(function)
    elif inspect.isroutine(value):
        yield fence(signature(name, value)) + text(value)
    elif type(value).__module__ == "builtins":
        yield f"A {type(value).__name__}.\n"
    else:
        yield f"`{value}`\n"


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    """The documented public methods and properties that hashmem's own classes define."""
    for name, value in inspect.getmembers(kind):
        owner = next((base for base in kind.__mro__ if name in vars(base)), object)
        if name.startswith("_") or not owner.__module__.startswith("hashmem"):
            continue
        found = value.fget if isinstance(value, property) else value
        if inspect.isroutine(found) and found.__doc__:
            yield name, found


def signature(name: str, value: Any) -> str:
    try:
        return f"{name}{inspect.signature(value)}"
    except (TypeError, ValueError):
        return name


def fence(code: str) -> str:
    return f"```text\n{code}\n```\n\n"


def text(value: Any) -> str:
    return (inspect.getdoc(value) or "").replace("\n>>> ", "\n    >>> ") + "\n"


if __name__ == "__main__":
    target = Path(__file__).with_name("api.md")
    if "--check" in sys.argv:
        sys.exit(target.read_text() != render() and "docs/api.md is out of date")
    target.write_text(render())
