"""What the folder of a sweep holds, read for its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ensemble_kd.report.contract import Results
from ensemble_kd.report.form import read_form
from ensemble_kd.report.page.parts import Numbers, percent, signed
from ensemble_kd.report.results import read_results
from ensemble_kd.report.sweep_contract import SCHEMA, GroupEntry, Sweep

MOST_SETTINGS = 40
"""Settings that are shown; of more, those that are best on the validation split."""


@dataclass(frozen=True)
class Swept:
    """What a sweep left.

    Attributes:
        content: of ``sweep.json``.
        numbers: the same, to be shown.
        runs: results of the jobs that are still there, by folder.
        pages: folders of the jobs that have a page of their own.
    """

    content: Sweep
    numbers: Numbers
    runs: Mapping[str, Results]
    pages: frozenset[str]

    @property
    def shown(self) -> list[tuple[int, GroupEntry]]:
        """The settings that are shown, each with its place among all, in the order of the file."""
        groups = list(enumerate(self.content["groups"]))
        if len(groups) <= MOST_SETTINGS:
            return groups
        better = 1 if self.content["metric"]["higher_is_better"] else -1

        def worth(group: GroupEntry) -> float:
            mean = group["student"]["val"]["mean"]
            return float("-inf") if mean is None else better * mean

        return sorted(sorted(groups, key=lambda each: -worth(each[1]))[:MOST_SETTINGS])

    def value(self, value: float) -> str:
        """A value of the metric."""
        metric = self.content["metric"]
        if metric["factor"] == 100:
            return percent(value)
        return f"{metric['factor'] * value:.{metric['digits']}f}"

    def difference(self, value: float) -> str:
        """A difference of two values, with its sign."""
        metric = self.content["metric"]
        return signed(metric["factor"] * value, metric["digits"])

    def amount(self, value: float) -> str:
        """The same without its sign."""
        metric = self.content["metric"]
        return f"{metric['factor'] * abs(value):.{metric['digits']}f}"


def read_sweep(folder: Path) -> Swept:
    """Read the folder of a sweep, and the results of its jobs that are still there.

    Raises:
        UserError: there is no ``sweep.json``, or it is damaged or of another schema.
    """
    path = folder / "sweep.json"
    content: Sweep = read_form(path, Sweep, SCHEMA, "the JSON of a sweep")
    folders = [job["folder"] for job in content["jobs"]]
    return Swept(
        content,
        Numbers(content),
        {
            job: read_results(folder / job / "results.json")
            for job in folders
            if (folder / job / "results.json").exists()
        },
        frozenset(job for job in folders if (folder / job / "report.html").exists()),
    )
