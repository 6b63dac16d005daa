"""``python -m ensemble_kd.store``: lists, checks and removes the trained networks of the store.

Status 1 where ``verify`` finds damage, 2 for a user's mistake.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ensemble_kd.artefact import PROVENANCE, read_artefact
from ensemble_kd.commands import status
from ensemble_kd.errors import UserError
from ensemble_kd.files import megabytes
from ensemble_kd.plain_files import read_json
from ensemble_kd.store import Store
from ensemble_kd.store.housekeeping import (
    collect,
    moment,
    outlived,
    parser,
    root_of,
    table,
    verify,
)
from ensemble_kd.store.keyed import Entry

CHECKPOINT = "checkpoint"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    described, _ = parser(
        "python -m ensemble_kd.store",
        "Trained networks that later runs need not train again.",
        "what is damaged, or unfinished without a checkpoint to go on from",
        "networks and checkpoints that were not used for so long",
    )
    chosen = described.parse_args(arguments)
    return status(lambda: _carried_out(chosen))


def _carried_out(chosen: argparse.Namespace) -> int:
    store = Store(root_of(chosen))
    if chosen.command == "ls":
        return _list(store)
    if chosen.command == "verify":
        return verify(
            f"networks in {store.root}",
            store.keyed.entries(),
            lambda folder: _held(store, folder),
            "a damaged network is set aside and trained anew by the next run that needs it",
        )
    return _collect(store, chosen.older_than, chosen.yes)


def _list(store: Store) -> int:
    found = store.keyed.entries()
    table(
        f"networks in {store.root}: {megabytes(sum(entry.size for entry in found))}",
        ("key", "state", "stage", "network", "parameters", "size", "last used"),
        [_row(entry) for entry in found],
    )
    return 0


def _row(entry: Entry) -> tuple[str, ...]:
    from ensemble_kd.report.console import UNKNOWN

    said = _provenance(entry.folder)
    student = said.get("stage", {}).get("student", {})
    target = str(student.get("_target_", UNKNOWN)).rpartition(".")[2]
    parameters = said.get("parameters")
    state = "resumable" if _resumable(entry) else entry.kind
    return (
        entry.folder.name,
        state,
        str(said.get("name", UNKNOWN)),
        target,
        f"{parameters:,}" if isinstance(parameters, int) else UNKNOWN,
        megabytes(entry.size),
        moment(entry.used),
    )


def _provenance(folder: Path) -> dict[str, Any]:
    """What an artefact says of itself; nothing where that cannot be read."""
    try:
        said = read_json(folder / PROVENANCE)
        held: dict[str, Any] = said if isinstance(said.get("stage", {}), dict) else {}
        return held if isinstance(held.get("stage", {}).get("student", {}), dict) else {}
    except (OSError, ValueError, AttributeError):
        return {}


def _held(store: Store, folder: Path) -> str:
    artefact = read_artefact(folder)
    if store.folder(artefact.digest) != folder:
        raise UserError(f"{folder}: wrong digest: got {artefact.digest}")
    return str(artefact.provenance.get("name", ""))


def _resumable(entry: Entry) -> bool:
    return entry.kind == "unfinished" and (entry.folder / CHECKPOINT).is_dir()


def _collect(store: Store, older_than: float | None, sure: bool) -> int:
    def going(entry: Entry) -> bool:
        useless = entry.kind != "whole" and not _resumable(entry)
        return useless or outlived(entry, older_than)

    waiting = [e for e in store.keyed.entries() if _resumable(e) and not going(e)]
    kept = [f"{e.folder.name} stays: the command that was cut off goes on from it" for e in waiting]
    return collect(store.keyed, going, sure, kept)


if __name__ == "__main__":
    sys.exit(main())
