"""Every objective on Fashion-MNIST, with one teacher and with three: accuracy, time and memory.

``python benchmarks/objectives.py run`` trains, ``cost`` measures steps, ``report`` writes the page.
Each objective is held against the same student without teachers, and against ``kd`` under the same
teachers. Nothing is tuned: every objective has the weights and layers of its configuration.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from paired import COMMON, CONTROL, DOCS, Study, by_setting, cells, explained, plot, run

from ensemble_kd.build import build
from ensemble_kd.config import compose
from ensemble_kd.descent import Descent
from ensemble_kd.groups import options
from ensemble_kd.paths import conf_dir
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.rehearsal import acquaint
from ensemble_kd.stage import Stage
from ensemble_kd.strategies.strategy import objectives
from ensemble_kd.teachers import Ensemble
from ensemble_kd.training import assemble, frozen, study
from ensemble_kd.types import Batch, Progress

RAW, COSTS = DOCS / "objectives.csv", DOCS / "objectives_cost.csv"
PAGE, PLOT = DOCS / "objectives.md", DOCS / "objectives.png"
COUNTS = {1: "[cnn_medium]", 3: "[cnn_medium,cnn_medium,cnn_medium]"}
OF_TEXTS = ("distilbert", "minilm", "mobilebert", "pkd", "simplified_tinybert", "tinybert")
ELSEWHERE = {
    "annealed": "of multi-task learning, `strategy=multi_task`",
    "cooling": "of `strategy=progressive`",
    "shrunk_logits": "of `strategy=annealing`",
    "virtual": "of `strategy=teacher_free`, without teachers",
    **dict.fromkeys(OF_TEXTS, "for texts, see [text.md](text.md)"),
}
"""Objectives that belong to a strategy of their own, and to which."""
LAYERS = {
    "relation": ("objective.student_layers=[stages.1]", "objective.teacher_layers=[stages.1]"),
}
"""On 28x28 images, other layers than on digits: relations of 784 places take too much memory."""


class Cost(NamedTuple):
    """What a training step takes.

    Attributes:
        objective: the option of the group.
        teachers: how many.
        time: CPU time relative to ``kd`` under the same teachers, the median over rounds.
        saved: bytes kept for the backward pass, less those of ``kd``.
        own: bytes of parameters and buffers of the objective.
    """

    objective: str
    teachers: int
    time: float
    saved: int
    own: int

    def cells(self) -> list[str]:
        """As cells of a table."""
        return [f"{self.time:.2f}", f"{self.saved / 1024:.0f}", f"{self.own / 1024:.0f}"]


def names() -> list[str]:
    return [name for name in options([conf_dir()])["objective"] if name not in ELSEWHERE]


def overrides(name: str, teachers: int) -> tuple[str, ...]:
    members = f"teacher.members={COUNTS[teachers]}"
    own = (f"objective={name}", *LAYERS.get(name, ()))
    return (*COMMON, "student=cnn_tiny", "epochs=10", members, *own)


def setting(name: str, teachers: int) -> str:
    return f"{name}, {teachers} teacher{'s' if teachers > 1 else ''}"


def whole_study() -> Study:
    """Every objective with every number of teachers."""
    settings = {
        setting(name, count): overrides(name, count) for name in names() for count in COUNTS
    }
    return Study(RAW, settings, {CONTROL: "control/no_teacher"})


class Step:
    """A training step of the student's stage, on batches that are served again and again."""

    def __init__(self, name: str, teachers: int) -> None:
        plan = make_plan(compose([*overrides(name, teachers), "controls=[]"]))
        stage = plan.stages[-1]
        self.learner = assemble(stage)
        networks = [assemble(each).student for each in plan.stages[:-1]]
        self.teachers = Ensemble(frozen(self.learner.strategy, networks))
        batches: list[Batch] = list(plan.data.train_dataloader())
        acquaint(stage, self.learner, self.teachers, batches[0])
        study(self.learner.strategy, self.teachers, plan.data, torch.device("cpu"))
        self.batches = batches[:8]
        self.descend = self._descent(plan, stage)
        self.seen = 0

    def __call__(self) -> None:
        batch = self.batches[self.seen % len(self.batches)]
        strategy, student = self.learner.strategy, self.learner.student
        progress = Progress(self.seen, 0, 0.5)
        self.seen += 1
        for turn in strategy.turns(student, self.teachers, batch, progress):
            self.descend(torch.stack(list(turn.terms.values())).sum())
        for objective in objectives(strategy):
            objective.settle()

    def seconds(self) -> float:
        """CPU time of a pass over the batches."""
        started = time.process_time()
        for _ in self.batches:
            self()
        return time.process_time() - started

    def saved(self) -> int:
        """Bytes that the graph of one step keeps, each storage counted once."""
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self()
        return sum(kept.values())

    def own(self) -> int:
        """Bytes of what the objectives hold."""
        held = [
            tensor
            for objective in objectives(self.learner.strategy)
            for tensor in (*objective.parameters(), *objective.buffers())
        ]
        return sum(tensor.nbytes for tensor in held)

    def _descent(self, plan: Plan, stage: Stage) -> Callable[[Any], None]:
        descents: dict[str, Descent] = build(stage.optimizers, "optimizer", plan.allow)
        (parameters,) = self.learner.strategy.players(self.learner.student).values()
        optimizer, _ = descents["default"].start(parameters, total_steps=10_000)

        def descend(loss: torch.Tensor) -> None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return descend


