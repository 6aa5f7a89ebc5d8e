"""Import statements as links from file to file."""

import os
import sysconfig
from pathlib import Path

import pytest

from hashmem.text.imports import imported_files

NAMES = {
    "a.py",
    "b.py",
    "pack/__init__.py",
    "pack/sub.py",
    "pack/deep/__init__.py",
    "pack/deep/x.py",
}


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("import a", "b.py", ["a.py"]),
        ("import a as z, b", "c.py", ["a.py", "b.py"]),
        ("import a", "a.py", []),
        ("import pack.sub", "a.py", ["pack/sub.py"]),
        ("from pack import sub, nothing", "a.py", ["pack/__init__.py", "pack/sub.py"]),
        ("from pack import *", "a.py", ["pack/__init__.py"]),
        ("from . import sub", "pack/__init__.py", ["pack/sub.py"]),
        ("from . import sub", "pack/deep/x.py", ["pack/deep/__init__.py"]),
        ("from .. import sub", "pack/deep/x.py", ["pack/__init__.py", "pack/sub.py"]),
        ("from ..sub import y", "pack/deep/x.py", ["pack/sub.py"]),
        ("from .... import y", "pack/deep/x.py", []),
        ("    import a\nx = 'import b'\n#import b", "c.py", []),
        ("from pack import (\n    sub,\n)", "a.py", ["pack/__init__.py"]),
        ("import a\nimport a\nimport b", "c.py", ["a.py", "b.py"]),
        ("import\nfrom import x\nimport ,", "c.py", []),
        ("", "c.py", []),
    ],
)
def test_statements(text, name, expected):
    assert imported_files(text, name, NAMES) == expected


def test_real_packages_import_what_they_say():
    library = Path(sysconfig.get_path("stdlib"))
    names = {
        os.path.relpath(path, library).replace(os.sep, "/")
        for path in [*library.glob("*.py"), *library.glob("json/*.py")]
    }
    text = (library / "json/__init__.py").read_text()
    assert "json/decoder.py" in imported_files(text, "json/__init__.py", names)
    for name in sorted(names)[:40]:
        text = (library / name).read_text()
        for file in imported_files(text, name, names):
            assert file in names
            assert file != name
