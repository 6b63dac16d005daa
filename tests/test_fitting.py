"""Failures of the trainer are single lines."""

from __future__ import annotations

from typing import Any

import pytest

from ensemble_kd.config import compose, plain
from ensemble_kd.errors import UserError
from ensemble_kd.fitting import fit, make_trainer


class Waiting:
    """A trainer whose processes wait for a gradient that never comes, or that fails otherwise."""

    def __init__(self, message: str) -> None:
        self.message = message

    def fit(self, module: Any, datamodule: Any) -> None:
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


@pytest.mark.parametrize("number", [0, -2])
def test_no_batches_cannot_be_accumulated(number: int) -> None:
    node = {**plain(compose([]).trainer, "trainer"), "accumulate_grad_batches": number}
    with pytest.raises(UserError, match=rf"expected 1 or more, got {number}$"):
        make_trainer(node, 1)
