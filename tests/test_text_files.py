"""Reading folders: only text comes out, everything else is counted, nothing is followed."""

import os
import stat

import pytest

from hashmem.text import TextFiles


def test_only_text_comes_out_in_order_and_the_rest_is_counted(tmp_path):
    def write(name, data):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    write("b.txt", b"two\r\nlines\n")
    write("a/deep/c.py", "é\n".encode())
    write("a.py", b"first")
    write("nul.bin", b"text" * 5000 + b"\0")
    write("latin.txt", b"caf\xe9")
    write("empty.txt", b"")
    write("exactly.txt", b"x" * 30_000)
    write("large.txt", b"x" * 30_001)
    write(".hidden/x.txt", b"x")
    write("skipme/x.txt", b"x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.py")
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff.txt", os.O_CREAT))

    files = TextFiles(tmp_path, largest=30_000, exclude={"skipme"})
    for _ in range(2):  # counts are those of the latest pass
        assert list(files) == [
            ("a/deep/c.py", "é\n"),
            ("a.py", "first"),
            ("b.txt", "two\r\nlines\n"),
            ("exactly.txt", "x" * 30_000),
        ]
        assert files.skipped == {
            "not text": 1, "not UTF-8": 1, "empty": 1, "too large": 1, "hidden": 1, "excluded": 1,
            "special file": 1, "symbolic link": 2, "name not UTF-8": 1,
        }  # fmt: skip


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "huge.txt"
    with open(path, "wb") as file:
        file.truncate(2 << 30)  # 2 GiB, sparse
    files = TextFiles(tmp_path)
    assert list(files) == []
    assert files.skipped == {"too large": 1}


def test_what_cannot_be_read_is_counted(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "open.txt").write_text("x")
    scandir, system_open = os.scandir, os.open

    # Rights do not bind the superuser, as whom tests may run: the system's refusal is simulated.
    def refuse(inner, name):
        def call(path, *arguments):
            if os.fspath(path).endswith(name):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return inner(path, *arguments)

        return call

    monkeypatch.setattr(os, "scandir", refuse(scandir, "closed"))
    monkeypatch.setattr(os, "open", refuse(system_open, "secret.txt"))
    files = TextFiles(tmp_path)
    assert list(files) == [("open.txt", "x")]
    assert files.skipped == {"unreadable file": 1, "unreadable folder": 1}
    with pytest.raises(PermissionError):
        list(TextFiles(tmp_path / "closed"))


@pytest.mark.skipif(os.geteuid() == 0, reason="rights do not bind the superuser")
def test_a_folder_without_rights_is_counted(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        files = TextFiles(tmp_path)
        assert list(files) == []
        assert files.skipped == {"unreadable folder": 1}
    finally:
        closed.chmod(stat.S_IRWXU)


def test_no_such_folder_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(TextFiles(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError):
        list(TextFiles(tmp_path / "file"))
