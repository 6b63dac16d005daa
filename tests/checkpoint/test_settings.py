"""Whatever trainer, data and teachers are asked for, a stage goes on to the same bits."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ensemble_kd.checkpoint import checkpointing
from ensemble_kd.config import compose
from ensemble_kd.errors import UserError
from ensemble_kd.plan import make_plan
from ensemble_kd.teachers import Keeping

SHORT = (
    *("epochs=2", "teacher.epochs=1", "batch_size=16", "+trainer.limit_train_batches=3"),
    *("+trainer.limit_val_batches=1", "controls=[]", "teacher.members=[cnn_tiny,cnn_tiny]"),
)
DROPPED = "student.dropout=0.5"
"""It draws from the global generator in every step."""

FIVE = "trainer.limit_train_batches=5"


@pytest.mark.filterwarnings("ignore:.*limit_val_batches")
@pytest.mark.parametrize(
    "settings",
    [
        (DROPPED,),
        (DROPPED, "select=best", "epochs=3"),
        ("trainer.precision=16-mixed", DROPPED),
        ("trainer.accumulate_grad_batches=2", "objective=crd", FIVE),
        (
            "trainer.accumulate_grad_batches=2",
            "strategy=codistillation",
            "strategy.burn_in=1",
            FIVE,
        ),
        ("optimizer=sgd", "optimizer.clip=1", "strategy=adversarial", DROPPED),
        ("+trainer.val_check_interval=1", "strategy=kdcl", "strategy.target=general"),
        ("trainer.check_val_every_n_epoch=2", "epochs=3"),
        ("+trainer.max_steps=5", DROPPED),
        ("teacher.runtime=fast", "cache=off"),
        ("strategy=annealing", DROPPED),
    ],
    ids=lambda settings: ",".join(settings),
)
def test_it_goes_on(settings: tuple[str, ...], goes_on: Callable[..., None]) -> None:
    goes_on(make_plan(compose([*SHORT, *settings])))


@pytest.mark.filterwarnings("ignore:.*limit_val_batches")
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_it_goes_on_under_kept_answers(where: str, goes_on: Callable[..., None]) -> None:
    varied = "data.augment=[{_target_: ensemble_kd.data.Noise, std: 0.1}]"
    plan = make_plan(compose([*SHORT, varied, "data.cycle=2", "epochs=3"]))
    goes_on(plan, keeping=Keeping(where))  # type: ignore[arg-type]


def test_workers_begin_in_the_middle_of_an_epoch(goes_on: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    for number in range(90):
        path = Path("images", str(number % 3), f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    data = ("data=image_folder", "data.path=images", "data.workers=1", "data.keep=off")
    goes_on(make_plan(compose([*SHORT[:-3], *SHORT[-2:], *data])))


@pytest.mark.filterwarnings("ignore:.*limit_val_batches")
def test_between_epochs_only(goes_on: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "SPARE", 0.0)
    goes_on(make_plan(compose([*SHORT, "epochs=3", DROPPED])), after=5, every_n_steps=None)


class Shaken(Dataset[tuple[Tensor, Tensor]]):
    """Samples that look otherwise whenever they are read, by three generators."""

    def __len__(self) -> int:
        return 48

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        drawn = random.random() + np.random.random() + float(torch.rand(()))  # noqa: NPY002
        return torch.full((4,), number % 3 + drawn), torch.tensor(number % 3)


class Own(LightningDataModule):
    """A user's module, whose order comes from the global generator or from one of its own."""

    def __init__(self, own_generator: bool, workers: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(3) if own_generator else None
        self.workers = workers
        self.digest = f"shaken, {own_generator}, {workers}"
        samples = torch.arange(24)
        self.held_out = TensorDataset(samples[:, None].expand(24, 4).float(), samples % 3)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(
            Shaken(), 12, shuffle=True, generator=self.generator, num_workers=self.workers
        )

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.held_out, 12)


@pytest.mark.parametrize(("own_generator", "workers"), [(False, 0), (True, 0), (False, 1)])
@pytest.mark.filterwarnings("ignore:.*os.fork:DeprecationWarning")
def test_a_loader_of_the_users_own(
    own_generator: bool, workers: int, goes_on: Callable[..., None]
) -> None:
    alone = ("strategy=mutual", "strategy.taught=false", "teacher=none", "controls=[]")
    config = compose(["epochs=3", "student=mlp_small", "student.dropout=0.5", *alone])
    goes_on(lambda: make_plan(config, Own(own_generator, workers)), after=3)


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "true", "often"])
def test_how_often_is_a_number_of_steps(given: str) -> None:
    line = r"^checkpoint\.every_n_steps: expected an integer >= 1 or null, got .*$"
    with pytest.raises(UserError, match=line):
        make_plan(compose([*SHORT, f"checkpoint.every_n_steps={given}"]))


def test_how_often_decides_no_weights() -> None:
    (first, *_), (second, *_) = (
        make_plan(compose([*SHORT, f"checkpoint.every_n_steps={given}"])).stages
        for given in ("null", "7")
    )
    assert first.digest({}) == second.digest({})
