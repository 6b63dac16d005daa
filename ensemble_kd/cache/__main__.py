"""``python -m ensemble_kd.cache``: fills, lists, checks and removes records of teachers' outputs.

Status 1 where ``verify`` finds damage, 2 for a user's mistake.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ensemble_kd.cache.manifest import MANIFEST, read_manifest
from ensemble_kd.cache.record import verify
from ensemble_kd.cache.shelf import Shelf
from ensemble_kd.commands import status
from ensemble_kd.errors import UserError
from ensemble_kd.files import megabytes
from ensemble_kd.store import housekeeping
from ensemble_kd.store.housekeeping import moment, outlived, root_of, table
from ensemble_kd.store.keyed import Entry

SUBFOLDER = "outputs"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = _parser()
    chosen, rest = parser.parse_known_args(arguments)
    if chosen.command == "fill" and not any(word.startswith("-") for word in rest):
        chosen.overrides += rest  # those behind a flag
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return status(
        lambda: _carried_out(chosen),
        "interrupted: what was written stays; the same command goes on from there",
    )


def _carried_out(chosen: argparse.Namespace) -> int:
    if chosen.command == "fill":
        return _fill(chosen)
    shelf = Shelf(root_of(chosen) / SUBFOLDER)
    if chosen.command == "ls":
        return _list(shelf)
    if chosen.command == "verify":
        return housekeeping.verify(f"records in {shelf.root}", shelf.keyed.entries(), _held)
    return housekeeping.collect(
        shelf.keyed,
        lambda entry: entry.kind != "whole" or outlived(entry, chosen.older_than),
        chosen.yes,
    )


def _parser() -> argparse.ArgumentParser:
    parser, commands = housekeeping.parser(
        "python -m ensemble_kd.cache",
        "What is kept of teachers' outputs.",
        "what is unfinished or damaged",
        "records that were not read for so long",
        "|fill",
    )
    filling = commands.add_parser(
        "fill", help="ask teachers all that a run will, by several processes, on several machines"
    )
    filling.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="those of the run")
    filling.add_argument(
        "--workers", type=_number, default=1, metavar="N", help="processes on this machine"
    )
    filling.add_argument(
        "--config-dir", metavar="FOLDER", help="add the groups and options of a folder of your own"
    )
    # A process that was started by another one, which says on standard input what to fill.
    filling.add_argument("--assist", action="store_true", help=argparse.SUPPRESS)
    filling.add_argument("--threads", type=_number, default=1, help=argparse.SUPPRESS)
    filling.add_argument("--stage", help=argparse.SUPPRESS)
    filling.add_argument("--ahead", action="store_true", help=argparse.SUPPRESS)
    return parser


def _fill(chosen: argparse.Namespace) -> int:
    from ensemble_kd.asking.prefill import assist, fill
    from ensemble_kd.job import config_dirs

    if chosen.assist:
        assist(sys.stdin.read(), chosen.stage, chosen.threads, chosen.ahead)
    else:
        fill(chosen.overrides, config_dirs(chosen.config_dir), chosen.workers)
    return 0


def _number(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= 1024:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 1024, got {text!r}")
    return number


def _list(shelf: Shelf) -> int:
    found = shelf.keyed.entries()
    table(
        f"outputs of teachers in {shelf.root}: {megabytes(sum(entry.size for entry in found))}",
        ("key", "state", "answers", "samples", "views", "shape", "format", "size", "last used"),
        [_row(entry) for entry in found],
    )
    return 0


def _row(entry: Entry) -> tuple[str, ...]:
    from ensemble_kd.report.console import UNKNOWN

    try:
        said = read_manifest(entry.folder / MANIFEST)
        sizes = [f"{said.samples:,}", f"{said.views:,}", " x ".join(map(str, said.shape))]
        content = [str(said.described.get("answers", UNKNOWN)), *sizes, said.format]
    except UserError:
        content = [UNKNOWN] * 5
    return (
        *(entry.folder.name, entry.kind),
        *content,
        *(megabytes(entry.size), moment(entry.used)),
    )


def _held(folder: Path) -> str:
    verify(folder)
    return ""


if __name__ == "__main__":
    sys.exit(main())
