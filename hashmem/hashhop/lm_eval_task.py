"""HashHop as a task of the LM Evaluation Harness (package lm-eval, extra `lm-eval`)."""

from collections.abc import Sequence
from typing import Any

from hashmem.hashhop.generate import FORMAT_VERSION
from hashmem.hashhop.harness import figure_names, figures, make_samples, shared_hops
from hashmem.hashhop.score import score


def lm_eval_task(
    *,
    seeds: Sequence[int] = range(10),
    name: str = "hashhop",
    max_gen_toks: int | None = None,
    **arguments: Any,
) -> Any:
    """Return a `lm_eval.api.task.ConfigurableTask` of a `HashHop` sample for each seed.

        lm_eval.simple_evaluate(model, tasks=[lm_eval_task(characters=30_000, hops=3)])

    seeds:        a sample each; the harness's standard error is over samples.
    name:         the task's, under which the harness reports it.
    max_gen_toks: the longest reply in tokens. None: twice the characters of the longest completion,
                  room enough for any tokenizer, but not for a model that thinks aloud.
    arguments:    of `HashHop`: characters or tokens, hops, queries, mode, …

    The prompt is `sample.prompt`, the target `sample.completion`, the metrics "accuracy", the share
    of queries right, and "hop_1" …, the share of hashes right at each hop, each with a standard
    error. Nothing stops a reply but its end: an empty line does not. Temperature 0.

    Raises `ImportError` without lm-eval, and `ValueError` on samples that cannot be made.
    """
    try:
        from datasets import Dataset
        from lm_eval.api.task import ConfigurableTask
    except ImportError as error:
        raise ImportError(
            f'{error}: this task needs lm-eval, pip install "hashmem[lm-eval]"'
        ) from error

    samples = dict(zip(seeds, make_samples(seeds, arguments), strict=True))
    asked = shared_hops(samples.values())
    if max_gen_toks is None:
        max_gen_toks = 2 * max(len(sample.completion) for sample in samples.values())

    def make_dataset(**_: object) -> dict[str, Any]:
        # The seed as text: it may be longer than the 64 bits of a column of numbers.
        rows = [
            {"seed": str(seed), "prompt": sample.prompt, "target": sample.completion}
            for seed, sample in samples.items()
        ]
        return {"test": Dataset.from_list(rows)}

    def process_results(document: dict[str, Any], replies: list[str]) -> dict[str, float]:
        return figures(asked, score(samples[int(document["seed"])], replies[0]))

    return ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": make_dataset,
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "prompt",
            "doc_to_target": "target",
            "process_results": process_results,
            "generation_kwargs": {
                "until": [],
                "max_gen_toks": max_gen_toks,
                "do_sample": False,
                "temperature": 0.0,
            },
            "metric_list": [
                {"metric": figure, "aggregation": "mean", "higher_is_better": True}
                for figure in figure_names(asked)
            ],
            "metadata": {"version": FORMAT_VERSION},
        }
    )
