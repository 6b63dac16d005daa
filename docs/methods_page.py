"""Writes docs/methods.md from the configuration, the code and the measured figures.

``python docs/methods_page.py``; a test holds the page against what this would write. Stages, turns
and who receives gradient are observed: every strategy is planned on the default data, those made
for texts on a few sentences, and plays one small batch. Source and deviations are those of the
docstrings.
"""

from __future__ import annotations

import copy
import csv
import inspect
import re
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ensemble_kd.build import build, locate
from ensemble_kd.config import compose, plain
from ensemble_kd.groups import options
from ensemble_kd.objectives import Matched, Objective
from ensemble_kd.paths import conf_dir
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.rehearsal import acquaint
from ensemble_kd.stage import Stage
from ensemble_kd.teachers import Ensemble
from ensemble_kd.training import assemble, frozen, weightings
from ensemble_kd.types import Progress

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "methods.md"
MEASURED = DOCS / "measured.csv"
LATE = Progress(step=10_000, epoch=35, fraction=0.9)
"""A point of a stage at which ramps and burn-ins are over."""

INTRODUCTION = """\
# Methods

Written by `python docs/methods_page.py` from the configuration, the docstrings and one observed
batch of each method; do not edit.

Strategy (who learns from whom), weighting (how much each teacher counts) and objective (what is
matched) are independent: any combination is a run. The last column is the mean test accuracy of
[measured.md](measured.md), where intervals and p-values are.
"""


def main() -> None:
    PAGE.write_text(page())


def page() -> str:
    """The whole page."""
    groups = options([conf_dir()])
    measured = means()
    head = "| `strategy=` | what it is | stages | turns: who receives gradient | needs | measured |"
    lines = [INTRODUCTION, "## Strategies", "", head, "|---|---|---|---|---|---|"]
    details: list[str] = []
    for name, comment in groups["strategy"].items():
        config, plan = planned(name)
        cells = [
            f"[`{name}`](#{name})",
            comment.partition(";")[0],
            ", ".join(stage.name for stage in plan.stages if not learns_alone(plan, stage.name)),
            "; ".join(f"{turn}: {', '.join(who)}" for turn, who in observed(plan)),
            ", ".join(needs(plan)) or "-",
            measured.get(f"strategy={name}", "-"),
        ]
        lines.append(row(cells))
        details += ["", f"### {name}", "", *documented(class_of(config))]
    lines += [
        "",
        "Controls, and teachers that are trained first, are further stages of every run.",
        "",
        "## Weightings",
        "",
        "| `weighting=` | what it is | receives gradient | needs | measured |",
        "|---|---|---|---|---|",
    ]
    for name, comment in groups["weighting"].items():
        plan = make_plan(
            compose([f"weighting={name}", "data.labelled=null", *NEEDED.get(name, ())])
        )
        (weighting,) = weightings(assemble(taught_stage(plan)).strategy)
        kind = type(weighting)
        asked = {
            "labels": weighting.needs_labels,
            "validation accuracies of the teachers": weighting.needs_accuracies,
        }
        cells = [
            f"[`{name}`](#weighting-{name})",
            comment,
            "its own parameters" if list(weighting.parameters()) else "-",
            ", ".join(what for what, wanted in asked.items() if wanted) or "-",
            measured.get("strategy=parallel" if name == DEFAULT else f"weighting={name}", "-"),
        ]
        lines.append(row(cells))
        details += ["", f"### weighting {name}", "", *documented(kind)]
    lines += [
        "",
        "## Objectives",
        "",
        "| `objective=` | what it is | terms | features |",
        "|---|---|---|---|",
    ]
    for name, comment in groups["objective"].items():
        terms = build(plain(compose([f"objective={name}"]).objective.terms, name), "objective")
        kinds = [type(inner(term.objective)) for term in terms.values()]
        tapped = any(term.objective.student_taps() for term in terms.values())
        cells = [
            f"[`{name}`](#objective-{name})",
            comment,
            ", ".join(f"{term}: {kind.__name__}" for term, kind in zip(terms, kinds, strict=True)),
            "yes" if tapped else "-",
        ]
        lines.append(row(cells))
        details += ["", f"### objective {name}", "", *documented(kinds[-1])]
    return "\n".join([*lines, "", "## Sources and deviations", *details]) + "\n"


def planned(strategy: str) -> tuple[DictConfig, Plan]:
    """A strategy on the data that it is made for."""
    own = OF_TEXTS.get(strategy)
    if own is None:
        config = compose([f"strategy={strategy}"])
        return config, make_plan(config)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "texts.csv"
        lines = [f"{'a good' if number % 2 else 'no'} film,{number % 2}" for number in range(200)]
        table.write_text("\n".join(["sentence,label", *lines]) + "\n")
        read = (f"data.source.path={table}", "data.source.text=[sentence]")
        config = compose([f"strategy={strategy}", "data=text", *read, *own])
        return config, make_plan(config)


