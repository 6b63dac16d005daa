from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ensemble_kd.build import build
from ensemble_kd.config import compose, plain
from ensemble_kd.data import InMemory, Tasks, WordPiece
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED


def opened(*overrides: str) -> Any:
    config = compose(["strategy=multi_task", *overrides])
    return build(plain(config.data, "data"), "data")


@pytest.fixture
def tasks() -> Any:
    return opened("data.samples.labelled=300")


def test_every_sample_comes_once_for_each_task(tasks: Any) -> None:
    alone = next(iter(tasks.samples.train_dataloader()))
    batch = next(iter(tasks.train_dataloader()))
    assert len(batch.target) == 2 * len(alone.target)
    assert batch.inputs.task.tolist() == [0, 1] * len(alone.target)
    for task in (0, 1):
        assert torch.equal(batch.inputs.inputs[task::2], alone.inputs)
        assert torch.equal(batch.mask[task::2], alone.mask)
        assert torch.equal(batch.index[task::2], 2 * alone.index + task)
    known = alone.mask
    assert known.any()
    assert not known.all()
    assert torch.equal(batch.target[0::2][known], alone.target[known])
    assert torch.equal(batch.target[1::2][known], 10 + alone.target[known] % 2)
    assert (batch.target[0::2][~known] == UNLABELLED).all()
    assert (batch.target[1::2][~known] == UNLABELLED).all()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_no_index_comes_twice(tasks: Any, split: str) -> None:
    batches = getattr(tasks, f"{split}_dataloader")()
    index = torch.cat([batch.index for batch in batches])
    alone = torch.cat([b.index for b in getattr(tasks.samples, f"{split}_dataloader")()])
    assert sorted(index.tolist()) == sorted([*(2 * alone).tolist(), *(2 * alone + 1).tolist()])
    assert len(set(index.tolist())) == len(index)
    assert len(batches) == sum(1 for _ in batches)


def test_views_and_labelled_samples_are_those_of_the_data(tasks: Any) -> None:
    tasks.views, tasks.labelled_only = 3, True
    assert (tasks.samples.views, tasks.views) == (3, 3)
    assert tasks.samples.labelled_only
    assert tasks.labelled_only
    batch = next(iter(tasks.train_dataloader()))
    assert batch.mask is None or batch.mask.all()
    assert len(batch.views) == 2
    for view in batch.views:
        assert torch.equal(view.task, batch.inputs.task)
        assert torch.equal(view.inputs[0::2], view.inputs[1::2])
        assert not torch.equal(view.inputs, batch.inputs.inputs)


def test_sizes_are_those_of_all_tasks(tasks: Any) -> None:
    assert tasks.inputs == (1, 8, 8)
    assert tasks.classes == 12
    assert tasks.sizes() == {part: 2 * n for part, n in tasks.samples.sizes().items()}


def test_the_digest_is_that_of_the_data_and_the_tasks(tasks: Any) -> None:
    same = opened("data.samples.labelled=300")
    other_data = opened("data.samples.labelled=200")
    other_tasks = opened("data.samples.labelled=300", "data.tasks.parity=[1,0,1,0,1,0,1,0,1,0]")
    digests = {tasks.digest, other_data.digest, other_tasks.digest, tasks.samples.digest}
    assert tasks.digest == same.digest
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ({}, "tasks must hold at least one task, got none"),
        ({"a": [0, 0]}, r"tasks\.a must use the classes 0, 1 .* got \[0, 0\]"),
        ({"a": [0, 2]}, r"tasks\.a must use the classes 0, 1 .* none left out, got \[0, 2\]"),
    ],
)
def test_tasks_without_classes_are_refused(tasks: dict[str, list[int]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Tasks(opened().samples, tasks)


def test_a_task_that_does_not_name_every_class_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.tasks\.parity: .* each of 10 classes .* got 3"):
        opened("data.tasks.parity=[0,1,0]").setup()


def text_tasks(source: Any) -> Tasks:
    samples = InMemory(source, 8, tokenizer=WordPiece(120), labelled=12)
    return Tasks(samples, {"same": [0, 1, 2], "low": [0, 1, 1]})


def test_texts_come_once_for_each_task(said: Callable[..., Any]) -> None:
    tasks = text_tasks(said(60))
    assert tasks.mean is tasks.std is None
    alone = next(iter(tasks.samples.train_dataloader()))
    batch = next(iter(tasks.train_dataloader()))
    for task in (0, 1):
        for mine, other in zip(batch.inputs.inputs, alone.inputs, strict=True):
            assert torch.equal(mine[task::2], other)


def test_tasks_are_of_whole_samples(tagged: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"data\.tasks: expected one class for each sample"):
        text_tasks(tagged(60)).setup()
