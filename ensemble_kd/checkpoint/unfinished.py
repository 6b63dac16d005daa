"""What an earlier attempt at a stage has left in its unfinished folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from ensemble_kd.artefact import Artefact, read_artefact, snapshots_in
from ensemble_kd.checkpoint.files import FOLDER, Checkpoints
from ensemble_kd.errors import UserError


def finished(unfinished: Path, digest: str) -> Artefact | None:
    """The artefact in a folder that an earlier attempt had filled, but not yet given its name."""
    try:
        found = read_artefact(unfinished)
    except UserError:
        return None
    if found.digest != digest:
        return None
    # It may have been cut off while it removed these, which are of no use any more.
    shutil.rmtree(unfinished / FOLDER, ignore_errors=True)
    return found


def taken_up(unfinished: Path, checkpoints: Checkpoints) -> Path | None:
    """The checkpoint from which a stage goes on; what it has no use for is removed.

    Raises:
        UserError: the file system refuses.
    """
    checkpoint = checkpoints.newest()
    kept = {checkpoints.folder, *(snapshots_in(unfinished) if checkpoint else ())}
    try:
        for path in set(unfinished.iterdir()) - kept:
            path.unlink()
    except OSError as failure:
        raise UserError(f"{unfinished}: {failure.strerror or failure}") from failure
    return checkpoint
