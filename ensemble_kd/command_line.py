"""What ``--help`` says.

The configuration is read as plain text, without Hydra, so that the answer comes at once.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ensemble_kd.groups import options
from ensemble_kd.mistakes import explain
from ensemble_kd.paths import conf_dir
from ensemble_kd.version import __version__

__all__ = ["explain", "help_text"]

WIDTH = 100
NAME_WIDTH = 24

EXAMPLES = {
    "python -m ensemble_kd teacher=ensemble3 strategy=assistant": (
        "three teachers, an assistant taught by them, and a student taught by the assistant"
    ),
    "python -m ensemble_kd strategy=assistant strategy.assistants=[cnn_large,cnn_medium]": (
        "a chain of two assistants; in some shells the brackets need quotes"
    ),
    "python -m ensemble_kd strategy=mutual objective.temperature=2 epochs=20 seed=1": (
        "any value of the configuration is a KEY=VALUE"
    ),
    "python -m ensemble_kd --multirun strategy=parallel,assistant,mutual seed=0,1,2": (
        "nine runs that train each shared teacher once, and a table of means and deviations"
    ),
    "python -m ensemble_kd --config-dir my_conf data=my_data": (
        "an option of your own, read from my_conf/data/my_data.yaml"
    ),
}

FLAGS = {
    "--multirun, -m": "run every combination of the values given as A,B,C or range(3) or glob(*)",
    "--config-dir FOLDER": "add the groups and options of a folder of your own",
    "--cfg job": "print the whole configuration of this command and stop",
    "--hydra-help": "flags of Hydra that are not listed here, such as shell completion",
    "--help, -h": "this text",
    "--version": "the version",
}


class Described(NamedTuple):
    """A name, its value where it has one, and what its comment says of it."""

    name: str
    value: str
    comment: str


def help_text(arguments: Sequence[str] = ()) -> str:
    """The answer to ``--help``.

    Args:
        arguments: the command line, for the sake of a ``--config-dir`` in it.
    """
    groups = options([*_config_dirs(arguments), conf_dir()])
    defaults, settings = _primary(conf_dir() / "config.yaml")
    lines = [
        f"ensemble-kd {__version__}: distil several good models into one small one.",
        "",
        "Usage: python -m ensemble_kd [FLAG ...] [GROUP=OPTION ...] [KEY=VALUE ...]",
        "Installed, `ensemble-kd` is the same command.",
        "",
        "Groups: choose one option of each, * is the default.",
    ]
    chosen = {default.name: default for default in defaults}
    for group in [
        *(name for name in chosen if name in groups),
        *(g for g in groups if g not in chosen),
    ]:
        default = chosen.get(group, Described(group, "", ""))
        lines += ["", *_row(group, default.comment, indent=0)]
        for option, comment in groups[group].items():
            lines += _row(("* " if option == default.value else "  ") + option, comment)
    lines += ["", "Settings, with their defaults (--cfg job shows those of the options too):", ""]
    for setting in settings:
        lines += _row(f"{setting.name}={setting.value}", setting.comment)
    lines += ["", "Flags:", ""]
    for flag, meaning in FLAGS.items():
        lines += _row(flag, meaning)
    lines += ["", "Examples:"]
    for command, meaning in EXAMPLES.items():
        lines += ["", f"  {command}", f"      {meaning}"]
    return "\n".join(lines)


def _row(name: str, comment: str, indent: int = 2) -> list[str]:
    """A name and, in a column of their own, the words that describe it."""
    label = " " * indent + name
    if not comment:
        return [label]
    if len(label) >= NAME_WIDTH:
        return [label, *_row("", comment, NAME_WIDTH - 1)]
    return textwrap.wrap(
        comment,
        WIDTH,
        initial_indent=label.ljust(NAME_WIDTH),
        subsequent_indent=" " * NAME_WIDTH,
        break_on_hyphens=False,
    )


def _primary(path: Path) -> tuple[list[Described], list[Described]]:
    """The choices and the settings that the primary configuration makes, with their comments.

    Settings are the plain values at its top, and those of an inner mapping that carry a comment.
    """
    defaults: list[Described] = []
    settings: list[Described] = []
    block = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = re.match(r"( *)(?:- +)?(?:override +)?([\w/]+): *([^#]*?) *(?:# *(.*))?$", line)
        if entry is None:
            continue
        indent, name, value, comment = entry[1], entry[2], entry[3], entry[4] or ""
        if not indent:
            block = name
        if block == "defaults" and value:
            defaults.append(Described(name, value, comment))
        elif block not in ("defaults", "hydra") and value and not name.startswith("_"):
            if not indent:
                settings.append(Described(name, value, comment))
            elif len(indent) == 2 and comment:
                settings.append(Described(f"{block}.{name}", value, comment))
    return defaults, settings


def _config_dirs(arguments: Sequence[str]) -> list[Path]:
    """The folder that ``--config-dir`` names in a command line, in a list that may be empty."""
    found: list[str] = []
    for position, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            found = [value] if equals else list(arguments[position + 1 : position + 2])
    return [Path(folder) for folder in found]
