"""HashHop as a task of evaluation harnesses, with models that answer by a script.

The harnesses are extras: where one is not installed, its tests are skipped.
"""

import math
import statistics
import sys

import numpy as np
import pytest

from hashmem.hashhop import HashHop, score
from hashmem.hashhop.harness import figure_names, figures, make_samples, shared_hops
from hashmem.hashhop.inspect_task import inspect_task
from hashmem.hashhop.lm_eval_task import lm_eval_task
from hashmem.hashhop.solve import TableSolver

SEEDS = [3, 2**70, -1, 12, 4]
ARGUMENTS = {"characters": 2_000, "hops": 4, "queries": 3, "hash_length": 8, "mode": "skip"}


def reply_to(prompt, spoil=()):
    """What a table answers to the queries of a skip over 4 hops; wrong at the places to spoil."""
    text, _, question = prompt.partition("\n\n")
    queries = question.partition("Queries:\n")[2].split()
    letters = np.array([list(query.encode()) for query in queries], np.uint8)
    answers = TableSolver(text + "\n").follow(letters, (2, 4))
    lines = []
    for i, (query, answer) in enumerate(zip(queries, answers, strict=True)):
        named = [bytes(hash_).decode() for hash_ in answer]
        for j in range(len(named)):
            if (i, j) in spoil:
                named[j] = named[j][::-1].swapcase()
        lines.append(" = ".join([query, *named]))
    return "Here:\n\n" + "\n".join(lines)


@pytest.mark.parametrize("hops", [3, (1, 3), (2, 3)])
def test_every_figure_is_a_number_whatever_the_queries_ask_for(hops):
    options = {"characters": 9_000, "hops": hops, "queries": 4, "unanswerable": 1}
    samples = make_samples(range(20), options)
    shared = shared_hops(samples)
    assert shared[:1] == [1]
    for sample in samples:
        found = figures(shared, score(sample, sample.completion))
        assert found == dict.fromkeys(figure_names(shared), 1.0)
    assert shared_hops([HashHop(characters=9_000, queries=2, unanswerable=2)]) == []


SPOILS = [(), [(0, 0)], [(0, 1), (1, 0)], [(2, 0), (2, 1)], [(0, 0), (1, 0), (2, 0)]]
HOP_2 = [1, 2 / 3, 2 / 3, 2 / 3, 0]
HOP_4 = [1, 1, 2 / 3, 2 / 3, 1]
ACCURACY = [1, 2 / 3, 1 / 3, 2 / 3, 0]
EXPECTED = {"accuracy": ACCURACY, "hop_2": HOP_2, "hop_4": HOP_4}


def scripted(prompts):
    """The reply to each sample's prompt, spoilt as SPOILS say."""
    samples = make_samples(SEEDS, ARGUMENTS)
    spoils = {s.prompt: spoil for s, spoil in zip(samples, SPOILS, strict=True)}
    return [reply_to(prompt, spoils[prompt]) for prompt in prompts]


def test_the_figures_of_a_score_are_its_shares():
    for sample, spoil, *expected in zip(
        make_samples(SEEDS, ARGUMENTS), SPOILS, ACCURACY, HOP_2, HOP_4, strict=True
    ):
        found = figures(sample.positions, score(sample, reply_to(sample.prompt, spoil)))
        assert list(found) == figure_names(sample.positions) == ["accuracy", "hop_2", "hop_4"]
        assert list(found.values()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("seeds", "arguments", "says"),
    [
        ([], {"characters": 9_000}, "at least one, as in seeds="),
        ([0], {"characters": 9_000, "seed": 1}, "seeds=.* and not seed="),
        ([0], {"characters": 100}, "at most 1 hops or at least"),
    ],
)
def test_samples_that_cannot_be_made_are_refused(seeds, arguments, says):
    with pytest.raises(ValueError, match=says):
        make_samples(seeds, arguments)


@pytest.mark.parametrize(
    ("make", "package", "extra"),
    [(lm_eval_task, "lm_eval", "lm-eval"), (inspect_task, "inspect_ai", "inspect")],
)
def test_a_missing_harness_is_named_with_its_extra(make, package, extra, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'pip install "hashmem\[{extra}\]"'):
        make(characters=9_000)


# ----------------------------------------------------------------------------- lm-eval


@pytest.fixture(scope="module")
def lm_eval():
    return pytest.importorskip("lm_eval")


