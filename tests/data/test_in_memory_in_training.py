"""In-memory data as a trainer and several processes use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn

from ensemble_kd.data import InMemory, Noise, Source
from ensemble_kd.errors import UserError
from ensemble_kd.types import Batch

COUNTS = [60, 30, 30]
MakeSource = Callable[..., Any]


def rows(batches: Any) -> list[int]:
    return [row for batch in batches for row in batch.index.tolist()]


class Recorder(pl.LightningModule):
    """A linear model that notes what it is fed."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
        self.seen: dict[str, list[tuple[int, list[int]]]] = {"train": [], "val": [], "test": []}

    def _note(self, part: str, batch: Batch) -> Tensor:
        assert isinstance(batch, Batch)
        self.seen[part].append((self.current_epoch, batch.index.tolist()))
        loss = nn.functional.cross_entropy(self.network(batch.inputs), batch.target)
        self.log(f"{part}_loss", loss, on_epoch=True, batch_size=len(batch.index))
        return loss

    def training_step(self, batch: Batch, number: int) -> Tensor:
        return self._note("train", batch)

    def validation_step(self, batch: Batch, number: int) -> None:
        self._note("val", batch)

    def test_step(self, batch: Batch, number: int) -> None:
        self._note("test", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def trainer(epochs: int) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )


def fed(module: Recorder, part: str, epoch: int) -> list[int]:
    return [row for seen, batch in module.seen[part] for row in batch if seen == epoch]


@pytest.mark.parametrize("labelled", [None, 12])
def test_a_trainer_is_served_without_a_warning(held: MakeSource, labelled: int | None) -> None:
    """Warnings are errors here."""
    data = InMemory(held(COUNTS), batch_size=9, labelled=labelled, augment=Noise(0.1))
    module = Recorder()
    fitting = trainer(3)
    fitting.fit(module, datamodule=data)
    fitting.test(module, datamodule=data, verbose=False)
    assert len(module.seen["train"]) == 3 * 9
    epochs = [fed(module, "train", epoch) for epoch in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    # Each epoch is the very order that anybody can compute without a trainer.
    alone = InMemory(held(COUNTS), batch_size=9, labelled=labelled)
    for epoch, seen in enumerate(epochs):
        alone.trainer = cast(pl.Trainer, Asked(epoch))
        assert rows(alone.train_dataloader()) == seen
    assert len(fed(module, "val", 1)) == 18
    assert sorted(fed(module, "test", 3)) == rows(data.test_dataloader())


def test_a_resumed_run_sees_the_epochs_of_a_straight_one(held: MakeSource, tmp_path: Path) -> None:
    straight, first, second = Recorder(), Recorder(), Recorder()
    trainer(4).fit(straight, datamodule=InMemory(held(COUNTS), batch_size=9))
    half = trainer(2)
    half.fit(first, datamodule=InMemory(held(COUNTS), batch_size=9))
    half.save_checkpoint(tmp_path / "half.ckpt")
    trainer(4).fit(
        second,
        datamodule=InMemory(held(COUNTS), batch_size=9),
        ckpt_path=tmp_path / "half.ckpt",
        weights_only=True,
    )
    assert [batch for _, batch in straight.seen["train"]] == [
        batch for _, batch in first.seen["train"] + second.seen["train"]
    ]


class Asked:
    """As much of a trainer as the data asks for."""

    def __init__(
        self,
        current_epoch: int = 0,
        global_rank: int = 0,
        world_size: int = 1,
        accumulate_grad_batches: int = 1,
    ) -> None:
        self.current_epoch = current_epoch
        self.global_rank = global_rank
        self.world_size = world_size
        self.accumulate_grad_batches = accumulate_grad_batches


def test_processes_share_the_data(held: MakeSource) -> None:
    train, val = [], []
    for rank in range(3):
        data = InMemory(held(COUNTS), batch_size=9)
        data.trainer = cast(pl.Trainer, Asked(1, rank, 3))
        assert len(data.train_dataloader()) == 3
        train.append(rows(data.train_dataloader()))
        val.append(rows(data.val_dataloader()))
    assert len({row for share in train for row in share}) == 81
    alone = InMemory(held(COUNTS), batch_size=9)
    assert sorted(row for share in val for row in share) == rows(alone.val_dataloader())


def test_more_processes_than_samples(held: MakeSource) -> None:
    data = InMemory(held([4, 4]), batch_size=9)
    data.trainer = cast(pl.Trainer, Asked(0, 0, 8))
    with pytest.raises(UserError, match="4 training samples cannot be shared among 8 processes"):
        data.train_dataloader()


def test_a_batch_moves_to_a_device(held: MakeSource) -> None:
    data = InMemory(held(COUNTS, (1, 4, 4)), batch_size=9, labelled=12, augment=Noise(0.1), views=2)
    batch = next(iter(data.train_dataloader()))
    moved = move_data_to_device(batch, torch.device("meta"))
    assert isinstance(moved, Batch)
    assert moved.mask is not None
    parts = (moved.inputs, moved.target, moved.index, moved.mask, *moved.views)
    assert [part.device.type for part in parts] == ["meta"] * 5
    unmasked = move_data_to_device(next(iter(data.val_dataloader())), torch.device("meta"))
    assert unmasked.mask is None


def test_any_source_will_do(held: MakeSource) -> None:
    source: Source = held(COUNTS)
    assert InMemory(source).classes == 3
