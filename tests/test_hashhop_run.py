"""The runner against a real HTTP server that misbehaves, its preview and its command."""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from chat_server import (
    FAULTS,
    KEY,
    OTHER,
    SAMPLE,
    caller,
    in_memory,
    reader,
    tokens,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem.hashhop import HashHop, MultiHopSample, run_command
from hashmem.hashhop.ask import LONGEST_WAIT, Endpoint, EndpointError, asked_wait
from hashmem.hashhop.chat import parse_completion
from hashmem.hashhop.preview import preview
from hashmem.hashhop.questions import list_questions
from hashmem.hashhop.replies import Replies
from hashmem.hashhop.run import run

# Asking and scoring.


@pytest.mark.parametrize("each", [False, True])
def test_a_model_that_reads_is_right(server, endpoint, each):
    done = []
    first, second = run([SAMPLE, OTHER], endpoint, each=each, progress=done.append)
    assert first.score.accuracy == second.score.accuracy == 1
    assert (len(first.score.marks), len(second.score.marks)) == (6, 4)
    assert first.requests + second.requests == len(server.requests) == (10 if each else 2)
    assert sum(done) == 10
    assert first.cached == first.retries == first.untold == first.lookups == 0
    assert first.prompt_tokens == (6 if each else 1) * len(SAMPLE.text()) + sum(
        len(one["messages"][0]["content"]) - len(SAMPLE.text())
        for one in server.requests if SAMPLE.text() in one["messages"][0]["content"]
    )  # fmt: skip
    assert first.seconds > 0
    assert first.failures == {}
    assert first.cut_off == first.rounds_spent == ()
    assert json.loads(json.dumps(first.to_dict(), allow_nan=False)) == first.to_dict()
    assert "6 of 6" in first.table()
    if not each:
        asked = {one["messages"][0]["content"] for one in server.requests}
        assert asked == {SAMPLE.prompt, OTHER.prompt}
    for request in server.requests:
        assert request["temperature"] == 0
        assert request["max_tokens"] == 1024
        assert request["model"] == "m"
    assert server.keys == {f"Bearer {KEY}"}


def test_the_public_format_is_asked_too(server, endpoint):
    lines = ["abcd = 'efgh'", "ijkl = abcd", "mnop = 'qrst'", "uvwx = mnop"]
    completion = "COMPLETION:\nHops=2\n\nCoT=True\n\nijkl = 'abcd = efgh'\nuvwx = 'mnop = qrst'\n"
    targets = {"ijkl": "abcd = efgh", "uvwx": "mnop = qrst"}
    public = MultiHopSample("\n".join(lines), completion, targets)
    for each in (False, True):
        (result,) = run([public], endpoint, each=each)
        assert result.score.correct == 2
    assert server.requests[0]["messages"][0]["content"].startswith(public.prompt + "\n\n")


def test_as_many_requests_at_once_as_are_allowed(server, endpoint):
    for concurrency in (1, 3):
        company = threading.Barrier(concurrency)  # nobody is answered before so many have come

        def answer(request, company=company):
            company.wait(60)
            return reader(request)

        server.restart(answer)
        (result,) = run([SAMPLE], endpoint, each=True, concurrency=concurrency)
        assert result.score.correct == 6
        assert server.most_under_way == concurrency


def test_the_same_question_twice_is_asked_once(server, endpoint):
    server.restart(reader, delay=0.02)
    results = run([SAMPLE] * 5, endpoint, concurrency=5)
    assert len(server.requests) == 1
    assert sum(result.cached for result in results) == 4
    assert all(result.score.accuracy == 1 for result in results)


def test_what_the_endpoint_leaves_out(server, endpoint):
    server.restart(reader, usage=False, finish=None)
    (result,) = run([SAMPLE], endpoint)
    assert (result.untold, result.prompt_tokens, result.score.correct) == (1, 0, 6)


def test_a_reply_that_was_cut_off_counts_and_says_so(server, endpoint):
    server.restart(lambda request: reader(request)[:40], finish="length")
    (result,) = run([SAMPLE], endpoint)
    assert result.score.correct == 1
    assert len(result.score.marks) == 6
    assert result.cut_off == tuple(chain[0] for chain in SAMPLE.chains)


# What goes wrong on the way.


@given(
    st.lists(st.sampled_from(FAULTS), max_size=6),
    st.integers(1, 4),
    st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_whatever_the_first_answers_are_each_query_is_answered_once(
    shared, faults, concurrency, each
):
    server, endpoint = shared.server, shared.endpoint
    endpoint.retries = 6
    server.restart(reader, faults)
    slept = shared.slept
    slept.clear()
    with Replies(None) as probe:
        digests = {
            probe.digest(endpoint, endpoint.request(question.messages()))
            for question in list_questions([SAMPLE], each=each, tools=False, keep_text=False)
        }
    with in_memory() as folder:
        (result,) = run([SAMPLE], endpoint, each=each, concurrency=concurrency, replies=folder)
        met = len(faults) - len(server.faults)
        assert result.score.correct == 6
        assert result.failures == {}
        assert result.retries == len(slept) == met
        assert set(server.answered.values()) == {1}
        assert len(server.answered) == len(digests) == len(server.requests) - met
        before = len(server.requests)
        (again,) = run([SAMPLE], endpoint, each=each, concurrency=concurrency, replies=folder)
        assert len(server.requests) == before
        assert again.cached == again.requests == len(digests)
        assert again.score == result.score
        assert (again.prompt_tokens, again.seconds) == (result.prompt_tokens, result.seconds)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_never_works_is_no_wrong_answer(server, endpoint, fault):
    endpoint.retries = 2
    server.restart(reader, [fault] * 3)
    first, second = run([SAMPLE, OTHER], endpoint, concurrency=1)
    assert (first.score.failed, len(first.score.marks), first.requests) == (6, 0, 0)
    assert set(first.failures) == {chain[0] for chain in SAMPLE.chains}
    assert first.retries == 2
    assert KEY not in json.dumps(first.to_dict()) + first.table()
    assert (second.score.correct, second.retries) == (4, 0)


def test_no_reply_in_time_is_tried_again(server):
    endpoint = Endpoint(server.url, "m", timeout=0.2, retries=9, sleep=lambda _: None)
    server.restart(reader, ["slow 2"])
    (result,) = run([SAMPLE], endpoint)
    assert result.score.correct == 6
    assert result.retries >= 1
    endpoint.retries = 1
    server.restart(reader, ["slow 2"] * 2)
    (result,) = run([SAMPLE], endpoint)
    assert set(result.failures.values()) == {"no reply within 0.2 seconds"}
    endpoint.close()


def test_nobody_listens():
    slept = []
    endpoint = Endpoint("http://127.0.0.1:9/v1", "m", retries=3, sleep=slept.append)
    (result,) = run([SAMPLE], endpoint)
    assert result.score.failed == 6
    assert "no connection" in next(iter(result.failures.values()))
    assert len(slept) == 3


def test_waits_grow_and_end_and_heed_what_the_endpoint_asks(shared, server, endpoint):
    endpoint.retries = 12
    server.restart(reader, ["500"] * 12)
    run([SAMPLE], endpoint)
    for k, seconds in enumerate(shared.slept):
        assert 0.25 * 2**k <= seconds <= 0.5 * 2**k or LONGEST_WAIT / 2 <= seconds <= LONGEST_WAIT
    assert len(shared.slept) == 12
    shared.slept.clear()
    server.restart(reader, ["429 after 7", "429 at a date", "429 after 1e3"])
    (result,) = run([SAMPLE], endpoint)
    assert 7.25 <= shared.slept[0] <= 7.5
    assert 5 <= shared.slept[1] <= 31
    assert len(shared.slept) == 2  # nobody waits for a quarter of an hour
    assert "asks to wait 1000 seconds" in next(iter(result.failures.values()))


@pytest.mark.parametrize("text", ["", "soon", "-3", "nan", "Thu, 99 Foo 2020", "0x7"])
def test_what_is_no_wait_is_none(text):
    assert asked_wait({"retry-after": text}) == 0


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("400", "window"), ("401", "OPENAI_API_KEY"), ("402", "credit"), ("403", "may not use"),
        ("404", "base_url"), ("413", "smaller"), ("422", "parameters"), ("quota", "quota"),
        ("418", "refuses"),
    ],
)  # fmt: skip
def test_what_is_refused_for_good_ends_the_run(server, endpoint, fault, told):
    server.restart(reader, [fault] * 99, delay=0.01)
    with pytest.raises(EndpointError, match=told) as error:
        run([SAMPLE], endpoint, each=True, concurrency=2)
    assert len(server.requests) <= 2  # those under way, and no retry
    assert KEY not in str(error.value)
    assert error.value.__cause__ is None


