"""``python -m ensemble_kd.search``: find good values with few runs, by validation accuracy.

Overrides with several values are the axes of the search, in Hydra's grammar of sweeps; the others
hold for every trial. The same command goes on where it was stopped. Status 2 for a user's mistake.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ensemble_kd.commands import Parser, path, status

EXAMPLE = """\
axes:
  objective.temperature='interval(1,8)'           any number in between
  epochs='int(interval(10,40))'                   any whole number in between
  optimizer.lr='tag(log,interval(1e-4,1e-1))'     the same on a logarithmic scale
  data.labelled='range(20,101,20)'                20, 40, 60, 80, 100
  weighting=uniform,entropy,confidence            one of these
  objective='glob(*)'                             one of the options of a group

example:
  python -m ensemble_kd.search heat --trials 20 strategy=parallel \\
      objective.temperature='interval(1,8)' weighting=uniform,entropy
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    chosen = _parser().parse_intermixed_args(arguments)
    again = "interrupted: the same command goes on where this one stopped"
    return status(lambda: _search(chosen), again)


def _search(chosen: argparse.Namespace) -> None:
    from ensemble_kd.job import config_dirs
    from ensemble_kd.optional import optional

    optional("optuna", "search", "python -m ensemble_kd.search")
    optional("sqlalchemy", "search", "python -m ensemble_kd.search")
    from ensemble_kd.search.space import read_space
    from ensemble_kd.search.study import Search

    words: list[str] = chosen.words
    named = bool(words) and re.fullmatch(r"[\w.-]+", words[0]) is not None
    name, overrides = (words[0], words[1:]) if named else ("search", words)
    folder = chosen.folder or Path("outputs", "search", name)
    extra_dirs = config_dirs(chosen.config_dir)
    Search(read_space(overrides, extra_dirs), folder, chosen.trials, tuple(extra_dirs)).run()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m ensemble_kd.search",
        description="Find good values with few runs, by the student's validation accuracy.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[NAME] OVERRIDE ...",
        help="a name for the search, then overrides as for a run; some have several values",
    )
    parser.add_argument(
        "--trials", type=_count, default=20, help="how many in total, earlier ones too; default: 20"
    )
    parser.add_argument(
        "--folder", type=path, help="where it lies; default: outputs/search/NAME, or .../search"
    )
    parser.add_argument(
        "--config-dir", metavar="FOLDER", help="add the groups and options of a folder of your own"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of trials >= 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
