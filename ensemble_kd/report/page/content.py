"""What a run folder holds, read for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kd.errors import UserError
from ensemble_kd.plain_files import parse_json
from ensemble_kd.report.contract import Results
from ensemble_kd.report.curves import Point, read_points
from ensemble_kd.report.page.parts import Numbers
from ensemble_kd.report.results import read_results
from ensemble_kd.report.samples import read_samples

if TYPE_CHECKING:
    from ensemble_kd.predictions import Predictions

SPLITS = ("val", "test")


@dataclass(frozen=True)
class Run:
    """What a run left.

    Attributes:
        results: the content of ``results.json``.
        numbers: the same, to be shown.
        points: the rows of ``curves.csv``.
        predictions: of each split; empty where they were not kept.
        samples: the content of ``samples.json``.
        config: ``.hydra/config.yaml``, as it is written.
        columns: of a table, how each input was made; see ``Opened.accompany``.
    """

    results: Results
    numbers: Numbers
    points: Sequence[Point]
    predictions: Mapping[str, Predictions]
    samples: Sequence[Mapping[str, Any]]
    config: str
    columns: Sequence[Mapping[str, Any]]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in their order."""
        known = next(iter(self.predictions.values()), None)
        if known is not None:
            return known.names
        recalls = (entry["test"]["recall"] for entry in self.results["predictors"].values())
        return tuple(str(number) for number in range(len(next(recalls, []))))


def read_run(folder: Path, results: str) -> Run:
    """Read a run folder; what was not kept there is left out.

    Args:
        folder: of the run.
        results: name of the file that holds its results.

    Raises:
        UserError: there are no results, or a file is damaged.
    """
    from ensemble_kd.predictions import read_predictions

    found = read_results(folder / results)
    predictions = {split: folder / "predictions" / f"{split}.safetensors" for split in SPLITS}
    curves, samples = folder / "curves.csv", folder / "samples.json"
    return Run(
        found,
        Numbers(found),
        read_points(curves) if curves.is_file() else [],
        {split: read_predictions(path) for split, path in predictions.items() if path.is_file()},
        read_samples(samples) if samples.is_file() else [],
        _text(folder / ".hydra" / "config.yaml"),
        _columns(folder / "student" / "inputs.json"),
    )


def _text(path: Path) -> str:
    """A file as text; nothing where it is not there."""
    if not path.is_file():
        return ""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as failure:
        raise UserError(f"cannot read {path}: {failure.strerror or failure}") from failure


def _columns(path: Path) -> list[dict[str, Any]]:
    try:
        said = parse_json(_text(path) or '{"inputs": []}')
        return list(said["inputs"])
    except (KeyError, TypeError, ValueError) as failure:
        raise UserError(f"{path}: expected the inputs of a table, got something else") from failure
