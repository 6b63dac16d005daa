from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from ensemble_kd.data import Adapted
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED, Batch, labelled

X = torch.arange(40.0)[:, None].expand(-1, 3).contiguous()
Y = torch.arange(40) % 4


class Pairs(pl.LightningDataModule):
    """What a user may have written."""

    def __init__(self, target: Tensor = Y, shuffle: bool = False) -> None:
        super().__init__()
        self.target = target
        self.shuffle = shuffle
        self.calls: list[str] = []

    def prepare_data(self) -> None:
        self.calls.append("prepare")

    def setup(self, stage: str) -> None:
        self.calls.append(stage)

    def train_dataloader(self) -> Any:
        data = TensorDataset(X[:26], self.target[:26])
        return DataLoader(data, batch_size=8, shuffle=self.shuffle)

    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(X[26:], Y[26:]), batch_size=8)


class WithTest(Pairs):
    digest = "abc"
    num_classes = 9

    def test_dataloader(self) -> Any:
        return DataLoader(TensorDataset(X[:5], Y[:5]), batch_size=2)


def test_sizes_classes_and_shape_are_found() -> None:
    data = Adapted(Pairs())
    assert data.inputs == (3,)
    assert data.classes == 4
    assert not data.per_token
    assert data.sizes() == {"train": 26, "labelled": 26, "val": 14}
    tested = Adapted(WithTest())
    assert tested.classes == 9
    assert tested.sizes() == {"train": 26, "labelled": 26, "val": 14, "test": 5}


def test_classes_may_be_named() -> None:
    module = Pairs()
    module.classes = ["cat", "dog", "hen", "cow", "owl"]  # type: ignore[attr-defined]
    assert Adapted(module).classes == 5


def test_batches_have_a_running_index() -> None:
    batches = list(Adapted(Pairs()).train_dataloader())
    assert all(isinstance(batch, Batch) for batch in batches)
    assert [len(batch.target) for batch in batches] == [8, 8, 8, 2]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(26))
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), X[:26])
    assert len(Adapted(Pairs()).train_dataloader()) == 4


def test_digest_is_the_modules_own_or_a_fresh_one() -> None:
    assert Adapted(WithTest()).digest == "abc"
    data, other = Adapted(Pairs()), Adapted(Pairs())
    assert data.digest == data.digest
    assert data.digest != other.digest
    assert len(data.digest) == 64


def test_set_up_once_however_many_trainers() -> None:
    module = WithTest()
    data = Adapted(module)
    for stage in ("fit", "validate", "test", "fit", "test"):
        data.prepare_data()
        data.setup(stage)
    _ = (data.classes, data.sizes())
    assert module.calls == ["prepare", "fit", "test"]


@pytest.mark.parametrize("share", [13, 9, 3, 1])
def test_labelled_only_keeps_the_budget(share: int) -> None:
    target = torch.where(torch.arange(40) % 13 < share, Y, UNLABELLED)
    module = Pairs(target)
    data = Adapted(module)
    known = [row for row in range(26) if row % 13 < share]
    assert data.sizes()["labelled"] == len(known)
    data.labelled_only = True
    batches = list(data.train_dataloader())
    assert len(batches) == 4
    if share == 13:
        assert [len(batch.target) for batch in batches] == [8, 8, 8, 2]
        return
    assert [len(batch.target) for batch in batches] == [8] * 4
    seen = torch.cat([batch.index for batch in batches]).tolist()
    # The loader does not shuffle: its labelled samples come round and round in order.
    assert seen == (known * 32)[:32]
    for batch in batches:
        assert torch.equal(batch.target, Y[batch.index])
        assert torch.equal(batch.inputs, X[batch.index])
        assert labelled(batch).all()


def test_labelled_only_without_any_label() -> None:
    data = Adapted(Pairs(torch.full((40,), UNLABELLED)), labelled_only=True)
    with pytest.raises(UserError, match="labelled_only needs labelled samples, got none"):
        list(data.train_dataloader())


def test_labels_in_validation_alone_are_enough_to_count_classes() -> None:
    assert Adapted(Pairs(torch.full((40,), UNLABELLED))).classes == 4


class Views(Pairs):
    def train_dataloader(self) -> Any:
        return [Batch(X[:4], Y[:4], torch.arange(4), None, (X[:4],))].__iter__()


