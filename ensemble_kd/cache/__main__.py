"""``python -m ensemble_kd.cache``: lists, checks and removes what is kept of teachers' outputs.

Status 1 where ``verify`` finds damage, 2 for a user's mistake.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ensemble_kd.cache.manifest import MANIFEST, DamagedError, read_manifest
from ensemble_kd.cache.record import verify
from ensemble_kd.cache.shelf import Shelf
from ensemble_kd.cache.stock import Entry, discard, entries
from ensemble_kd.cache.writer import megabytes
from ensemble_kd.commands import Parser, status
from ensemble_kd.errors import UserError

SUBFOLDER = "outputs"
DAY = 86400.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    chosen = _parser().parse_args(arguments)
    return status(lambda: _carried_out(chosen))


def _carried_out(chosen: argparse.Namespace) -> int:
    root = chosen.root or Path(os.environ.get("ENSEMBLE_KD_STORE") or "outputs/store")
    folder: Path = root / SUBFOLDER
    if chosen.root is not None and not root.is_dir():
        raise UserError(f"--root must be a folder that is there, got {root}")
    if chosen.command == "ls":
        return _list(folder)
    if chosen.command == "verify":
        return _verify(folder)
    return _collect(folder, chosen.older_than, chosen.yes)


def _parser() -> argparse.ArgumentParser:
    shared = Parser(add_help=False)
    shared.add_argument(
        "--root",
        type=Path,
        metavar="FOLDER",
        help="the store; default: $ENSEMBLE_KD_STORE, or else outputs/store",
    )
    parser = Parser(
        prog="python -m ensemble_kd.cache", description="What is kept of teachers' outputs."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="ls|verify|gc")
    commands.add_parser("ls", parents=[shared], help="list what is kept")
    commands.add_parser("verify", parents=[shared], help="hold all records against their digests")
    collect = commands.add_parser(
        "gc", parents=[shared], help="remove what is unfinished or damaged"
    )
    collect.add_argument(
        "--older-than",
        type=_days,
        metavar="DAYS",
        help="also records that were not read for so long",
    )
    collect.add_argument("--yes", action="store_true", help="do it; otherwise it is only said")
    return parser


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of days >= 0, got {text!r}")
    return days


def _list(root: Path) -> int:
    found = entries(root)
    rows = [_row(entry) for entry in found]
    _table(
        f"outputs of teachers in {root}: {megabytes(sum(entry.size for entry in found))}",
        ("key", "state", "answers", "samples", "views", "shape", "format", "size", "last used"),
        rows,
    )
    return 0


def _row(entry: Entry) -> tuple[str, ...]:
    from ensemble_kd.report.console import UNKNOWN

    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used)) if entry.used else UNKNOWN
    try:
        said = read_manifest(entry.folder / MANIFEST)
        sizes = [f"{said.samples:,}", f"{said.views:,}", " x ".join(map(str, said.shape))]
        content = [str(said.described.get("answers", UNKNOWN)), *sizes, said.format]
    except UserError:
        content = [UNKNOWN] * 5
    return (entry.folder.name, entry.kind, *content, megabytes(entry.size), used)


def _verify(root: Path) -> int:
    rows, damaged = [], 0
    for entry in entries(root):
        if entry.kind != "record":
            continue
        try:
            verify(entry.folder)
            rows.append((entry.folder.name, "whole", megabytes(entry.size)))
        except DamagedError as damage:
            rows.append((entry.folder.name, "damaged", megabytes(entry.size)))
            print(f"damaged: {damage}", file=sys.stderr)
            damaged += 1
    _table(
        f"records in {root}: {len(rows)}, of which {damaged} damaged",
        ("key", "state", "size"),
        rows,
    )
    return 1 if damaged else 0


def _collect(root: Path, older_than: float | None, sure: bool) -> int:
    shelf = Shelf(root)
    limit = None if older_than is None else time.time() - older_than * DAY
    going = [
        entry
        for entry in entries(root)
        if entry.kind != "record" or (limit is not None and entry.used <= limit)
    ]
    rows, freed, busy = [], 0, 0
    for entry in going:
        state: str = entry.kind
        try:
            if sure:
                discard(shelf, entry)
            freed += entry.size
        except UserError as refusal:
            print(f"kept: {refusal}", file=sys.stderr)
            state, busy = "kept", busy + 1
        rows.append((entry.folder.name, state, megabytes(entry.size)))
    said = "freed" if sure else "would be freed; --yes does it"
    count = f"{len(rows) - busy} folders, {megabytes(freed)}" if rows else "nothing"
    _table(f"{root}: {count} {said}", ("key", "state", "size"), rows)
    return 2 if busy else 0


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from ensemble_kd.report.console import open_console, show_table, start_table

    console = open_console()
    table = start_table(columns, plain=not console.is_terminal)
    for row in rows:
        table.add_row(*row)
    if rows:
        show_table(console, title, table)
    else:
        console.print(title, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
