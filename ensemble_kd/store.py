"""The store: artefacts by the digest of all that determined them. Atomic, locked, verified."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from ensemble_kd.artefact import Artefact, read_artefact
from ensemble_kd.errors import UserError
from ensemble_kd.files import flush

KEY_LENGTH = 32
"""Hex characters of the digest that name a folder."""


class Store:
    """A folder of artefact folders, shared by all runs that point at it.

    Args:
        root: where it lies; made when the first artefact is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, digest: str) -> Artefact | None:
        """The artefact of a digest, verified; None when there is none.

        A damaged one is reported, set aside under another name, and counts as none.
        """
        folder = self.folder(digest)
        if not folder.is_dir():
            return None
        try:
            artefact = read_artefact(folder)
            if artefact.digest != digest:
                raise UserError(f"{folder}: wrong digest: expected {digest}, got {artefact.digest}")
        except UserError as damage:
            aside = self._free_name(folder)
            folder.rename(aside)
            print(f"damaged artefact set aside as {aside}: {damage}", file=sys.stderr)
            return None
        return artefact

    @contextmanager
    def locked(self, digest: str) -> Iterator[None]:
        """Hold the only right to produce an artefact; a second run waits here, then finds it."""
        self._make(self.root / ".locks")
        with FileLock(self.root / ".locks" / f"{digest[:KEY_LENGTH]}.lock"):
            yield

    @contextmanager
    def writing(self, digest: str) -> Iterator[Path]:
        """A folder to write an artefact into; it appears under its name only when it is whole."""
        unfinished = self.root / ".unfinished" / digest[:KEY_LENGTH]
        # What a killed run left: whoever holds the lock is the only writer.
        shutil.rmtree(unfinished, ignore_errors=True)
        self._make(unfinished)
        try:
            yield unfinished
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        for path in unfinished.iterdir():
            flush(path)
        unfinished.rename(self.folder(digest))
        flush(self.root)

    def folder(self, digest: str) -> Path:
        return self.root / digest[:KEY_LENGTH]

    def _free_name(self, folder: Path) -> Path:
        number = 1
        while (aside := folder.with_name(f"{folder.name}.damaged-{number}")).exists():
            number += 1
        return aside

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            raise UserError(
                f"paths.store: expected a folder that can be written, got {self.root}: "
                f"{failure.strerror}"
            ) from failure