def test_views_must_be_the_users_own() -> None:
    data = Adapted(Pairs(), views=2)
    with pytest.raises(UserError, match=r"asks for 2 augmentations of each sample.*got 0"):
        next(iter(data.train_dataloader()))
    assert len(next(iter(Adapted(Views(), views=2).train_dataloader())).views) == 1
    # Validation is not augmented.
    assert len(list(data.val_dataloader())) == 2


class Endless(Pairs):
    """Its loader is a plain iterable without a length."""

    def train_dataloader(self) -> Any:
        class Stream:
            def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
                yield X[:4], Y[:4]

        return Stream()


def test_a_loader_without_length() -> None:
    loader = Adapted(Endless()).train_dataloader()
    assert len(list(loader)) == 1
    with pytest.raises(TypeError, match="has no length"):
        len(loader)


def test_no_test_dataloader() -> None:
    with pytest.raises(UserError, match=r"Pairs has no test_dataloader\(\); write one"):
        Adapted(Pairs()).test_dataloader()


class Several(Pairs):
    def val_dataloader(self) -> Any:
        return [super().val_dataloader()] * 2


class Empty(Pairs):
    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(X[:0], Y[:0]))


class Mapped(Pairs):
    def train_dataloader(self) -> Any:
        return [{"ids": X[:8], "length": Y[:8], "label": Y[:8]}].__iter__()


class Moving(Pairs):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


def test_modules_that_do_not_fit() -> None:
    with pytest.raises(UserError, match=r"Several.val_dataloader\(\) must return one dataloader"):
        Adapted(Several()).val_dataloader()
    with pytest.raises(UserError, match=r"Empty must yield .* got 26 and 0 samples"):
        _ = Adapted(Empty()).classes
    with pytest.raises(UserError, match="inputs of type dict have no one shape"):
        _ = Adapted(Mapped()).inputs
    with pytest.raises(ValueError, match="must not override on_after_batch_transfer"):
        Adapted(Moving())
    with pytest.raises(ValueError, match="data must be a LightningDataModule, got int"):
        Adapted(cast(pl.LightningDataModule, 3))


class Asked:
    """As much of a trainer as the data asks for."""

    def __init__(self, current_epoch: int, world_size: int) -> None:
        self.current_epoch = current_epoch
        self.global_rank = 0
        self.world_size = world_size


class Distributed(Pairs):
    def train_dataloader(self) -> Any:
        data = TensorDataset(X, Y)
        sampler: DistributedSampler[Any] = DistributedSampler(data, num_replicas=2, rank=0, seed=1)
        return DataLoader(data, batch_size=8, sampler=sampler)


def test_several_processes_need_a_distributed_sampler() -> None:
    data = Adapted(Pairs())
    data.trainer = cast(pl.Trainer, Asked(0, 2))
    with pytest.raises(UserError, match=r"with 2 processes, .* DistributedSampler, got Sequential"):
        iter(data.train_dataloader())
    shared = Adapted(Distributed())
    epochs = []
    for epoch in (0, 1, 0):
        shared.trainer = cast(pl.Trainer, Asked(epoch, 2))
        epochs.append(torch.cat([batch.inputs for batch in shared.train_dataloader()]))
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])


class Linear(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(3, 4)
        self.steps: list[str] = []

    def training_step(self, batch: Batch, number: int) -> Tensor:
        self.steps.append("train")
        assert isinstance(batch, Batch)
        return nn.functional.cross_entropy(self.network(batch.inputs), batch.target)

    def validation_step(self, batch: Batch, number: int) -> None:
        self.steps.append("val")

    def test_step(self, batch: Batch, number: int) -> None:
        self.steps.append("test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-4)


def test_under_a_trainer() -> None:
    module, data = Linear(), Adapted(WithTest())
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    assert module.steps == (["train"] * 4 + ["val"] * 2) * 2 + ["test"] * 3


def test_what_the_module_says_of_itself() -> None:
    module = Pairs()
    with pytest.raises(UserError, match=r"Pairs has no identities\(\); write one that returns"):
        Adapted(module).identities()
    ids, numbers = np.array(["a", "b"]), np.arange(2)
    module.identities = lambda: (ids, numbers)  # type: ignore[attr-defined]
    module.mean, module.std = 0.5, (0.1, 0.2)  # type: ignore[attr-defined]
    data = Adapted(module)
    assert data.identities() == (ids, numbers)
    assert (data.mean, data.std) == (0.5, (0.1, 0.2))
