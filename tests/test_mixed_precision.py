"""Networks in half precision, losses in float32: objectives, the scaler, clipping, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from ensemble_kd.build import build
from ensemble_kd.config import compose, plain
from ensemble_kd.engine import CURVES, Engine
from ensemble_kd.errors import UserError
from ensemble_kd.fitting import make_trainer
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.paths import conf_dir
from ensemble_kd.plan import make_plan
from ensemble_kd.report.curves import read_points
from ensemble_kd.stage import Stage
from ensemble_kd.store import Store
from ensemble_kd.strategies import Mutual, Parallel, Strategy
from ensemble_kd.teachers import Ensemble
from ensemble_kd.training import Learner, assemble, frozen, train
from ensemble_kd.types import Batch
from ensemble_kd.weightings import Uniform

OF_TEXTS = ("distilbert", "minilm", "mobilebert", "pkd", "simplified_tinybert", "tinybert")
"""These compare what lies inside transformers."""
NETWORKS = {
    "mobilebert": ("student=mobilebert", "teacher.members=[ib_bert]"),
    "self_distillation": ("student=fastbert", "teacher.members=[]"),
}
OBJECTIVES = sorted(
    path.stem for path in (conf_dir() / "objective").glob("*.yaml") if path.stem not in OF_TEXTS
)
MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
SIZE, CLASSES = 16, 4
Made = Callable[[DictConfig], Strategy]
LR, CLIP = 0.5, 0.01
SGD: dict[str, Any] = {
    "_target_": "ensemble_kd.descent.Descent",
    "lr": LR,
    "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True},
}


class Loader:
    """A few batches of small images, times some number."""

    def __init__(self, batches: int, scale: float) -> None:
        self.batches = batches
        self.scale = scale

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(0)
        for number in range(self.batches):
            inputs = self.scale * torch.randn(SIZE, 1, 8, 8, generator=generator)
            target = torch.randint(CLASSES, (SIZE,), generator=generator)
            yield Batch(inputs, target, torch.arange(SIZE) + number * SIZE)


class Data(LightningDataModule):
    """Six batches for training, one for validation."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def train_dataloader(self) -> Loader:
        return Loader(6, self.scale)

    def val_dataloader(self) -> Loader:
        return Loader(1, self.scale)


