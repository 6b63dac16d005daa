"""What the node ``hydra`` of a configuration may say.

Hydra itself makes callbacks, launchers, sweepers and loggers of it, by import paths of its own, and
would call whatever a stranger's file names there. It is looked at before Hydra does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ensemble_kd.errors import UserError

TARGETS = (
    "ensemble_kd.report.sweep.SweepReport",
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
)
"""What Hydra may construct for a run or a sweep."""

HANDLERS = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler")
FORMATTERS = ("colorlog.ColoredFormatter",)
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")

TYPED = ("allow", "hydra")
"""Keys that a sweep's own ranges must not set: they are typed, or are in no sweep."""


def expect_harmless(hydra: DictConfig) -> None:
    """Nothing in the node may call, import or set anything but what a run or a sweep needs.

    Raises:
        UserError: something may.
    """
    for name in ("callbacks", "launcher", "sweeper"):
        for key, value in _values(hydra, name, "hydra"):
            if key.endswith("._target_") and value not in TARGETS:
                raise UserError(f"{key}: expected one of {', '.join(TARGETS)}, got {value!r}")
    for name in ("job_logging", "hydra_logging"):
        for key, value in _values(hydra, name, "hydra"):
            _expect_plain_logging(key, value)
    for name in ("env_set", "env_copy"):
        if hydra.job.get(name):
            raise UserError(
                f"hydra.job.{name}: expected nothing: set variables of the environment before the "
                f"command, got {hydra.job.get(name)!r}"
            )
    folder = hydra.get("output_subdir")
    if folder is not None and (".." in PurePath(folder).parts or PurePath(folder).is_absolute()):
        raise UserError(f"hydra.output_subdir: expected a folder in that of the run, got {folder}")
    for key in swept(hydra):
        if re.split(r"[.@/]", key.lstrip("+~"))[0] in TYPED:
            raise UserError(f"hydra.sweeper.params: {key} cannot be swept: type it on the command")


def swept(hydra: DictConfig) -> dict[str, str]:
    """What a sweep of a configuration file runs through: values by key, in Hydra's grammar."""
    params: Any = OmegaConf.select(hydra, "sweeper.params")
    if not isinstance(params, DictConfig):
        return {}
    return {str(key): str(value) for key, value in params.items()}


def expect_typed(config: DictConfig, overrides: Sequence[str]) -> None:
    """Packages are allowed by whoever types a command, and by no file that comes with a method.

    Args:
        config: as composed.
        overrides: from which.

    Raises:
        UserError: a file allows some.
    """
    allow = config.get("allow")
    if allow and not any(re.match(r"\+{0,2}allow=", override) for override in overrides):
        names = ",".join(map(str, allow)) if isinstance(allow, ListConfig) else str(allow)
        raise UserError(
            f"allow: a file asks for [{names}]; whoever trusts these packages types it: "
            f"'allow=[{names}]'"
        )


def _values(parent: DictConfig, name: str, key: str) -> Iterator[tuple[str, Any]]:
    """The values below a key, with their keys, as they are when Hydra reads them."""
    yield from _inside(parent, name, f"{key}.{name}")


def _inside(parent: Any, name: Any, key: str) -> Iterator[tuple[str, Any]]:
    node = parent._get_node(name)
    interpolated = node is not None and node._is_interpolation()
    try:
        value = None if OmegaConf.is_missing(parent, name) else parent[name]
    except OmegaConfBaseException as failure:
        raise UserError(f"{key}: {str(failure).splitlines()[0]}") from failure
    if isinstance(value, DictConfig | ListConfig):
        if interpolated:
            raise UserError(f"{key}: expected what stands there, got an interpolation")
        within = value if isinstance(value, DictConfig) else range(len(value))
        for inner in list(within):
            yield from _inside(value, inner, f"{key}.{inner}")
    else:
        yield key, value


def _expect_plain_logging(key: str, value: Any) -> None:
    last = key.rpartition(".")[2]
    known = HANDLERS if last == "class" else FORMATTERS if last == "()" else None
    if known is not None and value not in known:
        raise UserError(f"{key}: expected one of {', '.join(known)}, got {value!r}")
    text = value if isinstance(value, str) else ""
    if text.startswith(("ext://", "cfg://")) and text not in STREAMS:
        raise UserError(f"{key}: expected one of {', '.join(STREAMS)}, got {value!r}")
