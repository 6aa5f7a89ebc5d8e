"""The text files of a folder, read so that no file in it can do harm.

Nothing is followed out of the folder or in circles: symbolic links are left out. Only ordinary
files are read, and never more than `largest` bytes of one, whatever its size is said to be. What
is left out is counted by reason in `TextFiles.skipped`; only a folder that cannot be listed at all
raises.
"""

import os
import stat
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path

__all__ = ["TextFiles"]

_PROBE = 8192  # bytes looked at for NUL before the rest of a file is read


class TextFiles:
    """The text files under `folder`: iterates over (path relative to it, with "/"; its text).

    Files come in order of name, folder by folder. `largest`: files of more bytes are left out.
    `exclude`: names of folders not entered. Names that begin with a dot are left out, as are
    symbolic links. A file is text when it holds no NUL byte and is UTF-8; its text is exactly
    what its bytes say, newlines and all. One file at a time is in memory.

    `skipped` holds how many the latest iteration left out, by reason: "hidden", "excluded",
    "symbolic link", "special file", "empty", "too large", "not text", "not UTF-8", "name not
    UTF-8", "unreadable file", "unreadable folder".

    Raises an `OSError` (`FileNotFoundError`, `NotADirectoryError`, `PermissionError`) on iteration
    where `folder` itself cannot be listed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        largest: int = 16 << 20,  # 16 MiB
        exclude: Container[str] = (),
    ) -> None:
        self.folder = Path(folder)
        self.largest = largest
        self.exclude = exclude
        self.skipped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self.skipped.clear()
        waiting = _listed(self.folder)
        while waiting:
            entry = waiting.pop()
            try:
                if entry.name.startswith("."):
                    raise _LeftOut("hidden")
                if entry.is_symlink():
                    raise _LeftOut("symbolic link")
                if entry.is_dir():
                    waiting += self._inside(entry)
                    continue
                found = self._name(entry), _read(entry.path, self.largest)
            except _LeftOut as why:
                self.skipped[why.reason] += 1
            except OSError:  # not even its kind can be told
                self.skipped["unreadable file"] += 1
            else:
                yield found

    def _inside(self, entry: os.DirEntry[str]) -> list[os.DirEntry[str]]:
        if entry.name in self.exclude:
            raise _LeftOut("excluded")
        try:
            return _listed(entry)
        except OSError:
            raise _LeftOut("unreadable folder") from None

    def _name(self, entry: os.DirEntry[str]) -> str:
        name = Path(entry.path).relative_to(self.folder).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:  # the system's escape for bytes that are no UTF-8
            raise _LeftOut("name not UTF-8") from None
        return name


class _LeftOut(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _listed(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """The entries of a folder, the first in order of name at the end, where it is taken first."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name, reverse=True)


def _read(path: str, largest: int) -> str:
    """The text of one file, or `_LeftOut`."""
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise _LeftOut("special file")
            if about.st_size > largest:
                raise _LeftOut("too large")
            data = file.read(min(_PROBE, largest + 1))
            if b"\0" not in data:
                data += file.read(largest + 1 - len(data))
    except OSError:
        raise _LeftOut("unreadable file") from None
    if not data:
        raise _LeftOut("empty")
    if b"\0" in data:
        raise _LeftOut("not text")
    if len(data) > largest:  # it grew meanwhile
        raise _LeftOut("too large")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _LeftOut("not UTF-8") from None
