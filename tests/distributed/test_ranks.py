"""Which processes belong to a run, and what a trainer makes of them."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from ensemble_kd.config import compose, plain
from ensemble_kd.distributed import ranks
from ensemble_kd.distributed.spread import spread
from ensemble_kd.errors import UserError
from ensemble_kd.fitting import make_trainer

TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}
BATCH = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
SRUN = {**BATCH, "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "4"}


@pytest.fixture(autouse=True)
def by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SRUN, "SUBMITIT_EXECUTOR"):
        monkeypatch.delenv(name, raising=False)


def say(monkeypatch: pytest.MonkeyPatch, said: dict[str, str]) -> None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, (0, 1)),
        (TORCHRUN, (1, 2)),
        ({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}, (0, 1)),
        ({name: TORCHRUN[name] for name in ("RANK", "WORLD_SIZE")}, (0, 1)),
        (SRUN, (3, 4)),
        (BATCH, (0, 1)),  # the script of sbatch, of which srun starts the tasks
        ({**SRUN, "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"}, (0, 1)),
        ({**SRUN, "SUBMITIT_EXECUTOR": "slurm"}, (0, 1)),  # a job of a sweep
        ({**SRUN, **TORCHRUN}, (1, 2)),  # torchrun as the one task of each machine
    ],
)
def test_who_belongs_to_a_run(
    said: dict[str, str], expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, said)
    assert ranks.place() == expected
    assert (ranks.rank(), ranks.size(), ranks.is_first()) == (*expected, expected[0] == 0)
    assert (ranks.environment() is None) == (expected[1] == 1)


def test_what_lightning_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, TORCHRUN)
    assert isinstance(ranks.environment(), TorchElasticEnvironment)
    for name in TORCHRUN:
        monkeypatch.delenv(name)
    say(monkeypatch, SRUN)
    assert isinstance(ranks.environment(), SLURMEnvironment)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(UserError, match=r"srun: .* Use `--ntasks-per-node=4`"):
        ranks.environment()


def test_a_process_by_itself_simply_calls() -> None:
    with ranks.group():
        assert not torch.distributed.is_initialized()
        assert ranks.first(lambda: 3) == ranks.together(lambda: 3) == ranks.agreed(3, "it") == 3
        with ranks.by_first(lambda: nullcontext(4)) as given:
            assert given == 4


DDP = {"strategy": "ddp_spawn_find_unused_parameters_true", "devices": 2}


def test_a_group_starts_no_processes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spread(DDP)[0] == DDP
    assert isinstance(spread(DDP)[1], LightningEnvironment)
    say(monkeypatch, TORCHRUN)
    assert spread(DDP)[0] == {**DDP, "strategy": "ddp_find_unused_parameters_true"}
    assert isinstance(spread(DDP)[1], TorchElasticEnvironment)
    alone, environment = spread({**DDP, "accelerator": "cpu"}, apart=True)
    assert (alone["strategy"], alone["devices"]) == ("auto", 1)
    assert isinstance(environment, LightningEnvironment)


@pytest.mark.parametrize(
    ("said", "node", "message"),
    [
        ({}, {"devices": 2, "num_nodes": 2}, r"num_nodes: expected 1 .* got 2: torchrun"),
        (TORCHRUN, {"devices": 1}, r"expected 2 devices in all.* got 1 \* 1 \(trainer=ddp"),
        (TORCHRUN, {"devices": [0, 1, 2]}, r"got 3 \* 1"),
        (SRUN, {"devices": 4, "num_nodes": 2}, r"expected 4 devices .* got 4 \* 2"),
    ],
)
def test_devices_must_be_as_many_as_processes(
    said: dict[str, str],
    node: dict[str, object],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say(monkeypatch, said)
    with pytest.raises(UserError, match=message) as refusal:
        spread(node)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("chosen", [["trainer=ddp", "trainer.strategy=ddp"], ["trainer=fsdp"]])
def test_no_trainer_starts_the_whole_command_again(chosen: list[str]) -> None:
    node = plain(compose([*chosen, "trainer.accelerator=cpu"]).trainer, "trainer")
    try:
        with pytest.raises(
            UserError, match=r"torchrun --standalone --nproc-per-node 2 .*ddp_spawn"
        ):
            make_trainer(node, 1)
    finally:
        torch.use_deterministic_algorithms(False)
