"""What a command that lists, checks and removes kept folders has in common with its like."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from ensemble_kd.commands import Parser, path
from ensemble_kd.errors import UserError
from ensemble_kd.files import megabytes
from ensemble_kd.store.keyed import Entry, Keyed

DAY = 86400.0

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What further commands are added to."""


def parser(
    program: str, described: str, collected: str, aged: str, further: str = ""
) -> tuple[argparse.ArgumentParser, Commands]:
    """The command line ``ls | verify | gc``, and what adds other commands to it.

    Args:
        program: how it is called.
        described: what is kept.
        collected: what ``gc`` removes.
        aged: what it removes besides with ``--older-than``.
        further: names of the other commands, such as ``|fill``.
    """
    shared = Parser(add_help=False)
    shared.add_argument(
        "--root",
        type=path,
        metavar="FOLDER",
        help="the store; default: $ENSEMBLE_KD_STORE, or else outputs/store",
    )
    whole = Parser(prog=program, description=described)
    commands = whole.add_subparsers(dest="command", required=True, metavar=f"ls|verify|gc{further}")
    commands.add_parser("ls", parents=[shared], help="list what is kept")
    commands.add_parser("verify", parents=[shared], help="hold all of it against its digests")
    collect = commands.add_parser("gc", parents=[shared], help=f"remove {collected}")
    collect.add_argument("--older-than", type=_days, metavar="DAYS", help=f"also {aged}")
    collect.add_argument("--yes", action="store_true", help="do it; otherwise it is only said")
    return whole, commands


def root_of(chosen: argparse.Namespace) -> Path:
    """The store that a command is about.

    Raises:
        UserError: one was named that is not there.
    """
    root: Path | None = chosen.root
    if root is not None and not root.is_dir():
        raise UserError(f"--root must be a folder that is there, got {root}")
    return root or Path(os.environ.get("ENSEMBLE_KD_STORE") or "outputs/store")


def outlived(entry: Entry, older_than: float | None) -> bool:
    """Whether a folder was not used for so many days; None for no limit."""
    return older_than is not None and entry.used <= time.time() - older_than * DAY


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of days >= 0, got {text!r}")
    return days


def verify(
    title: str, entries: Sequence[Entry], hold: Callable[[Path], str], hint: str = ""
) -> int:
    """Hold whole folders against their digests, and show which are damaged.

    Args:
        title: what they are, and where.
        entries: all that lies there.
        hold: raises ``UserError`` for a damaged folder; returns a few words on a whole one.
        hint: a line for whoever has a damaged one.

    Returns:
        The exit status: 1 where something is damaged.
    """
    rows, damaged = [], 0
    for entry in entries:
        if entry.kind != "whole":
            continue
        try:
            rows.append((entry.folder.name, "whole", megabytes(entry.size), hold(entry.folder)))
        except UserError as damage:
            rows.append((entry.folder.name, "damaged", megabytes(entry.size), ""))
            print(f"damaged: {damage}", file=sys.stderr)
            damaged += 1
    table(f"{title}: {len(rows)}, of which {damaged} damaged", ("key", "state", "size", ""), rows)
    if damaged and hint:
        print(hint)
    return 1 if damaged else 0


def collect(
    keyed: Keyed, going: Callable[[Entry], bool], sure: bool, kept: Sequence[str] = ()
) -> int:
    """Remove folders, or say which would be removed.

    Args:
        keyed: where they lie.
        going: whether a folder is to go; asked again under its lock.
        sure: do it.
        kept: lines on what stays, for the end.

    Returns:
        The exit status: 2 where something could not be removed.
    """
    rows, freed, busy = [], 0, 0
    for entry in filter(going, keyed.entries()):
        state: str = entry.kind
        try:
            if sure:
                keyed.discard(entry, going)
            freed += entry.size
        except UserError as refusal:
            print(f"kept: {refusal}", file=sys.stderr)
            state, busy = "kept", busy + 1
        rows.append((entry.folder.name, state, megabytes(entry.size)))
    said = "freed" if sure else "would be freed; --yes does it"
    count = f"{len(rows) - busy} folders, {megabytes(freed)}" if rows else "nothing"
    table(f"{keyed.root}: {count} {said}", ("key", "state", "size"), rows)
    for line in kept:
        print(line)
    return 2 if busy else 0


def moment(seconds: float) -> str:
    """A time since 1970 as date and time, here; a dash for none."""
    from ensemble_kd.report.console import UNKNOWN

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else UNKNOWN


def harmless(text: str) -> str:
    """A text without characters that a terminal might obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table, or only its title where it has no rows.

    What stands in it may come from files of strangers, so it is shown as it is, without effects.
    """
    from rich.text import Text

    from ensemble_kd.report.console import open_console, show_table, start_table

    console = open_console()
    shown = start_table(columns, plain=not console.is_terminal)
    for row in rows:
        shown.add_row(*(Text(harmless(cell)) for cell in row))
    if rows:
        show_table(console, title, shown)
    else:
        console.print(title, markup=False, soft_wrap=True)
