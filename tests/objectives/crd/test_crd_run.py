"""Contrasts of samples through whole runs, and in two processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from ensemble_kd.config import compose
from ensemble_kd.engine import CURVES, Engine, Product
from ensemble_kd.objectives import Crd
from ensemble_kd.plan import make_plan
from ensemble_kd.report.curves import read_points
from ensemble_kd.store import Store
from ensemble_kd.strategies.strategy import objectives

SMALL = (
    "objective=crd",
    "teacher.members=[cnn_small,mlp_small]",
    "objective.teacher_layers=[[pool],[layers]]",
    "teacher.epochs=2",
    "controls=[]",
)


def trained(*overrides: str) -> Product:
    plan = make_plan(compose([*SMALL, *overrides]))
    return Engine(plan, Store(Path("store")), Path("run"), logger=False).products()["student"]


def objective(product: Product) -> Crd:
    (found,) = (o for o in objectives(product.learner.strategy) if isinstance(o, Crd))
    return found


def test_samples_are_told_apart_and_all_of_it_is_kept() -> None:
    first = trained("epochs=4")
    points = read_points(first.artefact.folder / CURVES)
    values = [point.value for point in points if point.name == "student/crd"]
    assert values[-1] < 0.95 * max(values)
    kept = objective(first).state_dict()
    assert kept["begun"]
    # A shuffled epoch leaves out what does not fill a batch; four of them leave out little.
    rows, _ = objective(first).memory.find(torch.arange(10**6))
    assert len(objective(first).memory) == len(rows.unique()) > 1200
    again = trained("epochs=4")
    assert again.reused
    found = objective(again).state_dict()
    assert kept.keys() == found.keys()
    assert all(torch.equal(kept[name], found[name]) for name in kept)

    without = trained("epochs=4", "objective.feature_weight=0")
    mine = dict(first.learner.student.state_dict())
    other = without.learner.student.state_dict()
    assert any(not torch.equal(mine[name], other[name]) for name in mine)


def test_a_rehearsal_whose_few_samples_are_of_one_class_is_no_mistake() -> None:
    make_plan(compose([*SMALL, "seed=1", "data.labelled=20"]))


PROCESSES = """
import multiprocessing
import sys
import torch
from torch import distributed
from ensemble_kd.objectives import Crd, Material
from ensemble_kd.types import Batch, Output, Progress

folder = sys.argv[1]
generator = torch.Generator().manual_seed(0)
features = torch.randn(2, 9, 4, generator=generator)
labels = torch.arange(9) % 3
shares = [[0, 1, 2], [3, 4]], [[2, 5], [6, 2, 8]]


def said(rows):
    return [Output(torch.zeros(len(rows), 3), {"a": each[rows]}) for each in features]


def learn(steps, name):
    torch.manual_seed(0)
    crd = Crd(["a"], ["a"], size=3)
    crd.meet(said([0])[0], (said([0])[1],))
    everything = Batch(None, labels[:8], 10 * torch.arange(8))
    crd.study(Material(lambda: iter([everything]), None))
    for step, rows in enumerate(steps):
        own, other = said(rows)
        batch = Batch(None, labels[rows], 10 * torch.tensor(rows))
        crd(own, (other,), torch.ones(1, len(rows)), batch, Progress(step, 0, 0.0))
        crd.settle()
    torch.save(crd.state_dict(), f"{folder}/{name}.pt")


def process(rank):
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    learn([pair[rank] for pair in shares], f"state{rank}")
    distributed.destroy_process_group()


started = [multiprocessing.get_context("fork").Process(target=process, args=(k,)) for k in (0, 1)]
for each in started:
    each.start()
for each in started:
    each.join()
learn([pair[0] + pair[1] for pair in shares], "alone")  # the same in one process
sys.exit(any(each.exitcode for each in started))
"""


def test_the_memories_of_two_processes_agree_with_that_of_one(tmp_path: Path) -> None:
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)
    states = [torch.load(tmp_path / f"{name}.pt") for name in ("state0", "state1", "alone")]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])
        assert torch.allclose(value.double(), states[2][name].double(), atol=1e-5)
    assert len(states[0]["memory.numbers"]) == 9  # sample 80 was new to one of them
    drawn = Crd(["a"], ["a"], size=3)
    assert not torch.equal(states[0]["memory.vectors"], drawn.memory.vectors)
