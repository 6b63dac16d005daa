"""The store: artefacts by the digest of all that determined them. Atomic, locked, verified."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ensemble_kd.artefact import PROVENANCE, Artefact, read_artefact
from ensemble_kd.errors import UserError
from ensemble_kd.files import flush
from ensemble_kd.store.keyed import Keyed


class Store:
    """A folder of artefact folders, shared by all runs that point at it.

    Args:
        root: where it lies; made when the first artefact is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keyed = Keyed(root, PROVENANCE, "paths.store")

    def find(self, digest: str) -> Artefact | None:
        """The artefact of a digest, verified; None when there is none.

        A damaged one is reported, set aside under another name, and counts as none.

        Args:
            digest: in hex; its lock must be held.

        Raises:
            UserError: a damaged one cannot be set aside.
        """
        folder = self.folder(digest)
        if not folder.exists():
            return None
        try:
            artefact = read_artefact(folder)
            if artefact.digest != digest:
                raise UserError(f"{folder}: wrong digest: expected {digest}, got {artefact.digest}")
        except UserError as damage:
            self.keyed.set_aside(folder, damage)
            return None
        # When it was last used, for ``gc``; a store may be shared by those who cannot write to it.
        with suppress(OSError):
            os.utime(folder / PROVENANCE)
        return artefact

    @contextmanager
    def locked(self, digest: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the only right to produce an artefact; a second run waits here, then finds it.

        Args:
            digest: in hex.
            waiting: called once, where another run takes longer than a moment.
        """
        with self.keyed.locked(digest, waiting=waiting):
            yield

    @contextmanager
    def writing(self, digest: str) -> Iterator[Path]:
        """A folder to write an artefact into; it appears under its name only when it is whole.

        What is cut off stays where it is, and the next attempt finds it: a checkpoint, from which
        to go on. Whoever writes clears what is of no use.

        Args:
            digest: in hex; its lock must be held.

        Raises:
            UserError: the file system refuses; nothing that was whole is touched.
        """
        unfinished = self.keyed.unfinished(digest)
        self.keyed.make(unfinished)
        yield unfinished
        try:
            for path in unfinished.iterdir():
                flush(path)
            flush(unfinished)
            unfinished.rename(self.folder(digest))
            flush(self.root)
        except OSError as failure:
            raise UserError(
                f"paths.store: {unfinished} could not be finished: {failure.strerror or failure}; "
                "what was whole still is, and the same command goes on from there"
            ) from failure

    def folder(self, digest: str) -> Path:
        """Where the artefact of a digest lies, if it is there."""
        return self.keyed.folder(digest)