class Watching(Callback):
    """What the student is computed in, how far each batch moved it, and what was logged."""

    def __init__(self) -> None:
        self.computed: set[torch.dtype] = set()
        self.moved: list[float] = []
        self.logged: dict[str, float] = {}
        self.scales: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        first = next(m for m in student_of(pl_module).modules() if isinstance(m, nn.Conv2d))
        first.register_forward_hook(lambda module, given, said: self.computed.add(said.dtype))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.before = weights(student_of(pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.moved.append(float((weights(student_of(pl_module)) - self.before).norm()))
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.scales.append(1.0 if scaler is None else scaler.get_scale())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.logged = {name: float(value) for name, value in trainer.callback_metrics.items()}


def weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def student_of(module: LightningModule) -> nn.Module:
    student: Any = module.student
    assert isinstance(student, nn.Module)
    return student


def terms() -> dict[str, Term]:
    return {"label": Term(Label()), "soft": Term(Soft(temperature=2.0))}


def trained(
    config: DictConfig,
    strategy: Strategy,
    precision: str,
    optimizer: dict[str, Any] | None = None,
    scale: float = 1.0,
) -> Watching:
    """One epoch under two live teachers, all the way from the nodes of the configuration."""
    torch.manual_seed(0)
    student, *teachers = (build(plain(config.student, "student"), "student") for _ in range(3))
    ensemble = Ensemble(frozen(strategy, teachers))
    with torch.no_grad():
        strategy.acquaint(student.eval(), ensemble, next(iter(Loader(1, 1.0))))
    watching = Watching()
    stage = Stage(
        name="student",
        student=plain(config.student, "student"),
        teachers=(),
        strategy={},
        optimizers={"default": optimizer or plain(config.optimizer, "optimizer")},
        trainer={**plain(config.trainer, "trainer"), "precision": precision},
        data="",
        labelled_only=False,
        epochs=1,
        select="last",
        seed=0,
    )
    learner = Learner(student.train(), strategy)
    train(stage, learner, ensemble, Data(scale), CLASSES, [watching], [])
    assert all(p.dtype == torch.float32 for p in student.parameters())
    return watching


@pytest.fixture(scope="module")
def config() -> DictConfig:
    """What a run is given, with small networks."""
    config = compose(["student=cnn_tiny"])
    OmegaConf.set_struct(config, False)
    config.data.inputs, config.data.classes = [1, 8, 8], CLASSES
    return config


@pytest.mark.parametrize("precision", MIXED)
@pytest.mark.parametrize("option", OBJECTIVES)
def test_every_objective_trains(config: DictConfig, option: str, precision: str) -> None:
    matched = config.copy()
    matched.objective = OmegaConf.load(conf_dir() / "objective" / f"{option}.yaml")
    terms: dict[str, Term] = build(plain(matched.objective.terms, "objective"), "objective")
    seen = trained(matched, Parallel(terms, Uniform()), precision)
    assert seen.computed == {MIXED[precision]}
    assert max(seen.moved) > 0
    assert {f"student/{name}" for name in terms} <= set(seen.logged)
    assert torch.isfinite(torch.tensor(list(seen.logged.values()))).all()


@pytest.mark.parametrize("precision", MIXED)
@pytest.mark.parametrize("option", [*OF_TEXTS, "self_distillation"])
def test_all_that_is_for_texts_trains(option: str, precision: str, text_root: Path) -> None:
    networks = NETWORKS.get(option, ("student=bert_tiny", "teacher.members=[bert_mini]"))
    chosen = f"objective={option}" if option in OF_TEXTS else f"strategy={option}"
    samples = "data.samples" if option == "distilbert" else "data"
    data = "data=masked_sst2" if option == "distilbert" else "data=sst2"
    small = (f"{samples}.length=12", f"++{samples}.tokenizer.size=60", f"paths.data={text_root}")
    short = ("epochs=2", "teacher.epochs=1", "batch_size=8", "+trainer.limit_train_batches=3")
    mixed = (f"trainer.precision={precision}", "controls=[]", "logger=none")
    overrides = (chosen, data, *networks, *small, *short, *mixed)
    plan = make_plan(compose(overrides))
    before = assemble(plan.stages[-1]).student.state_dict()

    product = Engine(plan, Store(text_root / "store"), text_root, False).products()["student"]

    after = product.learner.student.state_dict()
    assert all(value.dtype == before[name].dtype for name, value in after.items())
    assert all(torch.isfinite(value).all() for value in after.values())
    if precision == "bf16-mixed":  # a scaler may leave all of so few steps out
        assert any(not torch.equal(value, before[name]) for name, value in after.items())
    points = read_points(product.artefact.folder / CURVES)
    terms = {point.name for point in points if point.name.startswith("student/")}
    assert terms
    assert all(math.isfinite(point.value) for point in points)


def one_player(config: DictConfig) -> Strategy:
    return Parallel(terms(), Uniform())


def two_players(config: DictConfig) -> Strategy:
    torch.manual_seed(1)
    peers: list[nn.Module] = [build(plain(config.student, "student"), "student")]
    return Mutual(peers, terms(), Uniform(), "sequential")


@pytest.mark.parametrize("precision", ["32-true", *MIXED])
@pytest.mark.parametrize("strategy", [one_player, two_players])
@pytest.mark.parametrize("fused", [False, True])
def test_clipped_gradients_are_the_true_ones(
    config: DictConfig, strategy: Made, precision: str, fused: bool
) -> None:
    """Each step of plain descent is lr * clip long, or is left out because of the scale."""
    optimizer = {**SGD["optimizer"], "fused": fused}
    seen = trained(
        config, strategy(config), precision, {**SGD, "optimizer": optimizer, "clip": CLIP}
    )
    taken = [length for length in seen.moved if length > 0]
    assert len(taken) == 6 if precision != "16-mixed" else len(taken) > 2
    assert taken == pytest.approx([LR * CLIP] * len(taken), rel=1e-3)


@pytest.mark.parametrize("strategy", [one_player, two_players])
def test_steps_whose_gradients_overflow_are_left_out(config: DictConfig, strategy: Made) -> None:
    learned = strategy(config)
    for term in learned.modules():
        if isinstance(term, Term):
            term.weight = 100.0
    seen = trained(config, learned, "16-mixed", {**SGD, "lr": 1e-5})
    assert seen.moved[0] == 0
    assert seen.moved[-1] > 0
    assert seen.scales == sorted(seen.scales, reverse=True)
    assert 1 < seen.scales[-1] < 2**16


@pytest.mark.parametrize("strategy", [one_player, two_players])
def test_losses_that_are_not_finite_still_end_the_run(config: DictConfig, strategy: Made) -> None:
    with pytest.raises(UserError, match=r"student/label.*nan.*, trainer.precision=bf16-mixed, or"):
        trained(config, strategy(config), "16-mixed", scale=float("nan"))


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
@pytest.mark.parametrize("precision", ["32-true", 32, "32", None, *MIXED])
def test_the_precision_is_the_one_that_was_asked_for(
    config: DictConfig, precision: Any, accelerator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    node = plain(config.trainer, "trainer")
    trainer = make_trainer({**node, "precision": precision, "accelerator": accelerator}, epochs=1)
    expected = MIXED.get(precision, torch.float32)
    with trainer.precision_plugin.forward_context():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == expected
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    assert (scaler is not None) == (precision == "16-mixed")


@pytest.mark.parametrize(
    "precision", ["16-true", "bf16-true", "64-true", 64, "16", "bf16", "transformer-engine", "half"]
)
def test_other_precisions_are_refused_in_one_line(config: DictConfig, precision: Any) -> None:
    node = {**plain(config.trainer, "trainer"), "precision": precision}
    with pytest.raises(UserError, match=f"got {precision!r}") as refusal:
        make_trainer(node, epochs=1)
    assert str(refusal.value).startswith("trainer.precision: expected one of 32-true, bf16-mixed")
    assert "\n" not in str(refusal.value)
