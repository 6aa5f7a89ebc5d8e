"""HashHop as a task of Inspect (package inspect-ai, extra `inspect`)."""

from collections.abc import Sequence
from typing import Any

from hashmem.hashhop.generate import FORMAT_VERSION
from hashmem.hashhop.harness import figure_names, figures, make_samples, shared_hops
from hashmem.hashhop.score import score


def inspect_task(
    *, seeds: Sequence[int] = range(10), name: str = "hashhop", **arguments: Any
) -> Any:
    """Return an `inspect_ai.Task` of a `HashHop` sample for each seed.

        inspect_ai.eval(inspect_task(characters=30_000, hops=3), model="openai/…")

    seeds:     a sample each; the standard errors are over samples.
    name:      the task's, under which Inspect logs it.
    arguments: of `HashHop`: characters or tokens, hops, queries, mode, …

    The input is `sample.prompt`, the target `sample.completion`, and the solver plain generation.
    The scores are "accuracy", the share of queries right, and "hop_1" …, the share of hashes right
    at each hop, each with mean and standard error; a sample's score carries the whole result of
    `hashmem.hashhop.score` as its metadata.

    Raises `ImportError` without inspect-ai, and `ValueError` on samples that cannot be made.
    """
    try:
        from inspect_ai import Task
        from inspect_ai.dataset import MemoryDataset, Sample
        from inspect_ai.scorer import Score, mean, scorer, stderr
        from inspect_ai.solver import generate
    except ImportError as error:
        raise ImportError(
            f'{error}: this task needs inspect-ai, pip install "hashmem[inspect]"'
        ) from error

    samples = {
        str(seed): sample
        for seed, sample in zip(seeds, make_samples(seeds, arguments), strict=True)
    }
    asked = shared_hops(samples.values())

    def hashes_right() -> Any:
        async def mark(state: Any, target: Any) -> Any:
            reply = state.output.completion
            result = score(samples[str(state.sample_id)], reply)
            return Score(value=figures(asked, result), answer=reply, metadata=result.to_dict())

        return mark

    metrics = {figure: [mean(), stderr()] for figure in figure_names(asked)}
    return Task(
        dataset=MemoryDataset(
            [
                Sample(
                    id=seed,
                    input=sample.prompt,
                    target=sample.completion,
                    metadata=sample.metadata(),
                )
                for seed, sample in samples.items()
            ],
            name=name,
        ),
        solver=generate(),
        scorer=scorer(metrics=metrics, name=name)(hashes_right)(),
        name=name,
        version=FORMAT_VERSION,
    )
