from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from ensemble_kd.descent import Descent
from ensemble_kd.errors import UserError
from ensemble_kd.module import DistillationModule
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.schedules import Cosine
from ensemble_kd.strategies import Mutual, Parallel, Strategy
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import Batch, Progress, Turn
from ensemble_kd.weightings import Uniform

CLASSES = 3


class Loader:
    """Four fixed batches of twelve samples.

    Args:
        labelled: how many of the first samples of each batch have a label; all if not given.
    """

    def __init__(self, labelled: Sequence[int] = ()) -> None:
        self.labelled = tuple(labelled)

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[Batch]:
        for number in range(len(self)):
            generator = torch.Generator().manual_seed(number)
            inputs = torch.randn(12, 5, generator=generator)
            target = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
            mask = torch.arange(12) < self.labelled[number] if self.labelled else None
            yield Batch(inputs, target, torch.arange(12) + 12 * number, mask)


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))


def terms() -> dict[str, Term]:
    return {"label": Term(Label()), "soft": Term(Soft(temperature=2.0))}


def descent(clip: float | None = None) -> Descent:
    return Descent(0.05, functools.partial(torch.optim.Adam), Cosine(warmup=0.1), clip)


def fit(
    module: LightningModule, epochs: int = 3, held_out: Loader | None = None, **settings: Any
) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )
    trainer.fit(module, train_dataloaders=Loader(), val_dataloaders=held_out or Loader())
    return trainer


def distilled(strategy: Strategy, clip: float | None = None, **settings: Any) -> DistillationModule:
    teachers = Ensemble([Frozen(network(10)), Frozen(network(11))])
    optimizers = {"default": descent(clip)}
    module = DistillationModule(network(0), teachers, strategy, optimizers, CLASSES)
    fit(module, **settings)
    return module


class TwoPlayers(Strategy):
    """Parallel learning, with a second player who never has a turn: the manual mode."""

    def __init__(self, inner: Parallel) -> None:
        super().__init__()
        self.inner = inner
        self.spare = nn.Parameter(torch.zeros(1))

    def players(self, student: nn.Module) -> dict[str, list[nn.Parameter]]:
        return {"student": list(student.parameters()), "spare": [self.spare]}

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        return self.inner.turns(student, teachers, batch, progress)


@pytest.mark.parametrize("clip", [None, 0.01])
def test_automatic_and_manual_mode_give_bit_identical_weights(clip: float | None) -> None:
    automatic = distilled(Parallel(terms(), Uniform()), clip)
    manual = distilled(TwoPlayers(Parallel(terms(), Uniform())), clip)
    assert automatic.automatic_optimization
    assert not manual.automatic_optimization
    for name, weights in automatic.student.state_dict().items():
        assert torch.equal(weights, manual.student.state_dict()[name]), name


def test_clipping_changes_the_weights() -> None:
    free = distilled(Parallel(terms(), Uniform()))
    clipped = distilled(Parallel(terms(), Uniform()), clip=0.01)
    assert not torch.equal(free.student[0].weight, clipped.student[0].weight)  # type: ignore[index]


def test_same_seed_same_student() -> None:
    first, second = (distilled(Mutual([network(1)], terms(), Uniform())) for _ in range(2))
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, second.state_dict()[name]), name


@pytest.mark.parametrize("update", ["simultaneous", "sequential"])
def test_teachers_are_bit_equal_after_training(update: Any) -> None:
    teachers = [network(10), network(11)]
    before = copy.deepcopy([teacher.state_dict() for teacher in teachers])
    strategy = Mutual([network(1)], terms(), Uniform(), update)
    ensemble = Ensemble([Frozen(teacher) for teacher in teachers])
    fit(DistillationModule(network(0), ensemble, strategy, {"default": descent()}, CLASSES))
    for teacher, state in zip(teachers, before, strict=True):
        assert not teacher.training
        for name, value in state.items():
            assert torch.equal(teacher.state_dict()[name], value), name


