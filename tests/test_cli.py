"""The command line: what it prints, how it exits, and that wrong input gets no traceback."""

import io
import json
import os
import subprocess
import sys

import pytest

from hashmem import MemoryStore
from hashmem.cli import main

SOURCES = {
    "pack/__init__.py": "from . import deep\n",
    "pack/deep.py": "import helper\n\ndef reach():\n    return helper.answer()\n",
    "helper.py": 'def answer():\n    "What the digest table finds."\n    return 42\n',
    "notes.txt": "Grüße.\nThe table finds a digest.\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in SOURCES.items():
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def run(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)

    def call(*arguments, code=0):
        capsys.readouterr()
        assert main([*arguments]) == code
        return capsys.readouterr()

    return call


@pytest.fixture
def filled(run):
    run("ingest", "texts", "--store", "s")
    return run


def test_ingest_counts_and_takes_json(run):
    told = json.loads(run("ingest", "texts", "--store", "s", "--json").out)
    assert told["files"] == 4
    assert told["characters"] == sum(map(len, SOURCES.values()))
    assert told["links"] == 2
    assert told["skipped"] == {}
    assert told["replaced"] == 0
    again = json.loads(run("ingest", "texts", "--store", "s", "--json").out)
    assert again["records"] == told["records"]  # nothing is stored twice
    assert again["replaced"] == 4
    assert again["links"] == 2


def test_two_folders_under_their_names(filled, folder):
    (folder / "other").mkdir()
    (folder / "other/notes.txt").write_text("Bananas are yellow.\n")
    told = json.loads(filled("ingest", "other", "--name", "other", "--store", "s", "--json").out)
    assert told["files"] == told["chunks"] == 1
    assert told["replaced"] == 0
    assert "other/notes.txt:1" in filled("search", "yellow bananas", "--store", "s").out
    assert "notes.txt:1" in filled("search", "finds a digest", "--store", "s").out


def test_remove(filled):
    assert filled("remove", "notes.txt", "--store", "s").out == "removed\n"
    filled("get", "notes.txt", "--store", "s", code=1)
    filled("remove", "notes.txt", "--store", "s", code=1)


def test_ingest_skips_what_is_no_text_and_says_so(run, folder):
    (folder / "texts/binary").write_bytes(b"\0\1\2")
    (folder / "texts/latin").write_bytes("Grüße".encode("latin-1"))
    (folder / "texts/empty").touch()
    (folder / "texts/long.txt").write_text("x" * 5000)
    with open(folder / "texts/huge.txt", "wb") as file:
        file.truncate(2 << 30)  # 2 GiB, without a byte on the disk
    told = json.loads(run("ingest", "texts", "--store", "s", "--largest", "4000", "--json").out)
    assert told["files"] == 4
    assert sum(told["skipped"].values()) == 5


def test_links_follow_the_imports_of_today(filled, folder):
    assert "helper.py" in filled("hop", "pack/deep.py", "--store", "s").out
    (folder / "texts/pack/deep.py").write_text("def reach(): pass\n")
    filled("ingest", "texts", "--store", "s")
    assert "chain ends" in filled("hop", "pack/deep.py", "--store", "s", code=1).out


def test_search(filled):
    hits = json.loads(filled("search", "digest table", "--store", "s", "--json").out)
    assert {hit["places"][0][0] for hit in hits} == {"helper.py", "notes.txt"}
    assert "notes.txt:1" in filled("search", "finds a digest", "-k", "1", "--store", "s").out
    assert filled("search", "zebra", "--store", "s", code=1).out == "nothing found\n"
    assert json.loads(filled("search", "the", "--store", "s", "--json", code=1).out) == []
    assert "no word to search for" in filled("search", "", "--store", "s", code=2).err


def test_get_by_digest_and_by_name(filled):
    hit = json.loads(filled("search", "digest table", "-k", "1", "--store", "s", "--json").out)[0]
    told = json.loads(filled("get", hit["digest"], "--store", "s", "--json").out)
    assert told["text"] == hit["text"]
    told = json.loads(filled("get", "notes.txt", "--store", "s", "--json").out)
    assert told["text"] == SOURCES["notes.txt"]
    assert "nothing is stored" in filled("get", "ab" * 32, "--store", "s", code=1).err
    assert "nothing is stored" in filled("get", "nowhere", "--store", "s", code=1).err


def test_hop_and_trace(filled):
    assert filled("hop", "pack/__init__.py", "--hops", "2", "--store", "s").out == "helper.py\n"
    steps = filled("hop", "pack/__init__.py", "--hops", "9", "--trace", "--store", "s").out
    assert steps.split() == ["pack/__init__.py", "pack/deep.py", "helper.py"]
    filled("hop", "pack/__init__.py", "--hops", "3", "--store", "s", code=1)
    assert "0 or more" in filled("hop", "helper.py", "--hops", "-1", "--store", "s", code=2).err
    assert "nothing is known of" in filled("hop", "nowhere", "--store", "s", code=1).err


def test_verify_stats_compact(filled):
    assert "damage found: 0" in filled("verify", "--store", "s").out
    assert json.loads(filled("verify", "--store", "s", "--json").out)["ok"] is True
    figures = json.loads(filled("stats", "--store", "s", "--json").out)
    assert figures["records"] == 8
    assert "records" in filled("stats", "--store", "s").out
    assert json.loads(filled("compact", "--store", "s", "--json").out)["bytes_after"] > 0


def test_copy_export_import(filled, folder):
    copied = json.loads(filled("copy", "deep/copy", "--store", "s", "--json").out)
    assert copied["target"] == str(folder / "deep/copy")
    assert copied["bytes"] > 1000
    told = json.loads(filled("export", "archive", "--store", "deep/copy", "--json").out)
    assert told == {
        "file": "archive", "records": 8, "bytes": (folder / "archive").stat().st_size
    }  # fmt: skip
    told = json.loads(filled("import", "archive", "--store", "other", "--json").out)
    assert told == {"new": 8, "records": 8}
    again = filled("import", "archive", "--store", "other").out
    assert again == "new records: 0, records now: 8\n"
    assert filled("get", "notes.txt", "--store", "other").out == SOURCES["notes.txt"]
    assert "helper.py" in filled("hop", "pack/deep.py", "--store", "other").out


def test_archives_through_pipes(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    with MemoryStore("short", algorithm="xxh3_64") as store:
        digest = store.put(b"content")
    pipe = io.BytesIO()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", io.TextIOWrapper(pipe))
        assert main(["export", "-", "--store", "short"]) == 0
        sys.stdout.detach()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pipe.getvalue())))
        assert main(["import", "-", "--store", "other"]) == 0
    with MemoryStore("other") as store:  # made with the archive's algorithm
        assert store[digest] == b"content"
    for name, command in (("stdin", "import"), ("stdout", "export")):
        with monkeypatch.context() as patched:
            patched.setattr(sys, name, None)
            assert main([command, "-", "--store", "short"]) == 2
        assert "there is no pipe" in capsys.readouterr().err


