"""Lookup as a tool of the model, and what it is worth to a small model that was trained."""

import json

import pytest
from chat_server import OTHER, SAMPLE, SmallModel, caller, follow, read_question, reader, tokens
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem.hashhop import HashHop, HiddenHop
from hashmem.hashhop.ask import EndpointError
from hashmem.hashhop.chat import Call
from hashmem.hashhop.compare import compare, pair_results
from hashmem.hashhop.lookup import Lookup
from hashmem.hashhop.orders import mcnemar_test as mcnemar
from hashmem.hashhop.preview import preview
from hashmem.hashhop.run import run


@given(st.data())
@settings(max_examples=30)
def test_lookup_knows_the_pairs_and_nothing_else(data):
    memory = Lookup(SAMPLE.text(), 8)
    links = dict(line.split(" = ") for line in SAMPLE.text().splitlines())
    text = data.draw(st.sampled_from(sorted(links)) | st.text(max_size=9))
    assert memory.next(text) == links.get(text)
    asked = Call("1", "lookup", json.dumps({"hash": text}))
    assert json.loads(memory.answer(asked)) == links.get(text)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("lookup", ""), ("lookup", "{"), ("lookup", "[]"), ("lookup", "{}"), ("lookup", "null"),
        ("lookup", '{"hash": 3}'), ("lookup", '{"hash": null}'), ("search", '{"hash": "a"}'),
        ("lookup", "[" * 100_000),
    ],
)  # fmt: skip
def test_calls_that_are_wrong_are_told_so(name, arguments):
    assert Lookup(SAMPLE.text(), 8).answer(Call("1", name, arguments)).startswith("error: ")


@pytest.mark.parametrize("each", [False, True])
def test_a_model_without_memory_is_right_with_the_tool(server, endpoint, tmp_path, each):
    server.restart(caller({}.get), ["500", "cut"])
    first, second = run([SAMPLE, OTHER], endpoint, tools=True, each=each, replies=tmp_path)
    assert (first.score.correct, second.score.correct) == (6, 4)
    assert (first.lookups, second.lookups) == (6 * 2, 4 * 3)
    assert first.requests == (6 if each else 1) * 3
    assert not any(SAMPLE.line(0) in str(request) for request in server.requests)
    before = len(server.requests)
    assert before == first.requests + second.requests + 2
    again = run([SAMPLE, OTHER], endpoint, tools=True, each=each, replies=tmp_path)
    assert [one.score for one in again] == [first.score, second.score]
    assert len(server.requests) == before
    seen = preview([SAMPLE], endpoint, tools=True, each=each, replies=tmp_path)
    assert (seen.finished, seen.cached) == (seen.conversations, first.requests)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("tools", [False, True])
def test_harder_samples_are_asked_as_they_are(server, endpoint, each, tools):
    sample = HashHop(
        characters=9_000, hops=(1, 3), queries=6, unanswerable=2, overwritten=0.5, near=0.3
    )
    hidden = HiddenHop(sample, ["To be, or not to be,", "that is the question:"])
    if tools:
        server.restart(caller({}.get))
    asked = [sample, hidden] if tools else [sample]  # the model that reads knows bare lines only
    for result in run(asked, endpoint, tools=tools, each=each):
        assert result.score.correct == 6
        assert {len(mark.positions) for mark in result.score.marks} >= {0, 1}


def test_the_text_may_be_kept_beside_the_tool(server, endpoint):
    run([SAMPLE], endpoint, tools=True, keep_text=True)
    (request,) = server.requests
    assert request["messages"][0]["content"].startswith(SAMPLE.text())
    assert request["tools"][0]["function"]["name"] == "lookup"


def test_a_conversation_that_was_cut_off_goes_on_where_it_was(server, endpoint, tmp_path):
    server.restart(caller({}.get), [None, None, "400"])
    with pytest.raises(EndpointError):
        run([SAMPLE], endpoint, tools=True, replies=tmp_path)
    seen = preview([SAMPLE], endpoint, tools=True, replies=tmp_path, count=tokens)
    assert (seen.requests, seen.cached, seen.finished) == (1, 2, 0)
    assert seen.prompt_tokens > tokens(server.requests[0]["messages"][0]["content"])
    assert "at least" in seen.table()
    (result,) = run([SAMPLE], endpoint, tools=True, replies=tmp_path)
    assert (result.requests, result.cached, result.score.correct) == (3, 2, 6)
    assert len(server.requests) == 4


