"""The shape of the package: who may import whom, what is public, what importing it costs."""

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hashmem
from hashmem import kernels

PACKAGE = Path(hashmem.__file__).parent

# A stage knows only those before it (and itself); those of one line know nothing of each other.
STAGES = [
    ["_version"],
    ["errors"],
    ["kernels"],
    ["digests"],
    ["tables"],
    ["laboratory"],
    ["graphs"],
    ["skips"],
    ["hops"],
    ["store"],
    ["text"],
    ["summaries"],
    ["retrieval"],
    ["memory"],
    ["attention"],
    ["hashhop"],
    ["testing"],
    ["ingest"],
    ["cli", "demo", "integrations"],
]
# module → stage to its right it may import, and why
ALLOWED: dict[tuple[str, str], str] = {
    ("cli", "demo"): "a command of the command line is the demo",
}


def home(name: str) -> str:
    """The module that ``from hashmem import name`` really imports."""
    if name == "__version__":
        return "hashmem._version"
    public = hashmem._HOME.get(name, "hashmem.errors")
    return public if name in hashmem.__all__ else f"hashmem.{name}"


def stage_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports() -> Iterator[tuple[str, str, str]]:
    """Each import of one stage by another, wherever in the file: (file, its stage, the other)."""
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        if relative == Path("__init__.py"):
            continue  # holds the public names, of any stage
        own = relative.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{relative}: imports are absolute"
                modules = [node.module or ""]
                if node.module == "hashmem":
                    modules = [home(alias.name) for alias in node.names]
            else:
                continue
            for module in modules:
                if module.split(".")[0] == "hashmem":
                    yield str(relative), own, stage_of(module)


def test_a_stage_knows_only_those_before_it():
    place = {name: number for number, names in enumerate(STAGES) for name in names}
    wrong = []
    for file, own, other in imports():
        assert own in place, f"{file}: {own} is no stage; give it its place in STAGES"
        allowed = own == other or place[other] < place[own] or (own, other) in ALLOWED
        if not allowed:
            wrong.append(f"{file} imports {other}")
    assert not wrong


def test_the_stages_are_those_there_are():
    there = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    there |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert there <= {name for names in STAGES for name in names}


@pytest.mark.parametrize("name", hashmem.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(hashmem, name)
    if name != "__version__":
        assert value.__doc__
        assert value.__name__ == name
        assert name in dir(hashmem)
        for member, method in vars(value).items() if isinstance(value, type) else ():
            if callable(method) and not member.startswith("_"):
                assert method.__doc__ or inherited_doc(value, member), f"{name}.{member}"


def inherited_doc(of: type, member: str) -> bool:
    return any(getattr(vars(base).get(member), "__doc__", None) for base in of.__mro__)


def test_no_other_name_is_there():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        hashmem.nothing  # noqa: B018  # the access is what is tested
    assert sorted(hashmem.__all__) == list(hashmem.__all__)


@pytest.mark.parametrize(
    "module",
    ["store", "tables", "text", "summaries", "retrieval", "attention", "hashhop", "testing"],
)
def test_every_name_a_stage_exports_is_there(module):
    stage = importlib.import_module(f"hashmem.{module}")
    for name in stage.__all__:
        assert getattr(stage, name).__doc__


EXTRAS = [
    "torch", "transformers", "pandas", "scipy", "matplotlib", "hypothesis", "pytest", "hirola",
    "cykhash", "psutil", "diskcache", "markdown", "tqdm", "openai", "lm_eval", "inspect_ai",
]  # fmt: skip


def in_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_importing_the_package_imports_no_extra():
    code = (
        f"import sys, hashmem; light = set(sys.modules) & {{'lmdb', 'msgpack', *{EXTRAS}}}\n"
        "for name in hashmem.__all__: getattr(hashmem, name)\n"
        f"print(light, set(sys.modules) & {set(EXTRAS)})"
    )
    assert in_python(code).stdout.split("\n")[0] == "set() set()"


def test_kernels_are_chosen_by_the_environment():
    code = "from hashmem import kernels; print(kernels.active)"
    for name in kernels.available:
        assert in_python(code, HASHMEM_KERNELS=name).stdout.strip() == name
    assert in_python(code, HASHMEM_KERNELS="").stdout.strip() == kernels.available[0]
    answer = in_python(code, HASHMEM_KERNELS="fastest")
    assert answer.returncode != 0
    assert (
        "ValueError: no kernels are called 'fastest': take 'native' or 'reference'" in answer.stderr
    )


def test_missing_native_kernels_are_an_import_error():
    code = (
        "import sys; sys.modules['hashmem.kernels._native'] = None\n"
        "from hashmem import kernels; print(kernels.active, kernels.available)"
    )
    assert in_python(code, HASHMEM_KERNELS="").stdout.strip() == "reference ('reference',)"
    answer = in_python(code, HASHMEM_KERNELS="native")
    assert "ImportError: the compiled kernels are not there" in answer.stderr
    assert "HASHMEM_KERNELS=reference" in answer.stderr