def test_damaged_archives_are_told(filled, folder):
    filled("export", "archive", "--store", "s")
    whole = (folder / "archive").read_bytes()
    (folder / "archive").write_bytes(whole[:-1])
    assert "cut off" in filled("import", "archive", "--store", "other", code=2).err
    (folder / "archive").write_bytes(whole + b"x")
    assert "more bytes follow" in filled("import", "archive", "--store", "other", code=2).err
    (folder / "archive").write_bytes(whole)
    told = filled("import", "archive", "--store", "other").out
    assert told == "new records: 0, records now: 8\n"
    with MemoryStore("keyed", key=b"k") as store:
        store.put(b"a")
        store.commit()
        store.export_to("keyed.archive")
    assert "in Python" in filled("import", "keyed.archive", "--store", "third", code=2).err
    assert not (folder / "third").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["copy", "other", "--store", "nowhere"],
        ["copy", "texts", "--store", "texts"],
        ["export", "archive", "--store", "nowhere"],
        ["export", "archive", "--store", "texts"],
        ["import", "nowhere", "--store", "s"],
        ["import", "texts", "--store", "s"],
        ["import", "texts/notes.txt", "--store", "s"],
        ["ingest", "nowhere", "--store", "s"],
        ["ingest", "texts/notes.txt", "--store", "s"],
        ["ingest", "texts", "--store", "texts"],
        ["ingest", "texts", "--store", "texts/notes.txt"],
        ["ingest", "texts", "--store", "s", "--largest", "0"],
        ["search", "x", "--store", "nowhere"],
        ["search", "x", "--store", "texts"],
        ["get", "x", "--store", "nowhere"],
        ["stats", "--store", "texts/notes.txt"],
        ["verify", "--store", "nowhere"],
        ["compact", "--store", "nowhere"],
        ["compact", "--store", "texts"],
        ["remove", "x", "--store", "texts"],
        ["ingest", "texts", "--store", ""],
        ["stats", "--store", ""],
        ["demo", "--corpus", "nowhere"],
        ["demo", "--corpus", ""],
        ["demo", "--store", "texts"],
    ],
)
def test_wrong_input_is_told_in_one_line(run, folder, arguments):
    before = sorted(os.listdir(folder))
    told = run(*arguments, code=2)
    assert told.out == ""
    assert told.err.startswith(f"hashmem {arguments[0]}: ")
    assert told.err.count("\n") == 1
    assert sorted(os.listdir(folder)) == before  # nothing was made on the way


@pytest.mark.parametrize("arguments", [[], ["fly"], ["search"], ["search", "x", "-k", "y"]])
def test_wrong_use_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert "hashmem" in capsys.readouterr().err


def test_k_must_be_positive(filled):
    assert "k must be" in filled("search", "digest", "-k", "0", "--store", "s", code=2).err


def test_damage_is_found(filled, folder):
    with MemoryStore("s") as store:
        digest = store.put(b"a payload to be damaged")
    path = next(folder.glob("s/*.mdb"))
    stored = path.read_bytes()
    assert stored.count(b"to be damaged") == 1
    path.write_bytes(stored.replace(b"to be damaged", b"to be DAMAGED"))
    told = json.loads(filled("verify", "--store", "s", "--json", code=1).out)
    assert told["corrupt"] == [digest.hex()]


def test_as_a_program(folder):
    def hashmem(*arguments):
        return subprocess.run(
            [sys.executable, "-P", "-m", "hashmem.cli", *arguments],
            cwd=folder, capture_output=True, encoding="utf-8",
        )  # fmt: skip

    assert hashmem("--version").stdout.startswith("hashmem ")
    assert hashmem("ingest", "texts", "--store", "s").returncode == 0
    assert hashmem("search", "digest", "--store", "s").returncode == 0
    assert hashmem("get", "notes.txt", "--store", "s").stdout == SOURCES["notes.txt"]
    narrow = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(
        [sys.executable, "-P", "-m", "hashmem.cli", "search", "Grüße", "--store", "s"],
        cwd=folder, env=narrow, capture_output=True, encoding="ascii",
    )  # fmt: skip
    assert "Gr\\xfc\\xdfe" in shown.stdout
    closed = subprocess.run(
        ["sh", "-c", f"{sys.executable} -P -m hashmem.cli get helper.py --store s >&-"],
        cwd=folder, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert "Traceback" not in closed.stderr
    wrong = hashmem("stats", "--store", "texts")
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
