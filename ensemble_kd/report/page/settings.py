"""Sections of a sweep's page: the verdict on each setting, and its controls."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble_kd.report.page.parts import (
    Cell,
    Figure,
    Row,
    Section,
    Table,
    count,
    sentence,
)
from ensemble_kd.report.page.parts import signed as signs
from ensemble_kd.report.page.sweep_content import Swept
from ensemble_kd.report.svg import Drawing, Mark, element, row_chart
from ensemble_kd.report.svg import Row as Bar
from ensemble_kd.report.svg.frame import signed

TONES = {"HELPS": "good", "DOES NOT HELP": "bad", "INCONCLUSIVE": "open"}


def settings(sweep: Swept) -> Section | None:
    """The verdict on each setting, with its interval and its seeds."""
    reference = sweep.content["reference"]
    if not sweep.content["groups"]:
        return None
    rows = [_setting(sweep, place, reference) for place, _ in sweep.shown]
    left_out = len(sweep.content["groups"]) - len(rows)
    columns = [
        "setting",
        "seeds",
        "student",
        "gain",
        "95% interval",
        "effect",
        "p",
        "verdict",
        "why",
    ]
    best = f" The {len(rows)} best on validation; {left_out} more are in sweep.json."
    return Section(
        "settings",
        "Settings",
        figures=_gains(sweep, reference) if reference else [],
        tables=[
            Table(
                "Test split, mean ± standard deviation over seeds",
                columns if reference else columns[:3],
                [Row(row.head, row.cells[: None if reference else 2]) for row in rows],
                frozenset({7, 8}),
            )
        ],
        note=(
            "Gains are paired by seed. p is that of the sign-flip test, corrected for all "
            "settings (Holm); effect is Cohen's d of the pairs, with Hedges' correction."
            if reference
            else ""
        )
        + (best if left_out else ""),
    )


def against(sweep: Swept) -> Section | None:
    """Each setting against the controls besides the one that the verdict is about."""
    reference = sweep.content["reference"]
    controls = list(
        dict.fromkeys(
            name for _, group in sweep.shown for name in group["against"] if name != reference
        )
    )
    if not controls:
        return None
    rows = []
    for place, group in sweep.shown:
        cells: list[Cell] = []
        for control in controls:
            found = group["against"].get(control)
            key = ("groups", place, "against", control, "mean")
            cells.append(
                sentence(sweep.numbers.show(key, sweep.difference), " ", called(found["verdict"]))
                if found
                else ""
            )
        rows.append(Row(group["label"], cells))
    columns = ["setting", *(name.removeprefix("control/") for name in controls)]
    text = frozenset(range(1, len(columns)))
    caption = "Mean gain over each of the other controls, and what may be said of it"
    return Section("against", "Other controls", tables=[Table(caption, columns, rows, text)])


def singles(sweep: Swept) -> Section | None:
    """Students of single teachers."""
    rows = []
    for place, group in sweep.shown:
        if group["singles"] is not None:
            key = ("groups", place, "singles", "test")
            rows.append(
                Row(
                    group["label"],
                    [
                        spread(sweep, ("groups", place, "student", "test")),
                        spread(sweep, (*key, "mean")),
                        spread(sweep, (*key, "best")),
                    ],
                )
            )
    if not rows:
        return None
    columns = ["setting", "all teachers", "one teacher, mean", "one teacher, best"]
    caption = "Test split; the best single teacher is chosen on the validation split of each run"
    return Section("singles", "Single teachers", tables=[Table(caption, columns, rows)])


def called(verdict: str) -> Cell:
    """A verdict in its colour."""
    return element("span", {"class": f"called {TONES.get(verdict, 'open')}"}, verdict)


def spread(sweep: Swept, key: Sequence[str | int]) -> Cell:
    """Mean and standard deviation of the metric."""
    mean = sweep.numbers.show((*key, "mean"), sweep.value)
    if sweep.numbers.at(*key, "std") is None:
        return mean
    return sentence(mean, " ± ", sweep.numbers.show((*key, "std"), sweep.amount))


def p_value(value: float) -> str:
    """A p-value with three digits, or that it is smaller."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _setting(sweep: Swept, place: int, reference: str | None) -> Row:
    numbers, group = sweep.numbers, sweep.content["groups"][place]
    cells: list[Cell] = [
        numbers.show(("groups", place, "n"), count),
        spread(sweep, ("groups", place, "student", "test")),
    ]
    found = group["against"].get(reference or "")
    if found is None:
        return Row(group["label"], [*cells, "", "", "", "", "", ""])
    key = ("groups", place, "against", reference or "")
    low, high = (numbers.show((*key, end), sweep.difference) for end in ("low", "high"))
    known = found["low"] is not None
    return Row(
        group["label"],
        [
            *cells,
            spread_of_gain(sweep, key),
            sentence(low, " to ", high) if known else low,
            numbers.show((*key, "effect_size"), lambda value: signs(value, 2)),
            numbers.show((*key, "p_holm"), p_value),
            called(found["verdict"]),
            element("small", {"class": "why"}, found["sentence"]),
        ],
    )


def spread_of_gain(sweep: Swept, key: Sequence[str | int]) -> Cell:
    """Mean and standard deviation of a gain."""
    mean = sweep.numbers.show((*key, "mean"), sweep.difference)
    if sweep.numbers.at(*key, "std") is None:
        return mean
    return sentence(mean, " ± ", sweep.numbers.show((*key, "std"), sweep.amount))


def _gains(sweep: Swept, reference: str) -> list[Figure]:
    metric = sweep.content["metric"]
    seeds: dict[str, list[float]] = {}
    for job in sweep.content["jobs"]:
        gain = job["gain"].get(reference, {}).get("test")
        if gain is not None:
            seeds.setdefault(job["group"], []).append(gain * metric["factor"])
    bars = []
    for _, group in sweep.shown:
        found = group["against"].get(reference)
        if found is None:
            continue
        tone = TONES.get(found["verdict"], "open")
        dots = [Mark(value, "student", small=True) for value in seeds.get(group["label"], [])]
        interval = None
        if found["low"] is not None and found["high"] is not None:
            interval = (found["low"] * metric["factor"], found["high"] * metric["factor"])
        mean = Mark(found["mean"] * metric["factor"], tone)
        note = f"{sweep.difference(found['mean'])}  {found['verdict'].lower()}"
        bars.append(Bar(group["label"], [*dots, mean], interval, note, tone))
    if not bars:
        return []
    drawing = Drawing(
        "gains-chart",
        f"Gain of each setting over {reference}",
        "; ".join(f"{bar.label} {bar.note}" for bar in bars),
    )
    margin = metric["factor"] * sweep.content["margin"]
    chart = row_chart(
        drawing, bars, signed, metric["unit"], zero=0.0, width=760, least=4 * margin, mark=margin
    )
    caption = (
        f"Gain over {reference} on the test split: mean, 95% bootstrap interval, and a small dot "
        f"for each seed. The dotted line is the smallest gain worth having, {margin:g} "
        f"{metric['unit']}."
    )
    return [Figure(chart, caption)]
