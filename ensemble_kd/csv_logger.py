"""``metrics.csv`` of a stage, to which a stage that was cut off goes on adding."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from ensemble_kd.files import write_whole

STEP = "step"


class Csv:
    """A table of what was logged, in a folder for each stage.

    Args:
        flush_logs_every_n_steps: how often it is written within an epoch.
    """

    def __init__(self, flush_logs_every_n_steps: int = 500) -> None:
        self.flush_logs_every_n_steps = flush_logs_every_n_steps

    def __call__(self, save_dir: Path, name: str) -> CSVLogger:
        """The logger of a stage.

        Args:
            save_dir: the folder ``logs`` of a run.
            name: of the stage.
        """
        return _Continued(save_dir, name, "", "", self.flush_logs_every_n_steps)


class _Continued(CSVLogger):
    """Lightning's own would remove what an earlier attempt wrote."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What writes the table."""
        if self._experiment is None:
            self._experiment = _Rows(self.log_dir)
        return self._experiment


class _Rows(ExperimentWriter):
    """Adds rows behind those that are there, less the steps that are taken again.

    An attempt that is cut off is ahead of its checkpoint, from which the next one goes on.
    """

    _before: list[dict[str, str]]

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        """Note what was logged at a step."""
        if self._before:
            self._keep([row for row in self._before if step is None or _step(row) < step])
            self._before = []
        super().log_metrics(metrics_dict, step)

    def _check_log_dir_exists(self) -> None:
        """Read what is there."""
        path = Path(self.metrics_file_path)
        self._before = []
        with suppress(FileNotFoundError):
            text = path.read_text(encoding="utf-8", errors="replace")
            # The last line may have been cut off.
            whole = io.StringIO(text[: text.rfind("\n") + 1], newline="")
            self._before = [row for row in csv.DictReader(whole) if _step(row) >= 0]
        if not self._before:
            path.unlink(missing_ok=True)

    def _keep(self, rows: list[dict[str, str]]) -> None:
        self.metrics_keys = list(self._before[0])
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.metrics_keys)
        writer.writeheader()
        writer.writerows(rows)
        write_whole(Path(self.metrics_file_path), text.getvalue())


def _step(row: dict[str, str]) -> int:
    """The step of a row; -1 for one that is damaged."""
    if None in row or None in row.values() or not row.get(STEP, "").isdecimal():
        return -1
    return int(row[STEP])
