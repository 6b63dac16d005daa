"""Folders of trained networks: here, or on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import is_commit, one_line
from ensemble_kd.optional import optional
from ensemble_kd.plain_files import read_json

SETTINGS = ("*.json", "*.txt", "*.model")
READ = (*SETTINGS, "*.safetensors")
"""The files that are downloaded: settings, vocabularies, weights; never a pickle."""

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
"""Says which weights lie in which of several files."""

_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def folder_of(path: str, revision: str | None, extra: str) -> Path:
    """A folder, downloaded if it is none here.

    Args:
        path: a folder, or the id of a repository on the hub.
        revision: there, the commit, 40 hexadecimal digits; needed for a repository.
        extra: of this project, which brings the client.

    Raises:
        UserError: no such folder, no revision, or the hub has no such thing.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"{path}: expected a folder, got a file")
    if folder.is_absolute() or path.startswith((".", "~")) or not _ID.fullmatch(path):
        raise UserError(f"{path}: expected a folder, found none")
    if not is_commit(revision):
        raise UserError(
            f"{path}: no such folder; as the id of a repository on the hub it needs as revision "
            f"the commit, 40 hexadecimal digits, got {revision!r}"
        )
    hub: Any = optional("huggingface_hub", extra, f"{path}, which is no folder,")
    try:
        found = hub.snapshot_download(
            path, revision=revision, allow_patterns=list(READ), ignore_patterns=["*/*"]
        )
    except Exception as failure:  # the client's errors have no common class
        raise UserError(f"{path} at {revision}: not on the hub: {one_line(failure)}") from failure
    return Path(found)


def files_in(folder: Path) -> list[Path]:
    """The files of a folder that decide what its network says.

    Raises:
        UserError: there are no weights, see ``weights_in``.
    """
    settings = [file for kind in SETTINGS for file in folder.glob(kind) if file.is_file()]
    return sorted([*settings, *weights_in(folder)])


def weights_in(folder: Path) -> list[Path]:
    """The weights in a folder: ``model.safetensors``, or the files that its index names.

    Raises:
        UserError: it holds none or others, or the index names a file that does not lie there.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _parts(folder / INDEX)
    others = sorted(
        file.name
        for kind in (
            "*.bin",
            "*.pt",
            "*.pth",
            "*.h5",
            "*.msgpack",
            "*.pkl",
            "*.ckpt",
            "*.safetensors",
        )
        for file in folder.glob(kind)
    )
    found = f"got {', '.join(others[:3])}" if others else "found none"
    raise UserError(
        f"{folder}: expected weights as {WEIGHTS}, {found}; nothing is unpickled: "
        "model.save_pretrained(folder) writes safetensors"
    )


def _parts(index: Path) -> list[Path]:
    """The files that an index names, all of them beside it."""
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as failure:
        raise UserError(
            f"{index}: expected weight_map, the file of each weight: {one_line(failure)}"
        ) from failure
    for name in names:
        if not (isinstance(name, str) and re.fullmatch(r"[\w.-]+\.safetensors", name)):
            raise UserError(f"{index}: expected names of files *.safetensors, got {name!r}")
        if not (index.parent / name).is_file():
            raise UserError(f"{index}: {name}: no such file")
    if not names:
        raise UserError(f"{index}: expected weights, got none")
    return [index.parent / name for name in names]
