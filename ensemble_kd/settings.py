"""The settings of a run that no constructor checks."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from ensemble_kd.asking.placing import expect_place
from ensemble_kd.config import control_name, plain
from ensemble_kd.errors import UserError
from ensemble_kd.paths import looked_up


def check_settings(config: DictConfig) -> None:
    """See that the plain settings of a run are of their kinds and in their ranges.

    Raises:
        UserError: the first that is not.
    """
    if "source" in config:
        raise UserError(
            "source: this group is not chosen by itself, its options are named in teacher.members, "
            "such as teacher.members=[{onnx: model.onnx}]"
        )
    if "control" in config:
        raise UserError(
            "control: this group is not chosen by itself, its options are named in controls, "
            "such as controls=[no_teacher,label_smoothing]"
        )
    _check_controls(plain(OmegaConf.select(config, "controls"), "controls"))
    allow = plain(config.allow, "allow")
    if not isinstance(allow, list) or not all(isinstance(name, str) for name in allow):
        raise UserError(f"allow: expected a list of packages, got {allow!r}")
    for key in ("paths.store", "strategy.name"):
        value = plain(OmegaConf.select(config, key), key)
        if not isinstance(value, str) or not value:
            raise UserError(f"{key}: expected text, got {value!r}")
    looked_up(config.paths.store, "paths.store")
    taught = plain(config.strategy.get("taught", True), "strategy.taught")
    if not isinstance(taught, bool):
        raise UserError(f"strategy.taught: expected true or false, got {taught!r}")
    _expect_integer(config, "epochs", 1)
    _expect_integer(config, "teacher.epochs", 1)
    _expect_integer(config, "seed", 0)
    _expect_integer(config, "teacher.seed", 0)
    _expect_integer(config, "batch_size", 1)
    if plain(config.checkpoint.every_n_steps, "checkpoint.every_n_steps") is not None:
        _expect_integer(config, "checkpoint.every_n_steps", 1, "or null")
    runtime = plain(config.teacher.runtime, "teacher.runtime")
    if runtime not in ("auto", "plain", "exact", "fast"):
        raise UserError(f"teacher.runtime: expected auto, plain, exact or fast, got {runtime!r}")
    expect_place(plain(config.teacher.device, "teacher.device"))
    if config.select not in ("last", "best"):
        raise UserError(f"select: expected last or best, got {config.select!r}")
    for key in ("compile", "teacher.gate"):
        value = OmegaConf.select(config, key)
        if not isinstance(value, bool):
            raise UserError(f"{key}: expected true or false, got {value!r}")


def _check_controls(asked: Any) -> None:
    if not isinstance(asked, list):
        raise UserError(f"controls: expected a list such as [no_teacher], got {asked!r}")
    names: set[str] = set()
    for entry in asked:
        name = control_name(entry)
        if not name:
            raise UserError(
                "controls: expected names of the group control, or mappings with name (letters, "
                f"digits and _) and _target_, got {entry!r}"
            )
        if name in names:
            raise UserError(f"controls: expected each control once, got {name!r} twice")
        names.add(name)


def _expect_integer(config: DictConfig, key: str, least: int, instead: str = "") -> None:
    value = plain(OmegaConf.select(config, key), key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        expected = f"an integer >= {least} {instead}".rstrip()
        raise UserError(f"{key}: expected {expected}, got {value!r}")
    if value >= 2**31:
        raise UserError(f"{key}: expected an integer below 2^31, got {value}")
