"""``distill()``: the command line as a function, for models and data that exist as objects."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from pytorch_lightning import LightningDataModule
from torch import nn

from ensemble_kd.artefact import load
from ensemble_kd.command_line import explain
from ensemble_kd.config import compose
from ensemble_kd.distributed import ranks
from ensemble_kd.errors import UserError
from ensemble_kd.export import constructor_of
from ensemble_kd.plan import Objects, make_plan
from ensemble_kd.run import Result, carry_out
from ensemble_kd.stage import Given
from ensemble_kd.strategies import Strategy
from ensemble_kd.teachers.sources.callable import Teacher

__all__ = ["Result", "distill", "load"]


def distill(
    teachers: Sequence[Teacher],
    student: nn.Module,
    data: LightningDataModule,
    strategy: str | Strategy = "parallel",
    *,
    epochs: int = 40,
    seed: int = 0,
    controls: Sequence[str] = ("no_teacher",),
    overrides: Sequence[str] = (),
    folder: str | Path | None = None,
) -> Result:
    """Distil trained teachers into a student.

    Nothing that is passed in is changed: teachers and student are copied.

    Args:
        teachers: trained networks, or any functions: each takes the inputs of a batch and returns
            logits (b, c). What a function said is not kept from one call to the next unless it has
            an attribute ``digest``, a text that changes whenever its answers do.
        student: the network to train, from the weights that it has.
        data: training, validation and test batches: ``Batch``, or pairs of inputs and targets.
        strategy: an option of the group ``strategy``, or an object.
        epochs: passes over the training split.
        seed: of everything that is drawn while training.
        controls: options of the group ``control``: the same student, trained otherwise, for the
            verdict.
        overrides: further configuration, as on the command line, e.g. ``objective.temperature=4``.
        folder: the run folder; by default a new one under ``outputs``.

    Returns:
        The student, the results and the run folder.

    Raises:
        UserError: something that was given is wrong, in one line.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    named = [f"strategy={strategy}"] if isinstance(strategy, str) else []
    listed = controls if isinstance(controls, str) else f"[{','.join(controls)}]"
    own = [f"epochs={epochs}", f"seed={seed}", f"controls={listed}"]
    try:
        config = compose([*named, *own, "logger=none", *overrides])
    except (HydraException, OmegaConfBaseException) as failure:
        raise UserError(explain(failure)) from failure
    if not isinstance(strategy, str):
        OmegaConf.update(config, "strategy.name", type(strategy).__name__.lower())
    objects = Objects(
        student=Given(student, constructor_of(student)),
        strategy=None if isinstance(strategy, str) else Given(strategy),
        teachers=list(teachers),
    )
    with ranks.group():
        plan = ranks.together(lambda: make_plan(config, data, objects))
        run_folder = ranks.first(lambda: _new_folder() if folder is None else Path(folder))
        return carry_out(plan, config, run_folder)


def _new_folder() -> Path:
    now = datetime.datetime.now()
    return Path("outputs") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S-%f}"