def row(cells: Sequence[str]) -> str:
    """A row of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def inner(objective: Objective) -> Any:
    """What documents an objective: of features, the way in which they are compared."""
    return objective.comparison if isinstance(objective, Matched) else objective


DEFAULT = "uniform"
"""The weighting that the strategies were measured with."""
OF_TEXTS = {"self_distillation": ("student=fastbert", "teacher=none")}
"""Strategies for networks that read texts, and what they need."""
NEEDED = {"fixed": ("weighting.weights=[1,1,1]",)}
"""What an option cannot do without."""


def learns_alone(plan: Plan, stage: str) -> bool:
    """Whether a stage is a control or one of the teachers."""
    return stage.startswith("control/") or stage in plan.teachers


def class_of(config: Any) -> Callable[..., Any]:
    """The class that documents a strategy: of its chain, its teachers, its weighting, its turns."""
    strategy = config.strategy
    own = [strategy.get("chain"), strategy.get("teacher_turns"), strategy.turns.get("weighting")]
    nodes = [*own, strategy.turns]
    node = next(node for node in nodes if node and node != config.weighting)
    return locate(node["_target_"], "strategy")


def observed(plan: Plan) -> Iterator[tuple[str, list[str]]]:
    """Each turn of the student's stage, and which parts receive gradient in it."""
    stage = taught_stage(plan)
    learner = assemble(stage)
    networks = {other.name: assemble(other).deliverable() for other in plan.stages}
    taught_by = [copy.deepcopy(networks[name]) for name in stage.teachers]
    ensemble = Ensemble(frozen(learner.strategy, taught_by))
    plan.data.views, plan.data.labelled_only = stage.views, stage.labelled_only
    batch = next(iter(plan.data.train_dataloader()))
    batch = pytree.tree_map(lambda part: part[:32] if isinstance(part, Tensor) else part, batch)
    acquaint(stage, learner, ensemble, batch)
    learner.strategy.begin(learner.student, ensemble)
    parts = {"student": learner.student, **dict(learner.strategy.named_children())}
    for turn in learner.strategy.turns(learner.student, ensemble, batch, LATE):
        torch.stack(list(turn.terms.values())).sum().backward()
        yield turn.player, [name for name, part in parts.items() if moved(part)]
        for part in parts.values():
            part.zero_grad(set_to_none=True)


def taught_stage(plan: Plan) -> Stage:
    """The stage that shows the method: the student's, or the one whose weights it goes on from."""
    named = {stage.name: stage for stage in plan.stages}
    student = named["student"]
    return student if student.initial is None else named[student.initial]


def moved(part: nn.Module) -> bool:
    """Whether some weight of a part received gradient."""
    return any(
        parameter.grad is not None and bool((parameter.grad != 0).any())
        for parameter in part.parameters()
    )


def needs(plan: Plan) -> list[str]:
    """What the stages ask for beyond a student and data."""
    stages = [stage for stage in plan.stages if not learns_alone(plan, stage.name)]
    found = []
    if any(set(stage.teachers) & set(plan.teachers) for stage in stages):
        found.append("teachers")
    if any(stage.snapshots for stage in plan.stages):
        found.append("the teachers' weights after each epoch")
    views = max(stage.views for stage in stages)
    if views > 1:
        found.append(f"{views} augmentations of each sample")
    return found


def documented(kind: Callable[..., Any]) -> list[str]:
    """Source and deviations, as the docstring has them."""
    text = inspect.getdoc(kind) or ""
    paragraphs = [part for part in text.partition("\nArgs:")[0].split("\n\n") if part]
    told = [part for part in paragraphs if part.startswith("Source:")]
    shown = told or paragraphs[:1]
    words = re.sub(r"``([^`]+)``", r"`\1`", " ".join(" ".join(shown).split()))
    home = f"Code: `{kind.__module__}.{kind.__name__}`."
    return textwrap.wrap(f"{words} {home}", 100, break_long_words=False, break_on_hyphens=False)


def means() -> Mapping[str, str]:
    """Mean accuracy of each measured method, as text."""
    if not MEASURED.exists():
        return {}
    found: dict[str, list[float]] = {}
    with MEASURED.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["method"], []).append(100 * float(row["accuracy"]))
    return {name: f"{sum(values) / len(values):.2f}" for name, values in found.items()}


if __name__ == "__main__":
    main()
