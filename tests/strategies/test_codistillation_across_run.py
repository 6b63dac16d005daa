"""Replicas as processes: equal to one process that trains all, and what the death of one does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

Trained = Callable[..., Any]

RUN = (
    *("strategy=codistillation", "teacher=none", "controls=[]", "epochs=2"),
    *("strategy.burn_in=2", "strategy.exchange=5", "+trainer.limit_train_batches=10"),
)
STEPS = 20
STEPS_OF_TWO = 18  # two epochs of 9 whole batches of 128
QUIET = (
    *("paths.store=store", "logger=none", "evaluation.robustness=null"),
    *("report.plots=false", "report.page=false", "report.onnx=false"),
)


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts runs in processes of their own, and ends those that are left."""
    processes: list[subprocess.Popen[str]] = []

    def start(*overrides: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "ensemble_kd", *RUN, *QUIET, *overrides],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def folder(replica: int, patience: float) -> tuple[str, ...]:
    across = f"strategy.across={Path('swap').absolute()}"
    return across, f"strategy.replica={replica}", f"strategy.patience={patience}"


def published(replica: int) -> list[str]:
    return sorted(path.name for path in Path("swap").glob(f"replica-{replica}.step-*"))


def wait_for(replica: int, step: int, process: subprocess.Popen[str]) -> None:
    """Until a replica has published a copy of so many steps."""
    while not any(f".step-{step:010d}." in name for name in published(replica)):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def assert_equal(network: nn.Module, weights: dict[str, Tensor]) -> None:
    own = network.state_dict()
    assert own.keys() == weights.keys()
    for name, value in own.items():
        assert torch.equal(value, weights[name]), name


def test_two_runs_are_one_codistillation(
    trained: Trained, started: Callable[..., subprocess.Popen[str]]
) -> None:
    """Each replica ends with the very weights that it has when one process trains both."""
    other = started(*folder(1, 600), "hydra.run.dir=other")
    together = trained(*RUN)
    alone = trained(*RUN, *folder(0, 600))
    said, _ = other.communicate()
    assert other.returncode == 0, said
    assert "replica 1: 4 exchanges" in said
    assert_equal(together.networks["student"], alone.networks["student"].state_dict())
    assert_equal(together.networks["peer/1"], load_file("other/student/weights.safetensors"))
    assert list(alone.networks) == ["student"]

    told = alone.products["student"].artefact.provenance["exchange"]
    assert told["copies"] == {
        "replica 1": {"last_step": 17, "exchanges": 4, "mean_age": 0.0, "largest_age": 0}
    }
    (sizes,) = {(Path("swap") / name).stat().st_size for name in (*published(0), *published(1))}
    assert (told["sent_bytes"], told["received_bytes"]) == (5 * sizes, 4 * sizes)
    per_step = alone.curves["student", "student/exchanged_bytes"]
    assert per_step == pytest.approx([2 * 2 * sizes / 10] * 2)
    assert ("student", "student/exchanged_bytes") not in together.curves
    assert alone.curves["student", "student/soft"] == together.curves["student", "student/soft"]


