"""Samples as files: the text as it is, and beside it ``NAME.json``, what it takes to ask and score.

The JSON file has what `metadata` tells, the text's SHA-256 among it, under "sample", and of the
public format what cannot be made again: its answers.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hashmem.hashhop.compat import MultiHopSample
from hashmem.hashhop.generate import FORMAT_VERSION, HashHop
from hashmem.hashhop.hidden import HiddenHop

__all__ = ["AnySample", "load", "save"]

AnySample = HashHop | HiddenHop | MultiHopSample
StrPath = str | os.PathLike[str]

_VERSION = 1  # of the JSON file


def save(sample: AnySample, path: StrPath, progress: Callable[[int], object] | None = None) -> None:
    """Write the text of a sample to `path`, and ``path.json`` beside it. O(characters).

    Each file takes the place of an older one once it is whole, the JSON file last. `progress` is
    called with the characters just written.
    """
    path = Path(path)
    told: dict[str, Any] = {"hashhop": _VERSION, "sample": sample.metadata()}
    if isinstance(sample, MultiHopSample):
        told |= {"completion": sample.completion, "targets": sample.targets}
        told["sample"]["sha256"] = hashlib.sha256(sample.prompt.encode()).hexdigest()
    elif isinstance(sample, HiddenHop):
        told |= {"hidden": sample.sample.metadata(), "kind": sample.kind}
    new = path.with_name(f"{path.name}.new")
    with open(new, "wb") as file:
        if isinstance(sample, HashHop):
            sample.write(file, progress)
        else:
            file.write(sample.text().encode("utf-8", "surrogatepass"))
    os.replace(new, path)
    new.write_text(json.dumps(told, indent=1) + "\n")
    os.replace(new, _beside(path))


def load(path: StrPath) -> AnySample:
    """Return the sample whose text lies at `path`. O(characters).

    Raises `OSError` where one of its two files cannot be read, and `ValueError` where they are
    broken, do not belong together, or are none of these.
    """
    path = Path(path)
    told = _read_json(_beside(path))
    sample = told["sample"]
    digest = _sha256(path)
    if digest != sample.get("sha256"):
        raise ValueError(
            f"{path} is not the text that {_beside(path)} tells of: its SHA-256 is {digest}, not "
            f"{sample.get('sha256')}; generate it again"
        )
    try:
        found = _made_again(path, told)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{_beside(path)} does not describe a sample of HashHop: {error!r}"
        ) from error
    if isinstance(found, HashHop | HiddenHop) and found.metadata()["sha256"] != digest:
        raise ValueError(
            f"{path} is not the sample that {_beside(path)} describes, which has another text"
        )
    return found


def _made_again(path: Path, told: Mapping[str, Any]) -> AnySample:
    if "completion" in told:
        text = path.read_text("ascii")
        public = MultiHopSample(text, told["completion"], told["targets"])
        _ = public.chains  # raises where they do not fit
        return public
    if "hidden" in told:
        sample = _hashhop(told["hidden"])
        between = int(told["sample"]["between"])
        lines = path.read_bytes().decode("utf-8", "surrogatepass").split("\n")[:-1]
        filler = [line for i, line in enumerate(lines) if i % (between + 1) != between]
        return HiddenHop(sample, filler, kind=told["kind"], between=between)
    return _hashhop(told["sample"])


def _hashhop(told: Mapping[str, Any]) -> HashHop:
    if told.get("version") != FORMAT_VERSION:
        raise ValueError(
            f"it is of version {told.get('version')}, and this release makes {FORMAT_VERSION}"
        )
    names = HashHop.__init__.__kwdefaults__ or {}
    options = {name: value for name, value in told.items() if name in names and name != "tokens"}
    sample = HashHop(**options)
    sample.tokens = told.get("tokens")
    return sample


def _read_json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(told, dict) or "hashhop" not in told or not isinstance(
        told.get("sample"), dict
    ):  # fmt: skip
        raise ValueError(f"{path} does not describe a sample of HashHop: write it with save()")
    if told["hashhop"] != _VERSION:
        raise ValueError(
            f"{path} is of version {told['hashhop']!r}; this release of hashmem reads {_VERSION}"
        )
    return told


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
