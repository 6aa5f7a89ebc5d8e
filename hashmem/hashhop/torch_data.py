"""A curriculum's examples as batches for PyTorch (extra `torch`).

Batches are numbered over all processes: at its step t, process `rank` of `world_size` takes batch
t · world_size + rank, and of the steps worker w of n makes w, w + n, …, the order in which a
`DataLoader` asks its workers. So batches come in the curriculum's order whatever the number of
workers, no example is given twice, and `start=t` goes on exactly where t steps have been taken.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np

from hashmem.hashhop.curriculum import Curriculum
from hashmem.hashhop.tokens import Encode, Tokens, tokenise

IGNORED = -100  # the label that PyTorch's cross entropy leaves out


def batches(
    examples: int | None,
    batch_size: int,
    *,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    worker: int = 0,
    workers: int = 1,
    drop_last: bool = False,
) -> Iterator[range]:
    """Yield the numbers of the examples in each batch of one worker of one process.

    examples:  how many there are; None: without end.
    start:     steps of a process that are left out, as taken before.
    drop_last: leave out a last step in which not every process has a whole batch.

    Raises `ValueError` on counts below 1, and on a rank or worker that is not below their number.
    """
    if batch_size < 1 or start < 0:
        raise ValueError(
            f"a batch holds at least 1 example and steps are numbered from 0: not {batch_size} "
            f"examples from step {start}"
        )
    for one, number, what in ((rank, world_size, "rank"), (worker, workers, "worker")):
        if not 0 <= one < number:
            raise ValueError(f"{what} {one} of {number}: they are numbered from 0")
    for step in count(start + worker, workers):
        first = (step * world_size + rank) * batch_size
        if examples is None:
            yield range(first, first + batch_size)
            continue
        if first >= examples or (drop_last and (step + 1) * world_size * batch_size > examples):
            return
        yield range(first, min(first + batch_size, examples))


class CurriculumDataset:
    """A `torch.utils.data.IterableDataset` of the batches of `curriculum`, padded tensors.

        dataset = CurriculumDataset(curriculum, encode, batch_size=32)
        for batch in DataLoader(dataset, batch_size=None, num_workers=4): …

    It makes the batches itself, hence `batch_size=None` in the `DataLoader`.

    encode:           text → token ids, as in `hashmem.hashhop.tokens`.
    start:            the number of steps that this process has taken before.
    rank, world_size: which of how many training processes this one is.
    drop_last:        leave out a last step in which not every process has a whole batch: where
                      processes wait for each other, all must take the same number of steps.
    padding:          the id that fills up shorter examples.

    Each batch is what `collate` returns. Raises `ImportError` without PyTorch.
    """

    def __init__(
        self,
        curriculum: Curriculum,
        encode: Encode,
        *,
        batch_size: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        padding: int = 0,
    ) -> None:
        # A virtual subclass: DataLoader asks only isinstance, and this module needs no PyTorch.
        _import_torch().utils.data.IterableDataset.register(CurriculumDataset)
        self.curriculum = curriculum
        self.encode = encode
        self.padding = padding
        self._share: dict[str, Any] = {
            "examples": curriculum.examples,
            "batch_size": batch_size,
            "start": start,
            "rank": rank,
            "world_size": world_size,
            "drop_last": drop_last,
        }
        next(batches(**self._share), None)  # says now what is wrong, not in a worker

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield this worker's batches."""
        info = _import_torch().utils.data.get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        for numbers in batches(**self._share, worker=worker, workers=workers):
            examples = (self.curriculum[i] for i in numbers)
            yield collate([tokenise(e, self.encode) for e in examples], self.padding)


def collate(examples: Sequence[Tokens], padding: int = 0) -> dict[str, Any]:
    """Return tensors of a batch, each int64 (examples, longest), filled up at the end.

    input_ids:      the tokens, then `padding`.
    labels:         the tokens that count, −100 elsewhere. They stand at their own places: a model
                    predicts label t from the tokens before t, as those of `transformers` do.
    attention_mask: 1 where there is a token.

    Raises `ImportError` without PyTorch and `ValueError` without examples.
    """
    torch = _import_torch()
    if not examples:
        raise ValueError("a batch holds at least 1 example, and this one is empty")
    shape = len(examples), max(len(e.ids) for e in examples)
    ids, labels = np.full(shape, padding, np.int64), np.full(shape, IGNORED, np.int64)
    attended = np.zeros(shape, np.int64)
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, :length] = example.ids
        labels[row, :length] = np.where(example.mask, example.ids, IGNORED)
        attended[row, :length] = 1
    return {
        "input_ids": torch.from_numpy(ids),
        "labels": torch.from_numpy(labels),
        "attention_mask": torch.from_numpy(attended),
    }


def _import_torch() -> Any:
    try:
        import torch
        import torch.utils.data
    except ImportError as error:
        raise ImportError(
            f'{error}: batches of tensors need PyTorch, pip install "hashmem[torch]"'
        ) from error
    return torch
