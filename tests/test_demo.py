"""The demo on a small folder: every step happens, and everything it claims holds."""

import json
import os

import pytest

from hashmem import demo

FILES = {
    "main.py": "import helper\nimport other\n\nprint(helper.answer())\n",
    "helper.py": "import other\n\ndef answer():\n    return other.value\n",
    "other.py": "value = 42  # what every question leads to in the end\n",
    "letter.txt": "Dear reader,\nthe attention of chunks is merged exactly.\nYours\n",
}


@pytest.fixture
def corpus(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "TOKENS", 20_000)
    monkeypatch.setattr(demo, "QUERIES", 100)


def test_every_step_happens_and_holds(corpus, small, tmp_path_factory, capsys):
    store = tmp_path_factory.mktemp("kept") / "demo.hashmem"
    assert demo.run(corpus=str(corpus), store=str(store), as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"]
    assert told["ingest"]["files"] == len(FILES)
    read = told["read"]
    assert read["pid"] != os.getpid()
    assert read["verify"]["checked"] == read["records"] == told["ingest"]["records"]
    assert len(read["searches"]) == 3
    assert read["chain"]["chain"] == ["main.py", "helper.py", "other.py"]
    assert read["attention"]["all_selected_error"] < 1e-5
    assert all(0 < share <= 1 + 1e-9 for share in read["attention"]["captured"])
    assert told["hashhop"]["characters"] <= 60_000
    for method in ("table", "store", "dictionary"):
        assert told["hashhop"][method]["correct"] == 100
    assert store.exists()


def test_the_table_is_printed(corpus, small, capsys):
    assert demo.run(corpus=str(corpus)) == 0
    told = capsys.readouterr().out
    for word in ("corpus", "search", "hops", "attention", "HashHop", "everything held"):
        assert word in told


def test_a_corpus_without_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no text to work on"):
        demo.run(corpus=str(tmp_path))
    (tmp_path / "signs.txt").write_text("!!! ??\n")
    with pytest.raises(ValueError, match="no text to work on"):
        demo.run(corpus=str(tmp_path))


def test_a_store_that_is_there_is_not_touched(corpus, tmp_path_factory):
    kept = tmp_path_factory.mktemp("kept")
    (kept / "mine").write_text("mine")
    with pytest.raises(ValueError, match="no empty folder"):
        demo.run(corpus=str(corpus), store=str(kept))
    assert os.listdir(kept) == ["mine"]


def test_a_claim_that_fails_is_seen():
    figures = {
        "read": {
            "verify": {"ok": True},
            "searches": [{"found": True}],
            "attention": {"all_selected_error": 0.0, "error": [0.1], "bound": [0.2]},
        },
        "hashhop": {
            "queries": 5,
            **{method: {"correct": 5} for method in ("table", "store", "dictionary")},
        },
    }
    assert demo._all_held(figures)
    figures["read"]["attention"]["bound"] = [0.05]
    assert not demo._all_held(figures)
    figures["read"]["attention"]["bound"] = [0.2]
    figures["hashhop"]["store"] = {"correct": 4}
    assert not demo._all_held(figures)