@pytest.fixture
def evaluated(lm_eval, monkeypatch):
    """Evaluate a task with a model that answers by `reply`, prompts → replies."""
    from lm_eval.api.model import LM

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    class Scripted(LM):
        def __init__(self, reply):
            super().__init__()
            self.reply = reply
            self.asked = []

        def generate_until(self, requests):
            self.asked += [request.args for request in requests]
            return self.reply([prompt for prompt, _ in (r.args for r in requests)])

        def loglikelihood(self, requests):
            raise NotImplementedError

        def loglikelihood_rolling(self, requests):
            raise NotImplementedError

    def evaluate(task, reply):
        model = Scripted(reply)
        found = lm_eval.simple_evaluate(model=model, tasks=[task])
        return model, found

    return evaluate


def test_lm_eval_asks_for_whole_replies_and_gives_means_and_errors_over_samples(evaluated):
    task = lm_eval_task(seeds=SEEDS, name="hops", **ARGUMENTS)
    model, found = evaluated(task, scripted)
    results = found["results"]["hops"]
    for figure, expected in EXPECTED.items():
        assert results[f"{figure},none"] == pytest.approx(statistics.mean(expected))
        error = statistics.stdev(expected) / math.sqrt(len(expected))
        assert results[f"{figure}_stderr,none"] == pytest.approx(error)
    assert found["n-samples"]["hops"]["effective"] == len(SEEDS)

    samples = make_samples(SEEDS, ARGUMENTS)
    assert [prompt for prompt, _ in model.asked] == [sample.prompt for sample in samples]
    for _, settings in model.asked:
        assert settings["until"] == []
        assert settings["max_gen_toks"] == 2 * len(samples[0].completion)
        assert settings["temperature"] == 0


def test_lm_eval_marks_nothing_but_wrong_answers_at_zero(evaluated):
    task = lm_eval_task(seeds=[0, 1], max_gen_toks=7, characters=2_000, hops=1, hash_length=8)
    model, found = evaluated(task, lambda prompts: ["I cannot tell."] * len(prompts))
    assert found["results"]["hashhop"]["accuracy,none"] == 0
    assert found["results"]["hashhop"]["hop_1,none"] == 0
    assert model.asked[0][1]["max_gen_toks"] == 7


# ----------------------------------------------------------------------------- Inspect


@pytest.fixture
def inspected(tmp_path, monkeypatch):
    """Evaluate a task in Inspect with a model that answers by `reply`, prompts → replies."""
    inspect_ai = pytest.importorskip("inspect_ai")
    from inspect_ai.model import ModelOutput, get_model

    monkeypatch.chdir(tmp_path)

    def evaluate(task, reply):
        def answer(messages, *_):
            return ModelOutput.from_content("mockllm/model", reply([messages[0].text])[0])

        async def count(text):  # the mock's own asks a server for a vocabulary
            return len(text) // 3

        model = get_model("mockllm/model", custom_outputs=answer, memoize=False)
        monkeypatch.setattr(model.api, "count_text_tokens", count)
        (log,) = inspect_ai.eval(
            task, model=model, log_dir=str(tmp_path), display="none", log_format="json"
        )
        assert log.status == "success", log.error
        return log

    return evaluate


def test_inspect_gives_the_means_over_samples_and_their_errors(inspected):
    log = inspected(inspect_task(seeds=SEEDS, name="hops", **ARGUMENTS), scripted)
    found = {part.name: part.metrics for part in log.results.scores}
    assert set(found) == set(EXPECTED)
    for figure, expected in EXPECTED.items():
        assert found[figure]["mean"].value == pytest.approx(statistics.mean(expected))
        error = statistics.stdev(expected) / math.sqrt(len(expected))
        assert found[figure]["stderr"].value == pytest.approx(error)


def test_inspect_keeps_each_sample_with_all_its_marks(inspected):
    log = inspected(inspect_task(seeds=SEEDS, **ARGUMENTS), scripted)
    samples = {str(seed): s for seed, s in zip(SEEDS, make_samples(SEEDS, ARGUMENTS), strict=True)}
    spoils = dict(zip(samples, SPOILS, strict=True))
    assert {part.id for part in log.samples} == set(samples)
    for part in log.samples:
        sample, spoil = samples[part.id], spoils[part.id]
        assert (part.input, part.target) == (sample.prompt, sample.completion)
        (mark,) = part.scores.values()
        assert mark.answer == reply_to(sample.prompt, spoil)
        assert mark.metadata["correct"] == score(sample, mark.answer).correct
        assert HashHop(**ARGUMENTS, seed=part.metadata["seed"]).prompt == part.input
