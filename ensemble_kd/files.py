"""Files that are whole or not there, and on the disk for certain."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble_kd.errors import UserError, concealed


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or all of the new one, never a part.

    Args:
        path: the file; its folder is made if need be.
        content: text is written as UTF-8.

    Raises:
        UserError: the file system refuses.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        overwrite(path, data)
    except OSError as failure:
        raise UserError(f"cannot write {path}: {failure.strerror or failure}") from failure


def overwrite(path: Path, data: bytes) -> None:
    """As ``write_whole``, in a folder that is there, for callers with words of their own.

    Raises:
        OSError: the file system refuses.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(data)
        flush(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the bytes on the disk before the name is: a power cut must not leave an empty file.

    Args:
        path: a file, or a folder in which names have changed.

    Raises:
        OSError: the file system refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    said = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            said.update(chunk)
    return said.hexdigest()


def megabytes(size: int) -> str:
    """A size to be read by people, such as ``1,234.5 MB``; small ones in bytes."""
    return f"{size / 1e6:,.1f} MB" if size >= 10**5 else f"{size:,} bytes"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, without NaN and infinities, which become null, and without secrets.

    Secrets are those of the environment, see ``errors.concealed``.
    """
    written = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(path, written + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        return concealed(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
