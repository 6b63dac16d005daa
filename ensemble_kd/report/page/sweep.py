"""The page of a sweep: a verdict on each setting, and what it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from ensemble_kd.report.page.between import between, churn, pareto
from ensemble_kd.report.page.parts import Cell, Row, Section, Table, count
from ensemble_kd.report.page.settings import against, settings, singles
from ensemble_kd.report.page.sweep_content import Swept
from ensemble_kd.report.page.verdict import Tile, Verdict
from ensemble_kd.report.svg import element

PAGE = "report.html"
MOST_JOBS = 512
SECTIONS: Sequence[Callable[[Swept], Section | None]] = (
    settings,
    against,
    singles,
    pareto,
    churn,
    between,
)


def sweep_page(sweep: Swept, most: int) -> dict[str, Any]:
    """What the template ``page.html.jinja`` shows of a sweep.

    Args:
        sweep: what it left.
        most: how many jobs at most.
    """
    found = [make(sweep) for make in SECTIONS]
    found += [_jobs(sweep, most), _missing(sweep, most)]
    names = {run["data"].get("name", "") for run in sweep.runs.values()}
    data = " and ".join(sorted(filter(None, names))) or "sweep"
    jobs = len(sweep.content["jobs"]) + len(sweep.content["missing"])
    return {
        "title": f"{data} · sweep of {count(jobs)} jobs",
        "verdict": _verdict(sweep),
        "sections": [section for section in found if section is not None],
    }


def _verdict(sweep: Swept) -> Verdict:
    reference, groups = sweep.content["reference"], sweep.content["groups"]
    found = [
        group["against"][reference]
        for group in groups
        if reference is not None and reference in group["against"]
    ]
    if not found:
        rest = "without a control in the runs there is nothing to compare with"
        return Verdict("No verdict", rest, "open", _tiles(sweep, Counter()), Markup())
    counted = Counter(entry["verdict"] for entry in found)
    helps = counted["HELPS"]
    if len(found) == 1:
        word = {"HELPS": "Distillation helps", "DOES NOT HELP": "Distillation does not help"}
        said = word.get(found[0]["verdict"], "It cannot be told yet whether distillation helps")
        rest = found[0]["sentence"]
    else:
        said = f"{helps} of {len(found)} settings help" if helps else "No setting is shown to help"
        margin = sweep.content["metric"]["factor"] * sweep.content["margin"]
        rest = (
            f"against {reference} on the test split, paired by seed and corrected for "
            f"{len(found)} settings at level {sweep.content['alpha']:g}; a gain of {margin:g} "
            f"{sweep.content['metric']['unit']} is worth having"
        )
    tone = "good" if helps else "bad" if counted["DOES NOT HELP"] == len(found) else "open"
    return Verdict(said, rest, tone, _tiles(sweep, counted), Markup())


def _tiles(sweep: Swept, counted: Counter[str]) -> list[Tile]:
    jobs, missing = len(sweep.content["jobs"]), len(sweep.content["missing"])
    seeds = {job["seed"] for job in sweep.content["jobs"]}
    tiles = [
        Tile(title, str(counted[verdict]), ["of the settings"])
        for verdict, title in (
            ("HELPS", "Help"),
            ("DOES NOT HELP", "Do not help"),
            ("INCONCLUSIVE", "Inconclusive"),
        )
        if counted
    ]
    notes: list[Cell] = [f"{len(seeds)} seeds"]
    notes += [f"{missing} more count nowhere"] if missing else []
    return [*tiles, Tile("Jobs", count(jobs), notes)]


def _jobs(sweep: Swept, most: int) -> Section | None:
    jobs, reference = sweep.content["jobs"], sweep.content["reference"]
    if not jobs or most < 1:
        return None
    rows = []
    for place, job in enumerate(jobs[:most]):
        gain = ("jobs", place, "gain", reference or "", "test")
        folder: Cell = job["folder"]
        if job["folder"] in sweep.pages:
            folder = element("a", {"href": f"{quote(job['folder'])}/{PAGE}"}, job["folder"])
        rows.append(
            Row(
                folder,
                [
                    job["group"],
                    str(job["seed"]),
                    sweep.numbers.show(("jobs", place, "student", "test"), sweep.value),
                    sweep.numbers.show(gain, sweep.difference),
                ],
            )
        )
    shown = (
        "" if len(rows) == len(jobs) else f"the first {count(len(rows))} of {count(len(jobs))}; "
    )
    table = Table(
        f"{shown}student and gain on the test split".capitalize(),
        ["job", "setting", "seed", "student", "gain"],
        rows,
        frozenset({1}),
    )
    return Section("jobs", "Jobs", tables=[table])


def _missing(sweep: Swept, most: int) -> Section | None:
    missing = sweep.content["missing"]
    if not missing:
        return None
    rows = [
        Row(
            job["folder"],
            [", ".join(f"{key}={value}" for key, value in job["settings"].items()), job["reason"]],
        )
        for job in missing[: max(most, 1)]
    ]
    table = Table(
        f"{count(len(missing))} without a number in this page",
        ["job", "settings", "why"],
        rows,
        frozenset({1, 2}),
    )
    return Section("missing", "Jobs that count nowhere", tables=[table])
