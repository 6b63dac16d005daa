"""Runs of every kind, forecast and then carried out: what ``scaling.py`` compares."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ensemble_kd.assessment import assess
from ensemble_kd.build import build
from ensemble_kd.config import compose, plain
from ensemble_kd.engine import Engine
from ensemble_kd.forecast import Cluster, forecast
from ensemble_kd.forecast.__main__ import resident, started
from ensemble_kd.forecast.served import Asked
from ensemble_kd.forecast.survey import Survey
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.store import Store

GLOBAL, INPUTS, CLASSES, SAMPLES = 64, (3, 16, 16), 20, 1500
COMMON = (
    *("data=arrays", "data.labelled=null", "teacher.gate=false", "teacher.runtime=plain"),
    *("teacher.epochs=2", "controls=[]", "optimizer.lr=0.001", "report.onnx=false"),
)
TEACHER = "{network: resnet_small, widths: [16, 16, 32, 64]}"
ASSISTANT = "{network: cnn_medium, widths: [32, 64]}"
STUDENT = ("student=cnn_medium", "student.widths=[16,32]")
WIDE = ("student=mlp_large", "student.hidden=[512,512]")
"""A student whose gradient is worth sending: 0.67 million parameters."""


class Cell(NamedTuple):
    """A kind of run.

    Attributes:
        teachers: N.
        stages: K, of which all but the last are assistants.
        ranks: R.
        cache: where answers are kept.
    """

    teachers: int
    stages: int
    ranks: int
    cache: str

    def __str__(self) -> str:
        return f"N={self.teachers} K={self.stages} R={self.ranks} {self.cache}"


CELLS = (
    *(Cell(n, 1, 1, cache) for n in (1, 3, 5) for cache in ("off", "memory")),
    *(Cell(n, 1, 1, "disk") for n in (1, 3)),
    *(Cell(n, 3, 1, cache) for n, cache in ((1, "off"), (3, "memory"), (5, "disk"))),
    *(Cell(n, k, 2, cache) for n, k, cache in ((1, 1, "off"), (3, 1, "memory"), (1, 3, "disk"))),
)


class Figure(NamedTuple):
    """What was forecast and what was seen."""

    cell: str
    part: str
    what: str
    predicted: float
    measured: float


def overrides(cell: Cell, folder: Path) -> list[str]:
    """Of the run of a cell, whose store lies in a folder."""
    assistants = ",".join([ASSISTANT] * (cell.stages - 1))
    return [
        *COMMON,
        *(WIDE if cell.ranks > 1 else STUDENT),
        f"data.source.path={folder / 'noise.npz'}",
        f"paths.store={folder / 'store'}",
        f"teacher.members=[{','.join([TEACHER] * cell.teachers)}]",
        *(["strategy=assistant", f"strategy.assistants=[{assistants}]"] if assistants else []),
        *(["trainer=ddp", "trainer.accelerator=cpu"] if cell.ranks > 1 else []),
        f"batch_size={GLOBAL // cell.ranks}",
        f"cache={cell.cache}",
        "epochs=4",
    ]


def noise(folder: Path) -> None:
    """Write samples that mean nothing."""
    generator = np.random.default_rng(0)
    inputs = generator.integers(0, 256, (SAMPLES, *INPUTS), dtype=np.uint8)
    np.savez(folder / "noise.npz", x=inputs, y=np.arange(SAMPLES) % CLASSES)


def predicted(cell: Cell, folder: Path, seconds: float, link: tuple[float, float]) -> Any:
    """The forecast of a cell: of CPU time with one process, of wall time with several."""
    config = compose(overrides(cell, folder))
    plan = make_plan(config)
    clock = time.process_time if cell.ranks == 1 else time.perf_counter
    survey = Survey(plan, config, Asked(seconds=seconds), clock=clock)
    job = survey.job()
    base = max(0, resident() - survey.held())
    begun = started(survey.trainer, cell.ranks)
    said = forecast(job, Cluster(cell.ranks, *link, begun, base))
    parts: dict[str, float] = {}
    for row in said.rows:
        name = row.name.removeprefix("answers for ")
        parts[name] = parts.get(name, 0.0) + row.seconds.middle
    trained = said.rows[:-1]  # what evaluation leaves in the run folder is not carried out here
    disk = sum(row.disk for row in trained)
    if cell.cache == "disk":
        disk += said.rows[-1].disk - _folder(job)
    return {
        "seconds": parts,
        "memory": said.total.memory,
        "disk": disk,
        "network": said.total.network,
    }


def _folder(job: Any) -> int:
    after, data = job.assessment, job.data
    return int(after.folder + (data.val + data.test) * (after.predictions + after.marks))


def measured(cell: Cell, folder: Path) -> Any:
    """A cell carried out, stage after stage, and evaluated."""
    config = compose(overrides(cell, folder))
    plan = make_plan(config)
    sent = _sent()
    store, parts = Store(folder / "store"), {}
    spent = _cpu if cell.ranks == 1 else time.perf_counter
    for number, stage in enumerate(plan.stages, start=1):
        begun = spent()
        engine, products = _carried_out(replace(plan, stages=plan.stages[:number]), config, store)
        parts[stage.name] = spent() - begun
    begun = spent()
    assess(plan, config, engine, products)
    parts["evaluation"] = spent() - begun
    own, others = (
        1024 * resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "seconds": parts,
        "memory": _most(cell, own, others),
        "disk": sum(p.stat().st_size for p in store.root.rglob("*") if p.is_file()),
        "network": _sent() - sent if cell.ranks > 1 else 0,
    }


def _most(cell: Cell, own: int, others: int) -> int:
    return others if cell.ranks > 1 else own


def _carried_out(plan: Plan, config: Any, store: Store) -> tuple[Engine, Any]:
    keeping = build(plain(config.cache, "cache"), "cache")
    engine = Engine(plan, store, store.root.parent / "run", plain(config.logger, "logger"), keeping)
    return engine, engine.products()


def _cpu() -> float:
    """CPU seconds of this process."""
    return time.process_time()


def _sent() -> int:
    """Bytes that went through the loopback device, of whoever sent them."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    fields = next(line for line in lines if line.strip().startswith("lo:")).split(":")[1].split()
    return int(fields[8])


def apart(work: Callable[..., Any], *given: Any) -> Any:
    """What some work returns in a process of its own, which begins with all that was imported."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_told, args=(there, work, given))
    process.start()
    there.close()
    try:
        said = here.recv()
    except EOFError:
        raise SystemExit(f"{work.__name__}{given}: the process ended without a figure") from None
    process.join()
    return said


def _told(there: Any, work: Callable[..., Any], given: Iterable[Any]) -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with contextlib.redirect_stdout(io.StringIO()):
        there.send(work(*given))


def compared(cell: Cell, folder: Path, seconds: float, link: tuple[float, float]) -> list[Figure]:
    """Forecast and carry out a cell."""
    folder.mkdir(parents=True)
    noise(folder)
    said = apart(predicted, cell, folder, seconds, link)
    seen = apart(measured, cell, folder)
    clock = "CPU seconds" if cell.ranks == 1 else "seconds"
    figures = [
        Figure(str(cell), name, clock, said["seconds"][name], seen["seconds"][name])
        for name in seen["seconds"]
    ]
    figures.append(Figure(str(cell), "all", "memory", said["memory"], seen["memory"]))
    figures.append(Figure(str(cell), "all", "disk", said["disk"], seen["disk"]))
    if cell.ranks > 1:
        figures.append(Figure(str(cell), "all", "network", said["network"], seen["network"]))
    return figures
