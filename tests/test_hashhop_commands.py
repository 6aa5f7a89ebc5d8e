"""Samples as files, and the commands `hashmem hashhop …` that make, answer and mark them."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem.cli import main
from hashmem.hashhop import HashHop, MultiHopEval, score
from hashmem.hashhop.files import load, save
from hashmem.hashhop.hidden import HiddenHop

FILLER = "def f():\n    a = 1\n\n    return a\n# Grüße\n"


def public():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the format's own generator
    return MultiHopEval.make_one(3_000, 4, 2, 8, True)


SAMPLES = {
    "plain": lambda: HashHop(characters=9_000),
    "harder": lambda: HashHop(
        characters=9_000, hops=(1, 3), cycle=4, overwritten=0.5, branches=0.1, near=0.2,
        unanswerable=2, alphabet="0123456789abcdef", hash_length=20, mode="direct", seed=-5,
    ),
    "tokens": lambda: HashHop(tokens=4_000, count=len),
    "words": lambda: HashHop(characters=9_000, alphabet=["one", "two", "six"], hash_length=18),
    "hidden": lambda: HiddenHop(HashHop(characters=3_600), FILLER, kind="import", between=3),
    "public": public,
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_a_saved_sample_is_loaded_as_it_was(name, tmp_path):
    sample = SAMPLES[name]()
    save(sample, tmp_path / "sample.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sample.txt", "sample.txt.json"]
    again = load(tmp_path / "sample.txt")
    assert type(again) is type(sample)
    assert again.text() == sample.text() == (tmp_path / "sample.txt").read_bytes().decode()
    assert again.chains == sample.chains
    assert again.asked == sample.asked
    assert again.metadata() == sample.metadata()
    assert score(again, sample.completion).accuracy == 1
    save(HashHop(characters=1_800, hops=1), tmp_path / "sample.txt")  # takes its place
    assert load(tmp_path / "sample.txt").characters == 1_800


@given(st.data())
@settings(max_examples=100)
def test_whatever_is_damaged_is_told(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    name = data.draw(st.sampled_from(sorted(SAMPLES)))
    sample = SAMPLES[name]()
    save(sample, folder / "s")
    path = folder / data.draw(st.sampled_from(["s", "s.json"]))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[at:]
    path.write_bytes(content)
    try:
        found = load(folder / "s")
    except ValueError as error:
        assert str(folder / "s") in str(error)  # noqa: PT017 - some damage is in what is not read
    else:
        assert path.name == "s.json"
        assert found.text() == sample.text()


def test_foreign_files_are_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    for content, says in (("[]", "does not describe"), ("{", "no JSON"), ('{"a": 1}', "save")):
        (tmp_path / "s.json").write_text(content)
        with pytest.raises(ValueError, match=says):
            load(tmp_path / "s")
    save(HashHop(characters=9_000), tmp_path / "s")
    told = json.loads((tmp_path / "s.json").read_text())
    for change, says in (
        ({"hashhop": 2}, "version 2"),
        ({"sample": told["sample"] | {"version": 99}}, "version 99"),
        ({"sample": told["sample"] | {"seed": 7}}, "which has another text"),
        ({"sample": told["sample"] | {"hops": "many"}}, "does not describe a sample"),
    ):
        (tmp_path / "s.json").write_text(json.dumps(told | change))
        with pytest.raises(ValueError, match=says):
            load(tmp_path / "s")


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments, code=0):
        capsys.readouterr()
        assert main(["hashhop", *arguments]) == code
        return capsys.readouterr()

    return call


def test_generate_solve_score_and_report(run):
    told = json.loads(run("generate", "--out", "s", "--characters", "36000", "--json").out)
    assert told["characters"] == len(Path("s").read_text())
    assert "100" not in run("solve", "s").err
    found = json.loads(run("solve", "s", "--method", "scan", "--json").out)
    assert (found["correct"], found["queries"]) == (5, 5)
    sample = load("s")
    queries = list(sample.targets)
    replies = dict(sample.targets) | {queries[0]: None, queries[1]: "I cannot find it."}
    Path("r.json").write_text(json.dumps(replies))
    shown = run("score", "s", "r.json", "--model", "m1", "--out", "m1.json").out
    assert "3 of 4" in shown
    assert json.loads(Path("m1.json").read_text())["model"] == "m1"
    Path("r.txt").write_text(sample.completion)
    assert json.loads(run("score", "s", "r.txt", "--json").out)["accuracy"] == 1
    run("report", "m1.json", "--out", "page.html")
    assert "m1" in Path("page.html").read_text()


@pytest.mark.parametrize("public", [False, True])
def test_generate_makes_what_its_options_say(run, public):
    size = ["--characters", "20000", "--hops", "2", "--queries", "3", "--seed", "5"]
    if public:
        run("generate", "--out", "s", *size, "--public", "--mode", "direct", "--hash-length", "9")
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002 - the format's own generator
        expected = MultiHopEval.make_one(20_000, 3, 2, 9, False)
    else:
        Path("code.py").write_text(FILLER)
        run(
            "generate", "--out", "s", *size, "--overwritten", "0.5", "--alphabet", "abcdefgh",
            "--hash-length", "30", "--filler", "code.py", "--between", "2",
        )  # fmt: skip
        inner = HashHop(
            characters=20_000, hops=2, queries=3, seed=5, overwritten=0.5, alphabet="abcdefgh",
            hash_length=30,
        )  # fmt: skip
        expected = HiddenHop(inner, FILLER, between=2)
    assert load("s").text() == expected.text()
    assert load("s").chains == expected.chains


def test_sizes_in_tokens_are_counted_by_a_function_of_the_users(run):
    run("generate", "--out", "s", "--tokens", "5000", "--count", "builtins:len")
    assert load("s").tokens == load("s").characters == 5_000 // 36 * 36


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "--out", "s", "--characters", "9000", "--hops", "0"], "at least 1 hop"),
        (["generate", "--out", "s", "--characters", "9000", "--hops", "1", "2", "3"], "the least"),
        (
            ["generate", "--out", "s", "--tokens", "900", "--public", "--near", "1", "--hops", "1"],
            "--near",
        ),
        (["generate", "--out", "s", "--characters", "9000", "--filler", "none"], "none"),
        (["solve", "nothing"], "nothing.json"),
        (["score", "nothing", "r"], "nothing.json"),
        (["report", "nothing", "--out", "page"], "nothing"),
    ],
)
def test_wrong_input_is_told_in_a_line(run, arguments, says):
    told = run(*arguments, code=2).err
    assert says in told
    assert told.count("\n") == 1


def test_hidden_pairs_are_not_solved_but_told(run):
    Path("code.py").write_text(FILLER)
    run("generate", "--out", "s", "--characters", "9000", "--filler", "code.py")
    assert "hidden" in run("solve", "s", code=2).err


def test_a_wrong_option_names_the_command(run, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["hashhop", "solve"])
    assert ended.value.code == 2
    assert "hashmem hashhop solve: the following arguments are required" in capsys.readouterr().err
