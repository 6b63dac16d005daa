"""Bytes on the disk, and room for more."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ensemble_kd.errors import UserError
from ensemble_kd.files import megabytes


def expect_room(root: Path, needed: int) -> None:
    """Make sure that a disk has so many bytes left.

    Raises:
        UserError: it has not.
    """
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"{root}: the outputs to be kept take {megabytes(needed)}, but the disk has "
            f"{megabytes(free)} left: free some, keep fewer views, choose a smaller cache.format, "
            "or another folder"
        )


def occupied(folder: Path) -> int:
    """Bytes that the files in a folder take on the disk; none where there is no folder."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def write_at(path: Path, offset: int, data: memoryview) -> None:
    """Write all of some bytes into a file, which is made if need be.

    Raises:
        OSError: the file system refuses.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        while data:
            done = os.pwrite(descriptor, data, offset)
            data, offset = data[done:], offset + done
    finally:
        os.close(descriptor)
