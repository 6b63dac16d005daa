"""What a run and a sweep leave to read: tables of numbers, pictures, the terminal.

Nothing here imports torch, matplotlib or rich before it is used. The two callbacks, which need
Lightning, live in ``ensemble_kd.report.recording`` and ``ensemble_kd.report.progress``.
"""

from __future__ import annotations

from ensemble_kd.report.contract import Results
from ensemble_kd.report.curves import Point, append_points, read_points
from ensemble_kd.report.plots import (
    curves_figure,
    predictors_figure,
    save_figure,
    sweep_figure,
    write_plots,
)
from ensemble_kd.report.results import (
    Trained,
    compile_results,
    read_results,
    verdict,
    versions,
    write_results,
)
from ensemble_kd.report.sweep import SweepReport, report_sweep
from ensemble_kd.report.table import print_results

__all__ = [
    "Point",
    "Results",
    "SweepReport",
    "Trained",
    "append_points",
    "compile_results",
    "curves_figure",
    "predictors_figure",
    "print_results",
    "read_points",
    "read_results",
    "report_sweep",
    "save_figure",
    "sweep_figure",
    "verdict",
    "versions",
    "write_plots",
    "write_results",
]