def test_a_model_that_calls_for_ever_is_ended(server, endpoint):
    def answer(request):
        call = {"id": None, "function": {"name": "lookup", "arguments": {"hash": "x"}}}
        return {"content": "well", "tool_calls": [call]}

    server.restart(answer)
    (result,) = run([SAMPLE], endpoint, tools=True, rounds=3)
    assert (result.requests, result.lookups, len(server.requests)) == (3, 2, 3)
    assert result.rounds_spent == tuple(chain[0] for chain in SAMPLE.chains)
    assert result.score.errors["empty"] == 6
    told = server.requests[2]["messages"][2]
    assert told == {"role": "tool", "tool_call_id": "call_0", "content": "null"}
    server.restart(answer)
    (result,) = run([SAMPLE], endpoint, tools=True)
    assert result.requests == 2 * 6 + 4


def test_a_malformed_call_is_told_to_the_model_which_goes_on(server, endpoint):
    right = caller({}.get)

    def answer(request):
        if len(request["messages"]) == 1:
            call = {"id": "a", "function": {"name": "lookup", "arguments": '{"hash": '}}
            return {"content": None, "tool_calls": [call]}
        assert request["messages"][2]["content"].startswith("error: the arguments are no JSON")
        return right({**request, "messages": [request["messages"][0], *request["messages"][3:]]})

    server.restart(answer)
    (result,) = run([SAMPLE], endpoint, tools=True)
    assert result.score.correct == 6


# A model that was trained.


@pytest.fixture(scope="module")
def trained():
    sample = HashHop(characters=6_000, hops=2, hash_length=8, queries=40, seed=3)
    return sample, SmallModel(sample.text(), features=48, steps=50)


def test_a_small_trained_model_and_what_a_memory_is_worth_to_it(server, endpoint, trained):
    sample, model = trained
    assert model.losses[-1] < model.losses[0] / 3
    server.restart(caller(model.next))
    compared = compare([sample], endpoint, each=True)
    (without,), (with_tools,) = compared.without, compared.with_tools
    assert 0 < without.score.correct < 40
    assert without.score.errors["invented"] > 0
    assert without.score.by_hop[1] > without.score.by_hop[2]
    assert with_tools.score.correct == 40
    assert (compared.both, compared.only_without) == (without.score.correct, 0)
    assert compared.only_with_tools == 40 - without.score.correct
    assert compared.neither == compared.left_out == 0
    assert compared.p_value == mcnemar(0, 40 - without.score.correct) < 0.05
    assert "only with" in compared.table()
    assert json.loads(json.dumps(compared.to_dict())) == compared.to_dict()
    untrained = SmallModel(sample.text(), features=48, steps=0)
    server.restart(lambda request: follow(read_question(request)[1], untrained.next))
    (result,) = run([sample], endpoint)
    assert result.score.correct == 0


def test_queries_without_a_reply_are_left_out_of_the_pairs(server, endpoint):
    endpoint.retries = 0
    server.restart(reader, ["500", "500"])
    failing = run([SAMPLE], endpoint, each=True, concurrency=1)
    right = run([SAMPLE], endpoint, each=True)
    for pair in ((failing, right), (right, failing)):
        compared = pair_results(*pair)
        assert (compared.both, compared.left_out, compared.p_value) == (4, 2, 1.0)
    with pytest.raises(ValueError, match="sample 0"):
        pair_results(right, run([OTHER], endpoint))
    with pytest.raises(ValueError, match="make no pairs"):
        pair_results(right, [])


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_sums_the_binomial_tail(a, b):
    from math import comb

    n = a + b
    tail = sum(comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(a - b))
    assert mcnemar(a, b) == pytest.approx(tail / 2**n)
    assert mcnemar(a, b) == mcnemar(b, a)
