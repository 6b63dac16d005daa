"""Steps of several batches of texts, on one process or on several: means as of one batch."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.data import InMemory, WordPiece
from ensemble_kd.objectives import Objective, Term
from ensemble_kd.types import Batch, Output, Progress

Make = Callable[..., Any]


KIND = WordPiece(120, min_frequency=1)


def opened(source: Any, **settings: Any) -> InMemory:
    return InMemory(source, **{"batch_size": 8, "tokenizer": KIND, **settings})


def asked(accumulated: int = 1, rank: int = 0, world: int = 1) -> Any:
    return SimpleNamespace(
        current_epoch=0, global_rank=rank, world_size=world, accumulate_grad_batches=accumulated
    )


class Sine(Objective):
    """The student's only logit: of each token, or its mean over the tokens of each text."""

    needs_teachers = False

    def __init__(self, needs_labels: bool = False, whole: bool = False) -> None:
        super().__init__()
        self.needs_labels = needs_labels
        self.whole = whole

    def forward(self, student: Output, *_: Any) -> Tensor:
        values = student.logits[..., 0]
        return values.mean(dim=1) if self.whole else values


def loss(objective: Objective, batch: Batch) -> float:
    """Of a term, times what the batch counts for."""
    said = Output(torch.sin(batch.inputs.ids.double())[..., None])
    weights = torch.empty(0, *batch.target.shape)
    found = Term(objective)(said, (), weights, batch, Progress(0, 0, 0.0))
    return float(found) * (1.0 if batch.weight is None else batch.weight)


@pytest.mark.parametrize(("world", "accumulated"), [(1, 3), (2, 1), (2, 2)])
@pytest.mark.parametrize("labelled", [None, 12])
@pytest.mark.parametrize(
    "objective",
    [Sine(needs_labels=True), Sine(), Sine(whole=True)],
    ids=["labelled words", "words", "texts"],
)
def test_parts_of_a_step_are_one_batch(
    tagged: Make, world: int, accumulated: int, labelled: int | None, objective: Objective
) -> None:
    """Means over labelled words, over all words and over texts, of all texts of a step."""
    parts = world * accumulated
    large = opened(tagged(100), batch_size=4 * parts, labelled=labelled)
    ranks = []
    for rank in range(world):
        data = opened(tagged(100), batch_size=4, labelled=labelled)
        data.trainer = asked(accumulated, rank, world)
        ranks.append(list(data.train_dataloader()))
    for number, whole in enumerate(large.train_dataloader()):
        found = [
            loss(objective, batch)
            for batches in ranks
            for batch in batches[number * accumulated : (number + 1) * accumulated]
        ]
        assert len(found) == parts
        assert sum(found) / parts == pytest.approx(loss(objective, whole), rel=1e-9)


def test_a_last_step_of_fewer_texts_is_one_batch(tagged: Make) -> None:
    data, large = (opened(tagged(61), batch_size=size, drop_last=False) for size in (4, 12))
    data.trainer = asked(accumulated=3)
    small = list(data.train_dataloader())
    *_, last = large.train_dataloader()
    rest = small[3 * (len(large.train_dataloader()) - 1) :]
    assert len({len(batch.index) for batch in rest}) > 1 or len(rest) < 3
    for objective in (Sine(needs_labels=True), Sine(), Sine(whole=True)):
        found = sum(loss(objective, batch) for batch in rest) / 3
        assert found == pytest.approx(loss(objective, last), rel=1e-9)