def test_an_end_stops_the_waiting_and_keeps_what_came(server, tmp_path):
    """The others wait in earnest for their next attempt, and would for minutes."""
    endpoint = Endpoint(server.url, "m")
    server.restart(reader, [None, "429 after 300", "429 after 300", "401"])
    with pytest.raises(EndpointError):
        run([SAMPLE], endpoint, each=True, concurrency=3, replies=tmp_path)
    server.restart(reader)
    (result,) = run([SAMPLE], endpoint, each=True, replies=tmp_path)
    assert (result.cached, len(server.requests)) == (1, 5)
    endpoint.close()


@given(st.binary(max_size=40) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "message", "content", "tool_calls", "function", "usage",
                         "type", "text", "finish_reason", "prompt_tokens", "arguments", "name"]),
        inner, max_size=4),
    max_leaves=12,
).map(lambda value: json.dumps({"choices": [value]}).encode()))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_body_is_read_or_refused(body):
    try:
        found = parse_completion(body)
    except ValueError:
        return
    assert isinstance(found.text, str)
    found.text.encode()
    json.dumps(found.message())


def test_messages_in_other_shapes():
    def text(message):
        return parse_completion(json.dumps({"choices": [{"message": message}]}).encode()).text

    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "ab"}]
    assert text({"content": [*parts, {"type": "text", "text": "c"}]}) == "abc"
    assert text({"content": None}) == text({}) == ""
    assert text({"content": "\ud800!"}) == "?!"


