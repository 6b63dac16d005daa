"""An optimiser step of several small batches, or of several processes, is that of a large batch."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from ensemble_kd.config import compose, plain
from ensemble_kd.data import InMemory, Noise, Parts, Samples
from ensemble_kd.descent import Descent
from ensemble_kd.fitting import fit, make_trainer
from ensemble_kd.module import DistillationModule
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.schedules import Constant, Cosine, Linear
from ensemble_kd.strategies import Codistillation, Parallel, PeerCollaborative, Rocket, Strategy
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import Batch, Progress, Turn
from ensemble_kd.weightings import Dropped, Random, Uniform

CLASSES = 3
SIZE = 16


class Drawn:
    """Three classes of vectors, 128 of them; 90 are there to learn from."""

    mean = 0.0
    std = 1.0

    def load(self) -> Parts:
        rng = np.random.default_rng(0)
        labels = np.arange(128) % CLASSES
        inputs = rng.normal(size=(128, 6)) + labels[:, None]
        return Parts(Samples(inputs.astype(np.float32), labels), None, CLASSES)


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES))


def terms() -> dict[str, Term]:
    return {
        "label": Term(Label(), 0.5, Linear(1.0, 0.2)),
        "soft": Term(Soft(temperature=2.0), 0.5, Linear(0.2, 1.0)),
    }


def served(accumulated: int, **settings: Any) -> InMemory:
    settings = {"labelled": 20, "augment": Noise(0.3), **settings}
    return InMemory(cast(Any, Drawn()), batch_size=SIZE // accumulated, seed=3, **settings)


class Logged(Callback):
    """The means of each epoch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rows.append({name: float(mean) for name, mean in trainer.callback_metrics.items()})


def trained(
    strategy: Strategy, accumulated: int, clip: float | None = None, **settings: Any
) -> tuple[DistillationModule, list[dict[str, float]]]:
    """A student that saw steps of 16 samples, in so many batches each, and its curves."""
    student = network(0)
    torch.manual_seed(0)
    strategy.meet(student)
    teachers = Ensemble([Frozen(network(10)), Frozen(network(11))])
    strategy.begin(student, teachers)
    optimizer = functools.partial(torch.optim.SGD, momentum=0.9)
    descent = Descent(0.2, optimizer, Cosine(warmup=0.1), clip)
    module = DistillationModule(student, teachers, strategy, {"default": descent}, CLASSES)
    logged = Logged()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        callbacks=[logged],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accumulate_grad_batches=accumulated,
    )
    fit(trainer, module, served(accumulated, views=strategy.views, **settings), "student")
    return module, logged.rows


def apart(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of two networks' weights."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def check_alike(make: Any, accumulated: int, **settings: Any) -> None:
    large, large_rows = trained(make(), 1, **settings)
    small, small_rows = trained(make(), accumulated, **settings)
    assert apart(large, small) < 2e-5
    assert apart(large.student, network(0)) > 0.1
    assert large.steps_taken == small.steps_taken > 0
    for one, other in zip(large_rows, small_rows, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"drop_last": False},
        {"drop_last": False, "labelled": None},
        {"labelled": 4},
        {"labelled_only": True},
        {"cycle": 2, "drop_last": False},
        {"clip": 0.1},
    ],
)
def test_accumulated_batches_are_a_large_batch(settings: dict[str, Any]) -> None:
    check_alike(lambda: Parallel(terms(), Uniform()), 4, **settings)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Parallel(terms(), Random(seed=1)),
        lambda: Parallel(terms(), Dropped(0.5, per="sample", seed=1)),
        lambda: PeerCollaborative([network(1)], terms(), Uniform(), decay=0.9),
        lambda: Codistillation(
            [network(1)], terms(), Uniform(), burn_in=3, exchange=2, partition="same"
        ),
        lambda: Rocket(network(1), terms(), Uniform(), [6]),
    ],
    ids=["random", "dropped", "peer_collaborative", "codistillation", "rocket"],
)
def test_every_part_counts_steps_and_not_batches(make: Any) -> None:
    check_alike(make, 2, drop_last=False)


def test_fewer_samples_than_a_step_are_one_small_step() -> None:
    for accumulated, sizes in ((1, [11]), (4, [4, 4, 3])):
        data = served(accumulated, labelled=None, val_share=0.5, test_share=0.415)
        data.trainer = asking(accumulated)
        assert [len(batch.index) for batch in data.train_dataloader()] == sizes


def asking(accumulated: int = 1, rank: int = 0, world: int = 1) -> Any:
    """As much of a trainer as the data asks for."""
    return SimpleNamespace(
        current_epoch=0,
        global_rank=rank,
        world_size=world,
        accumulate_grad_batches=accumulated,
    )


