"""Where reports are printed: with colours on a terminal, as plain aligned text elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TextIO

from ensemble_kd.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

PLAIN_WIDTH = 240
UNKNOWN = "-"


def open_console(file: TextIO | None = None) -> Console:
    """A console that writes plain text, without wrapping it, when its file is not a terminal.

    What it shows may come from a stranger's file: it is no markup, and holds no codes of terminals.

    Args:
        file: standard output, as it is now, unless given.
    """
    from rich.console import Console

    class Careful(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str("\n".join(map(printable, text.split("\n"))), **options)

    out = file or sys.stdout
    console = Careful(file=out, force_jupyter=False, highlight=False, markup=False)
    if console.is_terminal:
        return console
    return Careful(
        file=out,
        width=PLAIN_WIDTH,
        color_system=None,
        force_jupyter=False,
        highlight=False,
        markup=False,
    )


def start_table(columns: tuple[str, ...], plain: bool) -> Table:
    """An empty table; its first column holds names, the others numbers.

    Args:
        columns: their headings.
        plain: without styles.
    """
    from rich import box
    from rich.table import Table

    table = Table(
        header_style="none" if plain else "bold",
        box=box.SIMPLE,
        show_edge=False,
        pad_edge=False,
    )
    for position, name in enumerate(columns):
        table.add_column(name, justify="right" if position else "left", no_wrap=True)
    return table


def show_table(console: Console, title: str, table: Table) -> None:
    """Print a table between its title and an empty line; plain lines end with their last character.

    Args:
        console: where to.
        title: one line, which may be longer than the table is wide.
        table: from ``start_table``.
    """
    console.print(f"\n{title}", style="italic", markup=False, soft_wrap=True)
    with console.capture() as rendered:
        console.print(table)
    lines = rendered.get().splitlines()
    ends = lines if console.is_terminal else [line.rstrip() for line in lines]
    console.file.write("\n".join([*ends, "", ""]))


def number(value: float | None, form: str) -> str:
    """A number in a format, or a dash where there is none."""
    return UNKNOWN if value is None else form.format(value)
