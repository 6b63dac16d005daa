"""Writes the pages, with no more in them than there is room for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kd.errors import UserError
from ensemble_kd.files import write_whole

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE = "report.html"
LARGEST = 2_000_000
"""Bytes that a page stays below."""
SAMPLES = 12
RESULTS = "results.json"
TEMPLATES = Path(__file__).parents[1] / "templates"


def write_run_page(folder: Path, results: str = RESULTS) -> Path:
    """Write the page of a run.

    Args:
        folder: of the run: ``results.json`` and, where they were kept, ``curves.csv``,
            ``predictions/``, ``samples.json``, ``.hydra/config.yaml`` and ``student/inputs.json``.
        results: the name of ``results.json``, which is another one until all else is there.

    Returns:
        Where it was written: ``report.html`` in the folder.

    Raises:
        UserError: there are no results, a file is damaged, or the page cannot be written.
    """
    from ensemble_kd.report.page.content import read_run
    from ensemble_kd.report.page.run import run_page

    run = read_run(folder, results)
    return _write(folder, lambda most: run_page(run, most), SAMPLES)


def write_sweep_page(folder: Path) -> Path:
    """Write the page of a sweep.

    Args:
        folder: of the sweep: ``sweep.json``, and the run folders below it.

    Returns:
        Where it was written: ``report.html`` in the folder.

    Raises:
        UserError: there is no ``sweep.json``, it is damaged, or the page cannot be written.
    """
    from ensemble_kd.report.page.sweep import MOST_JOBS, sweep_page
    from ensemble_kd.report.page.sweep_content import read_sweep

    sweep = read_sweep(folder)
    return _write(folder, lambda most: sweep_page(sweep, most), MOST_JOBS)


def _write(folder: Path, content: Callable[[int], Mapping[str, Any]], most: int) -> Path:
    """Write a page with as many samples or jobs as there is room for."""
    page = _environment().get_template("page.html.jinja")
    while True:
        written = page.render(content(most)).encode("utf-8")
        if len(written) < LARGEST:
            break
        if most == 0:
            raise UserError(
                f"{folder / PAGE}: expected a page below {LARGEST:,} bytes, got {len(written):,}"
            )
        most //= 2
    write_whole(folder / PAGE, written)
    return folder / PAGE


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from ensemble_kd.report.svg.element import readable

    return Environment(
        finalize=lambda said: readable(said) if type(said) is str else said,
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
