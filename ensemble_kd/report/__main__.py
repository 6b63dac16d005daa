"""``python -m ensemble_kd.report FOLDER``: the report on a sweep or on a run, made again.

Of a sweep, stopped or finished, the jobs that left results are held against their controls: tables
on the terminal, ``sweep.json``, ``sweep.png`` and ``report.html``. Of a run, ``report.html`` is
written anew. Status 2 for a user's mistake.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ensemble_kd.commands import Parser, path, status
from ensemble_kd.errors import UserError
from ensemble_kd.report.sweep import Asked, report_sweep
from ensemble_kd.report.sweep_jobs import OVERRIDES
from ensemble_kd.report.sweep_metrics import METRICS


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    chosen = _parser().parse_args(arguments)
    return status(lambda: _report(chosen))


def _report(chosen: argparse.Namespace) -> None:
    asked = {name: getattr(chosen, name) for name in Asked._fields}
    given = {name: value for name, value in asked.items() if value is not None}
    if not _is_run(chosen.folder):
        report_sweep(chosen.folder, asked=Asked(**given))
        return
    if given:
        raise UserError(
            f"--{next(iter(given))}: expected the folder of a sweep, got that of a run: "
            f"{chosen.folder}"
        )
    _report_run(chosen.folder)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m ensemble_kd.report",
        description="The report on a sweep or on a run, from what lies in its folder.",
    )
    parser.add_argument("folder", type=path, metavar="FOLDER", help="of a sweep, or of a run")
    parser.add_argument(
        "--metric",
        metavar="METRIC",
        help=f"by what settings are compared: {', '.join(METRICS)}; default: accuracy",
    )
    margins = ", ".join(f"{metric.margin:g} {metric.unit}" for metric in METRICS.values())
    parser.add_argument(
        "--margin",
        type=float,
        metavar="GAIN",
        help=f"the smallest gain worth having; default: {margins}",
    )
    parser.add_argument(
        "--against",
        metavar="PREDICTOR",
        help="held against the student of the same run; default: control/no_teacher",
    )
    return parser


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run's; otherwise it is a sweep's.

    Raises:
        UserError: it is neither.
    """
    if not folder.is_dir():
        raise UserError(f"expected the folder of a sweep or of a run, found no folder {folder}")
    if (folder / "results.json").is_file():
        return True
    own = folder / OVERRIDES
    if any(found != own for found in folder.rglob(OVERRIDES)):
        return False
    if own.is_file():
        raise UserError(
            f"{folder}: expected a run that is done, found no results.json: it failed, was stopped "
            "or is still running"
        )
    raise UserError(
        f"{folder}: expected the folder of a sweep or of a run, found neither results.json nor "
        f"folders of jobs with {OVERRIDES}"
    )


def _report_run(folder: Path) -> None:
    from ensemble_kd.report.page import write_run_page

    print(write_run_page(folder))


if __name__ == "__main__":
    sys.exit(main())
