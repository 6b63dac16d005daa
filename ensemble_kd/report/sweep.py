"""What a sweep found out: its jobs grouped by setting, seeds held against seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from ensemble_kd.errors import UserError
from ensemble_kd.files import write_json
from ensemble_kd.report.plots import save_figure, sweep_figure
from ensemble_kd.report.sweep_contract import Sweep
from ensemble_kd.report.sweep_jobs import Job, read_jobs
from ensemble_kd.report.sweep_summary import ACCURACY, PLAIN, Asked, summarise
from ensemble_kd.report.sweep_table import print_sweep

__all__ = ["Asked", "Job", "SweepReport", "read_jobs", "report_sweep", "summarise"]


class SweepReport(Callback):
    """Reports on a sweep when its last job is done, as ``report_sweep`` does.

    It reads what the jobs left, whatever processes they ran in, and never stops the sweep: what
    goes wrong here is one line on standard error. Of a sweep that ended early,
    ``python -m ensemble_kd.report FOLDER`` makes the same report.

    Args:
        metric: by what settings are compared.
        margin: smallest gain worth having, in the unit of the metric; its own unless given.
        against: a predictor of the runs; the student without teachers unless given.
    """

    def __init__(
        self, metric: str = ACCURACY, margin: float | None = None, against: str | None = None
    ) -> None:
        self.asked = Asked(metric, margin, against)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read what the jobs left and write what they say together.

        Args:
            config: the configuration of the sweep; ``hydra.sweep.dir`` and ``report.page`` are
                read.
            kwargs: what else Hydra hands over.
        """
        try:
            page = OmegaConf.select(config, "report.page", default=True)
            report_sweep(Path(config.hydra.sweep.dir), asked=self.asked, page=page)
        except Exception as failure:
            message = " ".join(str(failure).split()) or type(failure).__name__
            print(f"no report on the sweep: {message}", file=sys.stderr)


def report_sweep(
    folder: Path, file: TextIO | None = None, asked: Asked = PLAIN, page: bool = True
) -> Sweep:
    """Write ``sweep.json``, ``sweep.png`` and the page of a sweep and print its tables.

    Args:
        folder: the folder whose sub-folders are the run folders of the jobs.
        file: where to print; standard output unless given.
        asked: by what, and against what, the settings are compared.
        page: write ``report.html`` as well.

    Returns:
        The content of ``sweep.json``.

    Raises:
        UserError: no job left results, something else was asked for than they hold, or the folder
            cannot be written.
    """
    jobs = read_jobs(folder)
    if not any(job.results for job in jobs):
        reasons = [f"{job.folder}: {job.reason}" for job in jobs]
        first = f"; job {reasons[0]}" if reasons else ""
        raise UserError(f"{folder}: expected results of at least one job, found none{first}")
    summary = summarise(jobs, asked)
    write_json(folder / "sweep.json", summary)
    save_figure(sweep_figure(summary), folder / "sweep.png")
    print_sweep(summary, folder, file)
    if page:
        from ensemble_kd.report.page import write_sweep_page

        write_sweep_page(folder)
    return summary
