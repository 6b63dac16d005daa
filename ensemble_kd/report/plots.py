"""The pictures of a run; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kd.files import write_whole
from ensemble_kd.report.contract import Results
from ensemble_kd.report.curves import Point

if TYPE_CHECKING:
    from ensemble_kd.report.picture import Picture


def curves_figure(points: Sequence[Point]) -> Picture:
    """Validation accuracy of all learners, and each loss term of each learner, by epoch.

    Args:
        points: the rows of ``curves.csv``; see ``read_points``.

    Returns:
        A matplotlib figure that a notebook shows.
    """
    from ensemble_kd.report.curves_plot import draw_curves

    return draw_curves(points)


def predictors_figure(results: Results) -> Picture:
    """Test accuracy of all predictors against the number of their parameters.

    Args:
        results: the content of ``results.json``.

    Returns:
        A matplotlib figure that a notebook shows.
    """
    from ensemble_kd.report.predictors_plot import draw_predictors

    return draw_predictors(results)


def sweep_figure(summary: Mapping[str, Any]) -> Picture:
    """Gain of every setting of a sweep, a dot per seed.

    Args:
        summary: the content of ``sweep.json``.

    Returns:
        A matplotlib figure that a notebook shows.
    """
    from ensemble_kd.report.sweep_plot import draw_sweep

    return draw_sweep(summary)


def save_figure(figure: Picture, path: Path) -> None:
    """Write a figure as PNG; the same figure gives the same bytes.

    Raises:
        UserError: the file system refuses.
    """
    write_whole(path, figure.png())


def write_plots(results: Results, points: Sequence[Point], folder: Path) -> None:
    """Write ``curves.png`` and ``predictors.png``.

    Args:
        results: the content of ``results.json``.
        points: the rows of ``curves.csv``.
        folder: made if need be.

    Raises:
        UserError: the file system refuses.
    """
    save_figure(curves_figure(points), folder / "curves.png")
    save_figure(predictors_figure(results), folder / "predictors.png")
