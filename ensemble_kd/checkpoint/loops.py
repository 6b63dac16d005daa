"""Lightning's counts, written so that its loops take up exactly the batch that comes next."""

from __future__ import annotations

from typing import Any

FIELDS = ("ready", "started", "processed", "completed")


def settle(counts: dict[str, Any], epoch: int, batch: int) -> None:
    """Say that a training stands between two batches, or between two epochs.

    Lightning counts an epoch and a batch in four steps, and where a checkpoint falls between these
    it guesses on loading which hooks have been called: after an epoch it may take up batches that
    are done, or step its count for loggers once too often. Between two batches there is nothing to
    guess, so that is what is written.

    Args:
        counts: the state of the fit loop, from a checkpoint that is made before a batch starts or
            before an epoch does; it is changed.
        epoch: epochs that are done.
        batch: batches of the epoch after them that are done.
    """
    begun = epoch + (1 if batch else 0)
    for progress in ("total", "current"):
        counts["epoch_progress"][progress] = {
            "ready": begun,
            "started": begun,
            "processed": epoch,
            "completed": epoch,
        }
    batches = counts["epoch_loop.batch_progress"]
    batches["total"] = dict.fromkeys(FIELDS, batches["total"]["completed"])
    batches["current"] = dict.fromkeys(FIELDS, batch)
    batches["is_last_batch"] = False
