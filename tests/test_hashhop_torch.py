"""Batches of training data in PyTorch: padding, labels, workers, and going on after a stop."""

import json
import pickle
import sys

import numpy as np
import pytest

from hashmem.hashhop import HashHop, score
from hashmem.hashhop.curriculum import Curriculum, three_stages
from hashmem.hashhop.tokens import tokenise
from hashmem.hashhop.torch_data import CurriculumDataset, collate

CURRICULUM = Curriculum(three_stages(22, hops=3, lines=(8, 12), hash_length=4), seed=1)


def encode(text):
    return list(text.encode())


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def load(torch):
    from torch.utils.data import DataLoader

    def load(workers=0, **share):
        dataset = CurriculumDataset(CURRICULUM, encode, batch_size=3, **share)
        return list(DataLoader(dataset, batch_size=None, num_workers=workers))

    return load


def same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert set(batch) == set(other)
        assert all(batch[name].equal(other[name]) for name in batch)


def test_a_batch_is_its_examples_padded(torch, load):
    found = load()
    numbers = [range(i, min(i + 3, 22)) for i in range(0, 22, 3)]
    assert len(found) == len(numbers)
    for batch, part in zip(found, numbers, strict=True):
        tokens = [tokenise(CURRICULUM[i], encode) for i in part]
        longest = max(len(one.ids) for one in tokens)
        for name in ("input_ids", "labels", "attention_mask"):
            assert batch[name].shape == (len(part), longest)
            assert batch[name].dtype == torch.int64
        for row, one in enumerate(tokens):
            ids, labels = batch["input_ids"][row].numpy(), batch["labels"][row].numpy()
            length = len(one.ids)
            assert np.array_equal(ids[:length], one.ids)
            assert not ids[length:].any()
            assert np.array_equal(labels != -100, np.pad(one.mask, (0, longest - length)))
            assert np.array_equal(labels[:length][one.mask], one.ids[one.mask])
            assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (longest - length)
            counted = bytes(labels[labels != -100].tolist()).decode()
            answers = CURRICULUM[part[row]].completion
            assert counted == "".join(answers.replace("\n", " = ").split(" = ")[1:])


def test_other_padding_changes_only_what_is_padded(load):
    for batch, other in zip(load(), load(padding=7), strict=True):
        padded = batch["attention_mask"] == 0
        assert batch["input_ids"][~padded].equal(other["input_ids"][~padded])
        assert (other["input_ids"][padded] == 7).all()
        assert batch["labels"].equal(other["labels"])


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_give_the_same_batches_in_the_same_order(load, workers):
    same(load(workers), load())


def test_processes_share_the_examples_and_start_goes_on(load):
    whole = load()
    ranks = [load(rank=rank, world_size=2) for rank in range(2)]
    same([batch for pair in zip(*ranks, strict=True) for batch in pair], whole)
    same(load(rank=1, world_size=2, start=2, workers=2), ranks[1][2:])
    same(load(rank=0, world_size=2, drop_last=True), ranks[0][:3])


def test_the_dataset_is_an_iterable_dataset(torch):
    dataset = CurriculumDataset(CURRICULUM, encode, batch_size=3)
    assert isinstance(dataset, torch.utils.data.IterableDataset)
    sent = pickle.loads(pickle.dumps(dataset))  # as to workers that are not forked
    same(list(sent), list(dataset))
    with pytest.raises(ValueError, match="at least 1 example"):
        CurriculumDataset(CURRICULUM, encode, batch_size=0)
    with pytest.raises(ValueError, match="this one is empty"):
        collate([])


@pytest.fixture(scope="module")
def training(torch):
    from bench import hashhop_training

    return hashhop_training


@pytest.mark.parametrize("asked", ["pairs", "steps", "skips"])
def test_the_benchmark_asks_so_that_a_model_can_answer(torch, training, asked):
    """A model that reads the links out of its own input is right everywhere, another nowhere."""
    sizes = {"characters": 60, "hash_length": 1, "queries": 3, **training.ASKED[asked]}
    samples = [HashHop(seed=seed, **sizes) for seed in range(5)]
    signs = list(training.VOCABULARY)

    def oracle(ids, add=0):
        logits = torch.zeros(*ids.shape, len(signs))
        for row, tokens in enumerate(ids.tolist()):
            shown = "".join(signs[i] for i in tokens)
            lines = shown[: 4 * len(samples[row])].split("\n")
            links = dict(line[:3].split("=") for line in lines if line)
            at = shown[-2]
            for _ in range((2 if asked == "skips" else 1) + add):
                at = links[at]
            logits[row, -1, training.VOCABULARY[at]] = 1
        return logits

    for add, accuracy in ((0, 1), (1, 0)):
        replies = training.reply(lambda ids, add=add: oracle(ids, add), samples)
        for sample, text in zip(samples, replies, strict=True):
            assert score(sample, text).accuracy == accuracy
            assert (text == sample.completion) == (accuracy == 1)


def test_the_benchmark_runs_and_is_rendered(training):
    from bench import render

    result = training.run(training.QUICK)
    assert json.loads(json.dumps(result))["trained"][0]["way"] == "curriculum"
    assert [(row["way"], row["steps"], row["asked"]) for row in result["trained"]] == [
        (way, steps, asked)
        for way in training.WAYS
        for steps in (2, 4, 6)
        for asked in training.ASKED
    ]
    for row in result["trained"]:
        low, high = row["interval"]
        assert 0 <= low <= row["accuracy"] <= high <= 1
        assert row["accuracy"] == sum(row["by seed"]) / len(row["by seed"])
    page = render.render([result])
    assert "## Training on HashHop" in page
    assert "last stage only" in page


def test_without_pytorch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for use in (lambda: CurriculumDataset(CURRICULUM, encode, batch_size=3), lambda: collate([])):
        with pytest.raises(ImportError, match=r'pip install "hashmem\[torch\]"'):
            use()
