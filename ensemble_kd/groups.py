"""The groups of the configuration and their options, read from the folders without Hydra."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def options(folders: Iterable[Path]) -> dict[str, dict[str, str]]:
    """For each group its options, and for each option the first comment line of its file.

    Args:
        folders: configuration folders; where two of them have an option, the first one counts,
            as it does for Hydra. A folder that does not exist has no groups.
    """
    found: dict[str, dict[str, str]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            group, option = split(path, folder)
            if option:
                found.setdefault(group, {}).setdefault(option, _first_comment(path))
    return {group: dict(sorted(found[group].items())) for group in sorted(found)}


def split(path: Path, folder: Path) -> tuple[str, str]:
    """The group and the option whose file this is; no option for a file beside the groups.

    Hydra's own groups lie one folder deeper, as ``hydra/launcher`` does.

    Args:
        path: a file somewhere in the folder.
        folder: a configuration folder.
    """
    name = path.relative_to(folder).with_suffix("").as_posix()
    group, _, option = name.rpartition("/") if name.startswith("hydra/") else name.partition("/")
    return group, option


def _first_comment(path: Path) -> str:
    """The first comment line of a file that is not a directive to Hydra; empty without one."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text and not text.startswith("#"):
            return ""
        comment = text.lstrip("# ")
        if comment and not comment.startswith("@"):
            return comment
    return ""