def cost(rounds: int) -> None:
    """Time and memory of each objective relative to ``kd``, interleaved, into a file."""
    found: list[Cost] = []
    for count in COUNTS:
        reference = Step("kd", count)
        base = reference.saved()
        for name in names():
            step = Step(name, count)
            step.seconds(), reference.seconds()
            ratios = [step.seconds() / reference.seconds() for _ in range(rounds)]
            extra = step.saved() - base
            found.append(Cost(name, count, statistics.median(ratios), extra, step.own()))
            print(found[-1], flush=True)
    with COSTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Cost._fields)
        writer.writerows((*each[:2], f"{each.time:.3f}", *each[3:]) for each in found)


def costs() -> dict[tuple[str, int], Cost]:
    """What was measured."""
    if not COSTS.exists():
        return {}
    with COSTS.open(newline="") as file:
        read = [
            Cost(
                r["objective"], int(r["teachers"]), float(r["time"]), int(r["saved"]), int(r["own"])
            )
            for r in csv.DictReader(file)
        ]
    return {(each.objective, each.teachers): each for each in read}


def report() -> None:
    found, taken = by_setting(RAW), costs()
    lines = [
        "# Measured: every objective on Fashion-MNIST",
        "",
        "Written by `python benchmarks/objectives.py report`; the raw figures are in",
        "[objectives.csv](objectives.csv) and [objectives_cost.csv](objectives_cost.csv).",
        "",
        "- 1,800 labelled training images, 10 epochs, the student `cnn_tiny` (678 parameters);",
        "  teachers: one or three `cnn_medium`, trained on the same images for as many epochs.",
        "- Nothing is tuned: weights and layers of each configuration, the same optimiser for all.",
        *explained(len(found[CONTROL])),
        "- Time: CPU time of a training step, teachers included, relative to `kd` under as many",
        "  teachers; medians of interleaved rounds. Memory: what the backward pass keeps beyond",
        "  `kd`, for a batch of 64, and what the objective itself holds.",
        *(f"- `{name}` is left out: it is {why}." for name, why in ELSEWHERE.items()),
        "",
        "![Difference to the same student without teachers, by objective](objectives.png)",
        "",
        "| objective | teachers | accuracy | against no teachers | p | against kd | p "
        "| time | kept, KiB | held, KiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    measured = [(n, k) for n in names() for k in COUNTS if setting(n, k) in found]
    measured.sort(key=lambda each: -mean(found[setting(*each)]))
    for name, count in measured:
        values, spent = found[setting(name, count)], taken.get((name, count))
        row = [f"`{name}`", str(count), f"{mean(values):.2f}", *cells(values, found[CONTROL])]
        row += cells(values, found[setting("kd", count)]) if name != "kd" else ["", ""]
        row += spent.cells() if spent else ["", "", ""]
        lines.append(f"| {' | '.join(row)} |")
    lines.append(f"| *{CONTROL}* | 0 | {mean(found[CONTROL]):.2f} | | | | | | | |")
    PAGE.write_text("\n".join(lines) + "\n")
    plot(PLOT, found, [setting(*each) for each in measured], CONTROL)
    print(PAGE.read_text())


def mean(values: dict[int, float]) -> float:
    return 100 * float(np.mean(list(values.values())))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "cost", "report"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(6)))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--store", type=Path, default=Path("outputs/store"))
    chosen = parser.parse_args(arguments)
    os.environ.setdefault("ENSEMBLE_KD_DATA", "data")
    if chosen.what == "run":
        run(whole_study(), chosen.seeds, chosen.store)
    if chosen.what == "cost":
        torch.set_num_threads(1)
        cost(chosen.rounds)
    if chosen.what == "report":
        report()


if __name__ == "__main__":
    main()
