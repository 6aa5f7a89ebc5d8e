"""Writes docs/api.md from the docstrings: python docs/build_api.py (a test holds it up to date)."""

import ast
import contextlib
import functools
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROPERTIES = (property, functools.cached_property)
MODULES = [
    "hashmem",
    "hashmem.digests",
    "hashmem.errors",
    "hashmem.kernels",
    "hashmem.tables",
    "hashmem.tables.statistics",
    "hashmem.laboratory.collisions",
    "hashmem.laboratory.experiment",
    "hashmem.laboratory.theory",
    "hashmem.laboratory.specimens",
    "hashmem.laboratory.attack",
    "hashmem.hops",
    "hashmem.skips",
    "hashmem.store",
    "hashmem.store.backend",
    "hashmem.memory",
    "hashmem.ingest",
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
    modules = [importlib.import_module(path) for path in MODULES]
    documented = {id(getattr(module, name)) for module in modules for name in public(module)}
    seen: dict[int, str] = {}
    for module in modules:
        path = module.__name__
        parts.append(f"## {path}\n")
        if path != "hashmem":
            parts.append(inspect.cleandoc(module.__doc__ or "").split("\n\n")[0] + "\n")
        for name in public(module):
            value = getattr(module, name)
            parts.append(f"### {path}.{name}\n")
            if callable(value) and id(value) in seen:
                parts.append(f"See `{seen[id(value)]}`.\n")
                continue
            seen[id(value)] = f"{path}.{name}"
            parts.extend(describe(name, value, documented))
    return "\n".join(parts).rstrip() + "\n"


def describe(name: str, value: Any, documented: set[int]) -> Iterator[str]:
    """The entry of one name, without its heading."""
    if inspect.isclass(value):
        yield fence(signature(value)) + text(value)
        for member, found in members(value, documented):
            getter = getattr(found, "fget", None) or getattr(found, "func", None)
            call = signature(getter or found)
            kind = "property\n" if getter else ""
            yield f"#### {name}.{member}\n\n" + fence(kind + call) + text(found)
    elif inspect.isfunction(value):
        yield fence(signature(value)) + text(value)
    else:
        yield f"A {type(value).__name__}.\n"


def members(kind: type, documented: set[int]) -> Iterator[tuple[str, Any]]:
    """The documented public methods and properties of a class, those of bases that have an entry
    of their own left out."""
    for name in sorted(dir(kind)):
        owner = next(base for base in kind.__mro__ if name in vars(base))
        inherited = owner is not kind and id(owner) in documented
        if name.startswith("_") or inherited or not owner.__module__.startswith("hashmem"):
            continue
        found = getattr(kind, name) if callable(getattr(kind, name)) else vars(owner)[name]
        if found.__doc__ and (inspect.isroutine(found) or isinstance(found, PROPERTIES)):
            yield name, found


def signature(value: Any) -> str:
    """The call as it is written in the source: the same on every version of Python."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]
    except OSError:  # made by a decorator
        return f"{value.__name__}({', '.join(inspect.signature(value).parameters)})"
    if isinstance(tree, ast.ClassDef):
        made = value.__dict__.get("__init__", value.__init__)
        if inspect.isfunction(made) and made.__module__.startswith("hashmem"):
            with contextlib.suppress(OSError, IndentationError):  # a dataclass has no source of it
                call = ast.parse(textwrap.dedent(inspect.getsource(made))).body[0]
                if isinstance(call, ast.FunctionDef):
                    return f"{tree.name}({arguments(call)})"
        fields = [ast.unparse(part) for part in tree.body if isinstance(part, ast.AnnAssign)]
        return f"{tree.name}({', '.join(fields)})"
    if not isinstance(tree, ast.FunctionDef):
        return str(value.__name__)
    returns = f" -> {ast.unparse(tree.returns)}" if tree.returns else ""
    return f"{tree.name}({arguments(tree)}){returns}"


def arguments(call: ast.FunctionDef) -> str:
    listed = ast.unparse(call.args)
    return listed.removeprefix("self, ").removeprefix("self").removeprefix("cls, ")


def fence(code: str) -> str:
    return f"```text\n{code}\n```\n\n"


def text(value: Any) -> str:
    """The docstring, with its doctests fenced."""
    lines, inside = [], False
    for line in (inspect.getdoc(value) or "").split("\n"):
        if line.startswith(">>> ") and not inside:
            lines.append("```pycon")
            inside = True
        elif not line and inside:
            lines.append("```")
            inside = False
        lines.append(line)
    return "\n".join([*lines, *(["```"] if inside else [])]) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("api.md").write_text(render())
