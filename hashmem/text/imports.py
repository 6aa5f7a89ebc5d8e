"""Which files of a collection a Python file imports: links that source code brings along."""

import re
from collections.abc import Container

__all__ = ["imported_files"]

# At the start of a line only: imports inside functions and conditions are left out.
_IMPORT = re.compile(
    r"^(?:from[ \t]+(?P<dots>\.*)(?P<module>[\w.]*)[ \t]+import[ \t]+(?P<names>[\w \t,*]*)"
    r"|import[ \t]+(?P<modules>[\w. \t,]+))",
    re.MULTILINE,
)


def imported_files(text: str, name: str, names: Container[str]) -> list[str]:
    """Return the files among `names` that `text`, the file called `name`, imports at top level.

    Names are relative to the folder where imports start, with "/", as in "json/__init__.py". In
    the order of the import statements, each once, the file itself left out. Linear in the text.

    >>> names = {"json/__init__.py", "json/decoder.py", "re.py"}
    >>> imported_files("import re, os\\nfrom .decoder import loads", "json/__init__.py", names)
    ['re.py', 'json/decoder.py']
    """
    found: dict[str, None] = {}
    for match in _IMPORT.finditer(text):
        for path in _candidates(match, name):
            for file in (f"{path}.py", f"{path}/__init__.py"):
                if path and file != name and file in names:
                    found[file] = None
    return list(found)


def _candidates(match: re.Match[str], name: str) -> list[str]:
    """The paths, without suffix, that an import statement may mean."""
    if match["modules"] is not None:
        modules = [part.split()[0] for part in match["modules"].split(",") if part.split()]
        return [module.replace(".", "/") for module in modules]
    base = match["module"].replace(".", "/").split("/") if match["module"] else []
    if match["dots"]:
        folder = name.split("/")[:-1]
        up = len(match["dots"]) - 1
        if up > len(folder):
            return []
        base = folder[: len(folder) - up] + base
    module = "/".join(base)
    imported = [part.split()[0] for part in match["names"].split(",") if part.split()]
    prefix = module + "/" if module else ""
    return [module, *(prefix + item for item in imported)]