# Before anything is asked.


def test_a_preview_asks_nothing_and_foretells_the_run(server, endpoint, tmp_path):
    folder = tmp_path / "replies"
    seen = preview([SAMPLE, OTHER], endpoint, replies=folder, each=True, count=tokens,
                   prices=(2.0, 8.0))  # fmt: skip
    assert not server.requests
    assert not folder.exists()
    run([SAMPLE], endpoint, replies=folder, each=True)
    run([OTHER], endpoint, replies=folder, each=True)
    prompts = [one["messages"][0]["content"] for one in server.requests]
    assert (seen.conversations, seen.finished, seen.requests, seen.cached) == (10, 0, 10, 0)
    assert seen.characters == sum(map(len, prompts))
    assert seen.prompt_tokens == sum(map(tokens, prompts))
    assert seen.completion_tokens == 10 * 1024
    assert seen.cost == (2.0 * seen.prompt_tokens + 8.0 * 10 * 1024) / 1e6
    assert not seen.at_least
    third = HashHop(characters=1_000, hops=2, hash_length=8, queries=6, seed=9)
    rest = preview([SAMPLE, third], endpoint, replies=folder, each=True)
    assert (rest.conversations, rest.finished, rest.requests, rest.cached) == (12, 6, 6, 6)
    assert rest.prompt_tokens is None
    assert rest.cost is None
    assert "only the characters" in rest.table()
    done = preview([SAMPLE], endpoint, replies=folder, each=True, count=tokens, prices=(2, 8))
    assert (done.requests, done.cost, done.prompt_tokens) == (0, 0, 0)
    assert len(server.requests) == 10