def test_who_is_killed_is_missed_and_joins_again(
    trained: Trained,
    started: Callable[..., subprocess.Popen[str]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    other = started(*folder(1, 600), "hydra.run.dir=other")
    wait_for(1, 2, other)

    def kill() -> None:
        wait_for(1, 7, other)
        other.send_signal(signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    alone = trained(*RUN, *folder(0, 0.3))
    killing.join()
    assert other.wait() == -signal.SIGKILL
    assert "goes on without replica 1" in capfd.readouterr().err
    told = alone.products["student"].artefact.provenance["exchange"]["copies"]["replica 1"]
    assert told["exchanges"] == 4
    assert told["last_step"] < 17
    assert told["largest_age"] == 17 - told["last_step"]
    assert any(f".step-{STEPS:010d}.final." in name for name in published(0))

    rejoined = trained(*RUN, *folder(1, 600))
    assert any(f".step-{STEPS:010d}.final." in name for name in published(1))
    told = rejoined.products["student"].artefact.provenance["exchange"]
    assert told["replica"] == 1
    assert told["copies"]["replica 0"]["last_step"] >= 17
    assert rejoined.accuracies["student"] > 0


@pytest.mark.slow
def test_who_goes_on_from_a_checkpoint_was_never_away(
    trained: Trained, started: Callable[..., subprocess.Popen[str]]
) -> None:
    """Killed and started again while the other waits, both end with the bits of one process."""
    command = (*folder(1, 600), "hydra.run.dir=other", "checkpoint.every_n_steps=1")
    first = started(*command)
    second: list[subprocess.Popen[str]] = []

    def kill_and_start_again() -> None:
        wait_for(1, 7, first)
        first.send_signal(signal.SIGKILL)
        first.wait()
        second.append(started(*command))

    killing = threading.Thread(target=kill_and_start_again)
    killing.start()
    alone = trained(*RUN, *folder(0, 600))
    killing.join()
    said, _ = second[0].communicate()
    assert second[0].returncode == 0, said
    together = trained(*RUN)
    assert_equal(together.networks["student"], alone.networks["student"].state_dict())
    assert_equal(together.networks["peer/1"], load_file("other/student/weights.safetensors"))


@pytest.mark.slow
def test_two_ranks_are_one_codistillation(
    trained: Trained, started: Callable[..., subprocess.Popen[str]]
) -> None:
    """As torchrun starts them: one run, which has both replicas in the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = ("strategy.across=ranks", "trainer=ddp", "trainer.accelerator=cpu")
    both = [
        started(*command, "hydra.run.dir=both", RANK=rank, LOCAL_RANK=rank, **place)
        for rank in ("0", "1")
    ]
    together = trained(*RUN)
    for process in both:
        said, _ = process.communicate()
        assert process.returncode == 0, said
    assert_equal(together.networks["student"], load_file("both/student/weights.safetensors"))
    results = json.loads(Path("both/results.json").read_text())
    assert set(results["predictors"]) == {"student", "peer/1"}
    curve = [row.split(",") for row in Path("both/curves.csv").read_text().splitlines()]
    validated = [row[3] for row in curve if row[2] == "student/val_accuracy"]
    expected = results["predictors"]["student"]["val"]["accuracy"]
    assert float(validated[-1]) == pytest.approx(expected, abs=1e-6)  # its own, not both replicas'
    (artefact,) = (
        path.parent
        for path in Path("store").glob("*/provenance.json")
        if "exchange" in json.loads(path.read_text())
    )
    kept = load_file(artefact / "companions.safetensors")
    begins = "strategy.branches.peers.0."
    peer = {name[len(begins) :]: v for name, v in kept.items() if name.startswith(begins)}
    assert_equal(together.networks["peer/1"], peer)


@pytest.mark.slow
def test_a_replica_may_be_two_processes(
    trained: Trained, started: Callable[..., subprocess.Popen[str]]
) -> None:
    """Its processes use the same copies, and publish one; the other replica is one process.

    ``batch_size`` is that of each process, so it has done with an epoch in fewer steps.
    """
    same = ("strategy.partition=same", "student=mlp_small")
    other = started(*folder(1, 600), *same, "hydra.run.dir=other")
    alone = trained(*RUN, *same, *folder(0, 600), "trainer=ddp", "trainer.accelerator=cpu")
    said, _ = other.communicate()
    assert other.returncode == 0, said
    told = alone.products["student"].artefact.provenance["exchange"]
    assert told["copies"]["replica 1"]["exchanges"] == 4
    assert told["copies"]["replica 1"]["largest_age"] == 0
    assert any(f".step-{STEPS_OF_TWO:010d}.final." in name for name in published(0))
    assert len(published(0)) == 2
    told = json.loads(Path("other/student/provenance.json").read_text())["exchange"]
    assert told["copies"]["replica 0"]["largest_age"] == 0
