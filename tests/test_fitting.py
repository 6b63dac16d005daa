"""Failures of the trainer are single lines."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import distributed

from ensemble_kd.config import compose, plain
from ensemble_kd.errors import UserError
from ensemble_kd.fitting import Interrupted, _Company, fit, make_trainer


class Waiting:
    """A trainer whose processes wait for a gradient that never comes, or that fails otherwise."""

    def __init__(self, message: str) -> None:
        self.message = message

    def fit(self, module: Any, datamodule: Any, ckpt_path: Any, weights_only: bool) -> None:
        raise RuntimeError(self.message)


def test_processes_that_wait_for_a_gradient_end_in_one_line() -> None:
    waiting: Any = Waiting(
        "Expected to have finished reduction in the prior iteration. Your module has parameters\n"
        "that were not used in producing the loss returned by `training_step`."
    )
    data: Any = None
    with pytest.raises(UserError, match=r"stage x: .*find_unused_parameters_true") as refusal:
        fit(waiting, data, data, "x")
    assert "\n" not in str(refusal.value)
    other: Any = Waiting("something else")
    with pytest.raises(RuntimeError, match="something else"):
        fit(other, data, data, "x")


def test_whoever_was_told_to_end_in_the_last_batch_ends() -> None:
    class Told:
        received_sigterm = True

        def fit(self, *_: Any, **settings: Any) -> None: ...

    trainer: Any = Told()
    nothing: Any = None
    with pytest.raises(Interrupted, match="teacher/0"):
        fit(trainer, nothing, nothing, "teacher/0")


@pytest.mark.parametrize("number", [0, -2])
def test_no_batches_cannot_be_accumulated(number: int) -> None:
    node = {**plain(compose([]).trainer, "trainer"), "accumulate_grad_batches": number}
    with pytest.raises(UserError, match=rf"expected 1 or more, got {number}$"):
        make_trainer(node, 1)


def test_processors_cannot_share_the_statistics_of_a_batch() -> None:
    node = {**plain(compose([]).trainer, "trainer"), "sync_batchnorm": True}
    with pytest.raises(UserError, match=r"trainer.sync_batchnorm: expected false on processors"):
        make_trainer(node, 1)


def test_slurm_on_the_machine_is_no_reason_for_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., int]
) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    small = ["epochs=1", "teacher.members=[cnn_tiny]", "+trainer.limit_train_batches=2"]
    bare = ["report.plots=false", "report.page=false", "report.onnx=false", "controls=[]"]
    assert command(*small, *bare) == 0  # warnings are errors here


def test_processes_that_train_together_end_when_they_are_told_to() -> None:
    node = plain(compose(["trainer=cpu"]).trainer, "trainer")
    module: Any = None
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        trainer: Any = make_trainer(node, 1)
        (company,) = [each for each in trainer.callbacks if type(each) is _Company]
        company.on_train_start(module, module)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # this one trains alone
        store = cast(Any, distributed).HashStore()
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        company.on_train_start(module, module)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
        if distributed.is_initialized():
            distributed.destroy_process_group()
        torch.use_deterministic_algorithms(False)