def gradients(batch: Batch) -> tuple[Tensor, ...]:
    """Of both terms on one batch, as a trainer has them before it averages."""
    student = network(0)
    said = Parallel(terms(), Uniform()).turns(
        student, Ensemble([Frozen(network(10))]), batch, Progress(0, 0, 0.0)
    )
    loss = torch.stack(list(next(said).terms.values())).sum()
    factor = 1.0 if batch.weight is None else batch.weight
    return torch.autograd.grad(loss * factor, list(student.parameters()))


@pytest.mark.parametrize(("world", "accumulated"), [(2, 1), (4, 1), (2, 2)])
@pytest.mark.parametrize("drop_last", [True, False])
def test_processes_average_to_the_gradient_of_a_large_batch(
    world: int, accumulated: int, drop_last: bool
) -> None:
    parts = world * accumulated
    alone = served(1, drop_last=drop_last)
    alone.trainer = asking()
    ranks = []
    for rank in range(world):
        data = served(parts, drop_last=drop_last)
        data.trainer = asking(accumulated, rank, world)
        ranks.append(list(data.train_dataloader()))
    if world == 4 and not drop_last:
        # What the processes cannot share equally is left out: the last step is another.
        ranks = [batches[: 5 * accumulated] for batches in ranks]
    for number, large in enumerate(alone.train_dataloader()):
        own = [
            gradients(batch)
            for batches in ranks
            for batch in batches[number * accumulated : (number + 1) * accumulated]
        ]
        if not own:
            break
        for expected, *found in zip(gradients(large), *own, strict=True):
            torch.testing.assert_close(sum(found) / parts, expected, atol=1e-6, rtol=1e-5)


def test_a_plain_batch_carries_no_numbers_of_a_step() -> None:
    data = served(1)
    data.trainer = asking()
    assert all(batch.labels is batch.weight is None for batch in data.train_dataloader())
    data.trainer = asking(2)
    assert all(batch.labels is None for batch in data.val_dataloader())


def test_batches_of_one_step_share_its_progress_and_end_it_once() -> None:
    seen: list[Progress] = []
    ended: list[bool] = []

    class Watching(Parallel):
        def turns(
            self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
        ) -> Iterator[Turn]:
            seen.append(progress)
            before = student[0].weight.detach().clone()  # type: ignore[index]
            yield from super().turns(student, teachers, batch, progress)
            ended.append(not torch.equal(before, student[0].weight))  # type: ignore[index]

    trained(Watching(terms(), Uniform()), 4, drop_last=False)
    # 90 samples in batches of 4: five whole steps of an epoch, and one of three batches.
    steps = [step for epoch in range(3) for step in range(6 * epoch, 6 * epoch + 6)]
    sizes = [3 if step % 6 == 5 else 4 for step in steps]
    expected = [step for step, size in zip(steps, sizes, strict=True) for _ in range(size)]
    assert [p.step for p in seen] == expected
    assert [p.fraction for p in seen] == [step / 18 for step in expected]
    assert math.isclose(seen[-1].fraction, 17 / 18)
    # The warm-up starts at zero, so the first step does not move.
    assert ended == [False] + [True] * 17


class Plain:
    """Ten batches of four samples, which know nothing of steps."""

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(10):
            inputs = torch.randn(4, 3, generator=generator)
            yield Batch(inputs, torch.arange(4) % 3, torch.arange(4))


class Served(LightningDataModule):
    def train_dataloader(self) -> Plain:
        return Plain()

    def val_dataloader(self) -> Plain:
        return Plain()


@pytest.mark.parametrize("accumulated", [1, 4, 5, 8, 12])
def test_data_that_knows_no_steps_is_averaged_all_the_same(accumulated: int) -> None:
    """The loss does not move without a learning rate: its mean is that of ten single batches."""
    torch.manual_seed(0)
    student = torch.nn.Linear(3, 3)
    losses = [F.cross_entropy(student(b.inputs), b.target) for b in Plain()]
    means = [
        torch.stack(losses[first : first + accumulated]).mean()
        for first in range(0, 10, accumulated)
    ]
    gradients: list[Tensor] = []

    class Noting(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            value = closure()
            gradients.append(student.bias.grad.clone())  # type: ignore[union-attr]
            return value

    descent = Descent(1e-30, Noting, Constant())
    module = DistillationModule(
        student, Ensemble(), Parallel({"label": Term(Label())}, Uniform()), {"default": descent}, 3
    )
    node = {**plain(compose([]).trainer, "trainer"), "accumulate_grad_batches": accumulated}
    trainer = make_trainer(node, 1)
    fit(trainer, module, Served(), "student")
    logged = float(trainer.callback_metrics["student/label"])
    assert logged == pytest.approx(torch.stack(means).mean().item(), rel=1e-5)
    for gradient, mean in zip(gradients, means, strict=True):
        (exact,) = torch.autograd.grad(mean, student.bias, retain_graph=True)
        torch.testing.assert_close(gradient, exact)