def test_checkpoints_hold_no_teacher(tmp_path: Path) -> None:
    teachers = Ensemble([Frozen(network(10))])
    strategy = Parallel(terms(), Uniform())
    module = DistillationModule(network(0), teachers, strategy, {"default": descent()}, CLASSES)
    trainer = fit(module)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"student"}
    assert checkpoint["steps_taken"] == 12


def test_progress_counts_batches_whatever_the_number_of_players() -> None:
    seen: list[Progress] = []

    class Watching(Parallel):
        def turns(
            self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
        ) -> Iterator[Turn]:
            seen.append(progress)
            return super().turns(student, teachers, batch, progress)

    distilled(Watching(terms(), Uniform()), epochs=2)
    assert [p.step for p in seen] == list(range(8))
    assert [p.epoch for p in seen] == [0] * 4 + [1] * 4
    assert [p.fraction for p in seen] == [step / 8 for step in range(8)]


def test_code_after_the_last_yield_sees_the_stepped_weights() -> None:
    moved: list[bool] = []

    class After(Parallel):
        def turns(
            self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
        ) -> Iterator[Turn]:
            before = copy.deepcopy(student.state_dict())
            yield from super().turns(student, teachers, batch, progress)
            moved.append(not torch.equal(before["0.weight"], student.state_dict()["0.weight"]))

    distilled(After(terms(), Uniform()), epochs=2)
    # The warm-up starts at zero, so the first step does not move.
    assert moved == [False] + [True] * 7


def test_a_second_turn_of_a_single_player_is_an_error() -> None:
    class Twice(Parallel):
        def turns(
            self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
        ) -> Iterator[Turn]:
            yield from super().turns(student, teachers, batch, progress)
            yield from super().turns(student, teachers, batch, progress)

    with pytest.raises(UserError, match="second turn"):
        distilled(Twice(terms(), Uniform()))


def test_each_term_is_logged_once_an_epoch_as_its_mean() -> None:
    rows: list[dict[str, float]] = []

    class Rows(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            rows.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    distilled(Mutual([network(1)], terms(), Uniform()), callbacks=[Rows()])
    assert len(rows) == 3
    assert set(rows[-1]) == {
        "student/label",
        "student/soft",
        "peer/1/label",
        "peer/1/soft",
        "student/val_accuracy",
        "peer/1/val_accuracy",
    }
    assert rows[-1]["student/label"] < rows[0]["student/label"]


@pytest.mark.parametrize("labelled", [(12, 0, 5, 0), (0, 0, 0, 0)])
def test_validation_counts_labelled_samples_only(labelled: Sequence[int]) -> None:
    student = network(0)
    alone = Parallel({"label": Term(Label())}, Uniform())
    module = DistillationModule(student, Ensemble(), alone, {"default": descent()}, CLASSES)
    found = fit(module, epochs=1, held_out=Loader(labelled)).callback_metrics
    student.eval()
    right = [
        (student(batch.inputs).argmax(-1) == batch.target)[:count]
        for batch, count in zip(Loader(), labelled, strict=True)
    ]
    expected = float(torch.cat(right).float().mean()) if sum(labelled) else 0.0
    assert float(found["student/val_accuracy"]) == pytest.approx(expected)


def test_a_loss_that_is_not_finite_names_its_term() -> None:
    class Broken(Loader):
        def __iter__(self) -> Iterator[Batch]:
            for batch in super().__iter__():
                yield batch._replace(inputs=batch.inputs * float("nan"))

    teachers = Ensemble([Frozen(network(10))])
    strategy = Parallel(terms(), Uniform())
    module = DistillationModule(network(0), teachers, strategy, {"default": descent()}, CLASSES)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.raises(UserError, match=r"student/label.*nan"):
        trainer.fit(module, train_dataloaders=Broken(), val_dataloaders=Broken())


def test_an_unknown_player_is_refused() -> None:
    optimizers = {"default": descent(), "critic": descent()}
    with pytest.raises(UserError, match="critic"):
        DistillationModule(
            network(0), Ensemble(), Parallel(terms(), Uniform()), optimizers, CLASSES
        )
