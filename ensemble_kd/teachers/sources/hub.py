"""Folders of trained networks: here, or on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import one_line
from ensemble_kd.optional import optional

READ = ("*.json", "*.txt", "*.model", "*.safetensors")
"""The files that are downloaded and read: settings, vocabularies, weights; never a pickle."""

BRANCHES = ("main", "master", "HEAD")
"""Revisions that are another one tomorrow."""

_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def folder_of(path: str, revision: str | None, extra: str) -> Path:
    """A folder, downloaded if it is none here.

    Args:
        path: a folder, or the id of a repository on the hub.
        revision: there, a commit or a tag; needed for a repository.
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
    if revision is None or revision in BRANCHES:
        raise UserError(
            f"{path}: no such folder; as the id of a repository on the hub it needs revision: a "
            f"commit or a tag, which stays what it is, got {revision!r}"
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
    """The files of a folder that decide what its network says."""
    return sorted(file for pattern in READ for file in folder.glob(pattern) if file.is_file())


def check_weights(folder: Path) -> None:
    """Make sure that a folder holds weights as safetensors.

    Raises:
        UserError: it holds none, or others.
    """
    if any(folder.glob("*.safetensors")):
        return
    others = sorted(
        file.name
        for kind in ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.pkl", "*.ckpt")
        for file in folder.glob(kind)
    )
    found = f"got {', '.join(others[:3])}" if others else "found none"
    raise UserError(
        f"{folder}: expected weights as safetensors, {found}; nothing is unpickled: "
        "model.save_pretrained(folder) writes safetensors"
    )