@given(st.integers(300, 900), st.booleans())
@settings(max_examples=30, deadline=None)
def test_what_does_not_fit_is_refused_before_anything_is_asked(shared, window, each):
    shared.server.restart(reader)
    endpoint = Endpoint(shared.server.url, "m", max_tokens=100)
    small = HashHop(characters=400, hops=2, hash_length=8, queries=2, seed=1)
    need = max(
        tokens(question.messages()[0]["content"]) + 100
        for question in list_questions([small, SAMPLE], each=each, tools=False, keep_text=False)
    )
    try:
        preview([small, SAMPLE], endpoint, each=each, window=window, count=tokens)
        assert need <= window
    except ValueError as error:
        assert need > window
        found = re.fullmatch(
            rf"sample ([01]) \((\d+) characters\): its prompt has (\d+) tokens, with 100 for the "
            rf"reply more than the window of {window}: (about (\d+) characters|no text fits).*",
            str(error),
        )
        which = [small, SAMPLE][int(found[1])]
        assert int(found[2]) == which.characters
        assert int(found[3]) + 100 > window
        with pytest.raises(ValueError, match="more than the window"):
            run([small, SAMPLE], endpoint, each=each, window=window, count=tokens)
        if found[5]:
            assert int(found[5]) < which.characters
            lines = which.text().splitlines(keepends=True)
            fitting = next(n for n in range(len(lines)) if len("".join(lines[:n])) == int(found[5]))
            rest = int(found[3]) - tokens(which.text() + "\n")
            assert tokens("".join(lines[:fitting]) + "\n") + rest + 100 <= window
            assert tokens("".join(lines[: fitting + 1]) + "\n") + rest + 100 > window
    assert not shared.server.requests


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"window": 10**6}, "pass count"),
        ({"window": 10**6, "count": lambda text: 1 / 0}, "ZeroDivisionError"),
        ({"window": 10**6, "count": lambda text: None}, "not None"),
        ({"window": 10**6, "count": lambda text: -1}, "not -1"),
        ({"window": 10**6, "count": lambda text: 1.5}, "not 1.5"),
        ({"concurrency": 0}, "concurrency"),
        ({"rounds": 0}, "at least 1 round"),
    ],
)
def test_bad_arguments(server, endpoint, arguments, told):
    with pytest.raises(ValueError, match=told):
        run([SAMPLE], endpoint, **arguments)
    assert not server.requests


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"base_url": "localhost:8000/v1"}, "is no address"),
        ({"model": ""}, "has no name"),
        ({"api_key": ""}, "API key"),
        ({"api_key": KEY + "\n"}, "API key"),
        ({"api_key": KEY + "…"}, "API key"),
        ({"max_tokens": 0}, "at least 1 token"),
        ({"retries": -1}, "retries"),
        ({"timeout": 0}, "timeout"),
        ({"parameters": {"stream": True}}, "'stream'"),
    ],
)
def test_bad_endpoints(arguments, told):
    with pytest.raises(ValueError, match=told) as error:
        Endpoint(**{"base_url": "http://localhost/v1", "model": "m", **arguments})
    assert KEY not in str(error.value)
    assert KEY not in repr(Endpoint("http://localhost/v1", "m", api_key=KEY))


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=r"hashmem\[openai\]"):
        run([SAMPLE], Endpoint("http://127.0.0.1:9/v1", "m"))


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = (
        "import sys, hashmem.hashhop.run, hashmem.hashhop.preview, hashmem.hashhop.compare\n"
        "import hashmem.hashhop.run_command\n"
        "print({'openai', 'tqdm', 'lmdb'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert told.stdout == b"set()\n", told.stderr


# The command line.


@pytest.fixture
def command(server, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def call(*arguments, code=0):
        parser = argparse.ArgumentParser()
        parser.add_argument("--json", action="store_true")
        run_command.add_arguments(parser)
        given = ["--base-url", server.url, "--model", "m", "--retries", "0", *arguments]
        assert run_command.main(parser.parse_args(given)) == code
        told = capsys.readouterr()
        assert KEY not in told.out + told.err
        return told.out

    return call


def test_the_command_runs_every_kind_of_sample_and_resumes(server, command):
    kinds = ["--characters", "2000", "3000", "--hops", "1", "2", "--samples", "2"]
    told = json.loads(command(*kinds, "--json"))
    assert [(one["sample"]["characters"] // 1000, one["sample"]["hops"], one["sample"]["seed"])
            for one in told] == [(size - 1, hops, seed) for size in (2, 3) for hops in (1, 2)
                                 for seed in (0, 1)]  # fmt: skip
    assert all(one["correct"] == 5 for one in told)
    assert server.keys == {f"Bearer {KEY}"}
    assert "5 of 5" in command(*kinds)
    assert len(server.requests) == 8
    stored = b"".join(path.read_bytes() for path in Path("hashhop-replies").iterdir())
    assert KEY.encode() not in stored


def test_the_command_tells_of_failures_by_its_exit_code(server, command):
    server.restart(reader, ["500"])
    assert "no reply to" in command("--each", "--concurrency", "1", code=1)
    assert json.loads(command("--each", "--json"))[0]["cached"] == 4


def test_the_command_previews_and_compares(server, command):
    seen = json.loads(command("--preview", "--prices", "1", "2", "--json"))
    assert (seen["requests"], seen["prompt_tokens"], seen["cost"]) == (1, None, None)
    counted = ["--count", "builtins:len", "--prices", "1", "2"]
    assert "cost           at most 0.0" in command("--preview", *counted)
    assert not server.requests
    server.restart(caller({}.get))
    told = json.loads(command("--compare", "--json"))
    assert (told["only_with_tools"], told["neither"], told["p_value"]) == (5, 0, 0.0625)
    assert "exact McNemar" in command("--compare")
    assert json.loads(command("--tools", "--json"))[0]["correct"] == 5


def test_the_command_refuses_what_may_not_fit(server, command):
    for further in ([], ["--preview"]):
        with pytest.raises(ValueError, match="more than the window of 3000"):
            command("--window", "3000", *further)
        assert not server.requests
    assert json.loads(command("--window", "9000", "--preview", "--json"))["prompt_tokens"] is None
    command("--window", "3000", "--count", f"{__name__}:tokens")
    assert len(server.requests) == 1


def test_the_command_sends_further_parameters(server, command):
    command("--parameters", '{"seed": 3, "max_tokens": null, "max_completion_tokens": 50}')
    (request,) = server.requests
    assert (request["seed"], request["max_completion_tokens"]) == (3, 50)
    assert "max_tokens" not in request
    for wrong in (["--parameters", "[1]"], ["--parameters", "x"], ["--count", "nowhere:x"]):
        with pytest.raises(SystemExit):
            command(*wrong)
