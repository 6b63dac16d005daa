"""The groups `trainer` and `logger`: what each option makes of Lightning."""

from __future__ import annotations

import csv
import inspect
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from hydra import compose, initialize_config_dir
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ensemble_kd.build import build
from ensemble_kd.fitting import make_trainer
from ensemble_kd.paths import conf_dir

TRAINERS = sorted(path.stem for path in (conf_dir() / "trainer").glob("*.yaml"))
LOGGERS = {"csv": "metrics.csv", "tensorboard": "events.out.tfevents"}
"""And the files that they write; those of trackers are looked at in test_loggers.py."""


def composed(folder: Path, **choices: str) -> DictConfig:
    """The shipped options of these groups alone, without the rest of the configuration."""
    primary = {"defaults": [{group: option} for group, option in choices.items()]}
    OmegaConf.save(OmegaConf.create(primary), folder / "primary.yaml")
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose("primary", [f"hydra.searchpath=[file://{conf_dir()}]"])


def plain(config: DictConfig, group: str) -> Any:
    return OmegaConf.to_container(config, resolve=True)[group]  # type: ignore[index,call-overload]


class Descending(LightningModule):
    """The smallest thing that trains: one weight goes to zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def training_step(self, batch: Tensor, number: int) -> Tensor:
        loss = (self.weight * batch).square().mean()
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(trainer: Trainer) -> float:
    torch.manual_seed(0)
    module = Descending()
    trainer.fit(module, DataLoader(torch.ones(8, 1), batch_size=2))  # type: ignore[arg-type]
    return float(module.weight.detach())


def logged(epochs: int, logger: Any) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        logger=logger,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )


@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_is_one_of_lightnings_own_arguments(name: str, tmp_path: Path) -> None:
    node = plain(composed(tmp_path, trainer=name), "trainer")
    assert node.pop("_target_") == "pytorch_lightning.Trainer"
    assert node.pop("_partial_") is True
    assert not set(node) - set(inspect.signature(Trainer).parameters)
    # What a run gives at run time is not settled here.
    assert not set(node) & {"max_epochs", "logger", "callbacks", "default_root_dir"}


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_default_trainer_trains_and_leaves_nothing_behind(
    tmp_path: Path, own_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    maker = build(plain(composed(tmp_path, trainer="cpu"), "trainer"), "trainer")
    trainer = maker(max_epochs=2, logger=False)
    try:
        assert train(trainer) == pytest.approx(0.8**8)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert not list(own_folder.iterdir())
    assert "Epoch" not in capfd.readouterr().out


def test_the_graphics_card_is_asked_for_and_differs_in_nothing_else(tmp_path: Path) -> None:
    cpu = plain(composed(tmp_path, trainer="cpu"), "trainer")
    gpu = plain(composed(tmp_path, trainer="gpu"), "trainer")
    assert {key: gpu[key] for key in gpu if gpu[key] != cpu.get(key)} == {
        "accelerator": "gpu",
        "deterministic": "warn",
    }


def test_ddp_spawns_processes_that_talk_over_gloo_without_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    node = plain(composed(tmp_path, trainer="ddp"), "trainer")
    try:
        trainer = build(node, "trainer")(max_epochs=1, logger=False)
    finally:
        torch.use_deterministic_algorithms(False)
    strategy = trainer.strategy
    assert isinstance(strategy, pytorch_lightning.strategies.DDPStrategy)
    assert getattr(strategy.launcher, "_start_method", None) == "spawn"
    assert (trainer.num_devices, trainer.world_size) == (2, 2)
    assert strategy._get_process_group_backend() == "gloo"


@pytest.mark.parametrize("name", ["cpu", "ddp"])
def test_a_run_inside_a_slurm_job_starts_its_processes_itself(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "x", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(key, value)
    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    try:
        trainer = make_trainer(plain(composed(tmp_path, trainer=name), "trainer"), 1)
    finally:
        torch.use_deterministic_algorithms(False)
    assert trainer.world_size == (2 if name == "ddp" else 1)
    environments = [
        part
        for part in vars(trainer._accelerator_connector).values()
        if isinstance(part, ClusterEnvironment)
    ]
    assert environments
    assert {type(environment) for environment in environments} == {LightningEnvironment}


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("name", LOGGERS)
def test_every_file_logger_writes_into_the_folder_of_the_stage(name: str, tmp_path: Path) -> None:
    node = plain(composed(tmp_path, logger=name), "logger")
    folder = tmp_path / "logs"
    logger = build(node, "logger")(save_dir=folder, name="teacher/0")
    train(logged(2, logger))
    (written,) = (path for path in folder.rglob("*") if LOGGERS[name] in path.name)
    assert written.parent == folder / "teacher" / "0"


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_csv_logger_writes_a_row_per_epoch(tmp_path: Path) -> None:
    node = plain(composed(tmp_path, logger="csv"), "logger")
    logger = build(node, "logger")(save_dir=tmp_path / "logs", name="student")
    train(logged(3, logger))
    text = (tmp_path / "logs" / "student" / "metrics.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert float(rows[0]["loss"]) > float(rows[2]["loss"])


def test_every_logger_is_tried_somewhere() -> None:
    known = {path.stem for path in (conf_dir() / "logger").glob("*.yaml")}
    assert known == {*LOGGERS, "mlflow", "wandb", "none"}


def test_no_logger_is_false_even_after_another_one(tmp_path: Path) -> None:
    assert plain(composed(tmp_path, logger="none"), "logger") is False
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        OmegaConf.save({"defaults": [{"logger": "csv"}]}, tmp_path / "primary.yaml")
        searched = f"hydra.searchpath=[file://{conf_dir()}]"
        assert compose("primary", [searched, "logger=none"]).logger is False
