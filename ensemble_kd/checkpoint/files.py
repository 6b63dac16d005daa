"""Checkpoints as files: whole or not there, recognised by their digest, the one before kept."""

from __future__ import annotations

import hashlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from ensemble_kd.errors import UserError
from ensemble_kd.files import file_digest, flush

FOLDER = "checkpoint"
"""Where checkpoints lie in the unfinished folder of a stage."""

UNFINISHED = "unfinished"
"""The one that is being written."""

KEPT = 2
"""The newest ones stay: should the last be damaged, there is the one before."""

NAME = re.compile(r"(\d{12})-([0-9a-f]{64})\.ckpt")


class Checkpoints:
    """The checkpoints of one stage.

    Each is a file that ``torch.load(weights_only=True)`` reads. Its name holds how many batches had
    been seen and the sha256 of its content, so that one renaming makes both visible at once.

    Args:
        folder: made when the first is written.
        stage: name of the stage, for messages.
    """

    def __init__(self, folder: Path, stage: str) -> None:
        self.folder = folder
        self.stage = stage

    @property
    def unfinished(self) -> Path:
        """Where one lies while it is written."""
        return self.folder / UNFINISHED

    def newest(self) -> Path | None:
        """The last one that is whole; None when there is none.

        A damaged one is reported, gets another name and counts as none.

        Raises:
            UserError: the file system refuses.
        """
        try:
            self.unfinished.unlink(missing_ok=True)
            for path in reversed(self._present()):
                if _digest(path) == file_digest(path) and _readable(path):
                    return path
                aside = path.with_name(f"{path.name}.damaged")
                path.rename(aside)
                print(
                    f"damaged checkpoint of stage {self.stage} set aside as {aside}: its content "
                    "is not what was written; the training goes on from the one before it, or else "
                    "from the beginning",
                    file=sys.stderr,
                )
        except OSError as failure:
            raise UserError(
                f"{self.folder}: the checkpoints of stage {self.stage} could not be read: "
                f"{failure.strerror or failure}"
            ) from failure
        return None

    def write(self, content: Any, batches: int) -> None:
        """Add one; all but the two newest are removed once it is there for certain.

        Args:
            content: tensors and plain values.
            batches: how many the training had seen.

        Raises:
            UserError: the file system refuses; those that were whole still are.
        """
        buffer = io.BytesIO()
        torch.save(content, buffer)
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
        unfinished = self.unfinished
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                unfinished.write_bytes(buffer.getbuffer())
                flush(unfinished)
                unfinished.rename(self.folder / f"{batches:012d}-{digest}.ckpt")
            finally:
                unfinished.unlink(missing_ok=True)
            flush(self.folder)
            for path in self._present()[:-KEPT]:
                path.unlink()
        except OSError as failure:
            raise UserError(
                f"stage {self.stage}: no checkpoint could be written into {self.folder}: "
                f"{failure.strerror or failure}; what was whole still is, and the same command "
                "goes on from there"
            ) from failure

    def _present(self) -> list[Path]:
        """Whole or damaged, the oldest first."""
        if not self.folder.is_dir():
            return []
        found = [
            path
            for path in self.folder.iterdir()
            if NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink()
        ]
        return sorted(found, key=lambda path: (path.name[:12], path.stat().st_mtime_ns))


class Written(TorchCheckpointIO):
    """What Lightning writes a checkpoint with: as one of the ``Checkpoints``.

    Reading is Lightning's own, and so is whatever else it may write.

    Args:
        checkpoints: where to.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        super().__init__()
        self.checkpoints = checkpoints

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write one, under its own name if ``path`` is where the checkpoints are begun."""
        if Path(path) != self.checkpoints.unfinished:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        self.checkpoints.write(checkpoint, progress["total"]["completed"])


def _readable(path: Path) -> bool:
    """Whether it holds no other objects than tensors and plain values, under names."""
    try:
        return isinstance(torch.load(path, "cpu", weights_only=True, mmap=True), dict)
    except Exception:  # whatever a file that somebody else put there makes of its reader
        return False


def _digest(path: Path) -> str:
    found = NAME.fullmatch(path.name)
    if found is None:
        raise ValueError(f"expected the name of a checkpoint, got {path.name}")
    return found[2]
