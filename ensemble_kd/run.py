"""A run, from top to bottom: plan, stages, evaluation, export, report."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from omegaconf import DictConfig
from torch import nn

from ensemble_kd.artefact import write_artefact
from ensemble_kd.assessment import Assessed, assess
from ensemble_kd.build import build
from ensemble_kd.config import plain
from ensemble_kd.distributed import ranks
from ensemble_kd.engine import CURVES, Engine, Product, constructor_node
from ensemble_kd.errors import UserError
from ensemble_kd.export import export_onnx
from ensemble_kd.gate import check_teachers
from ensemble_kd.plan import Plan
from ensemble_kd.predictions import write_predictions
from ensemble_kd.report.contract import Results
from ensemble_kd.report.curves import append_points, read_points
from ensemble_kd.report.results import write_results
from ensemble_kd.report.samples import shown_samples, write_samples
from ensemble_kd.settling import settle
from ensemble_kd.store import Store
from ensemble_kd.teachers import Keeping

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = "results.json"
UNFINISHED = ".results.json"
"""The same, while something else of the run folder is missing."""

PREDICTIONS = "predictions"
SAMPLES = "samples.json"


@dataclass(frozen=True)
class Result:
    """What a run leaves behind.

    Attributes:
        folder: the run folder.
        student: the delivered network, in eval mode.
        results: the content of ``results.json``.
    """

    folder: Path
    student: nn.Module
    results: Results

    def plot(self) -> Figure:
        """The learning curves of every stage, as a figure that a notebook shows."""
        from ensemble_kd.report.plots import curves_figure

        return curves_figure(read_points(self.folder / CURVES))


def carry_out(plan: Plan, config: DictConfig, folder: Path) -> Result:
    """Train what is not in the store, evaluate everything, write the run folder.

    Processes that were started together train together; the first of them evaluates and writes.

    Args:
        plan: from ``make_plan``.
        config: the configuration from which it was made.
        folder: the run folder.

    Raises:
        UserError: what only turns up on the way, such as a loss that stops being finite.
        Interrupted: Ctrl-C; finished stages are in the store.
    """
    with ranks.by_first(lambda: alone(folder)):
        ranks.first(lambda: refuse_finished(folder))
        return _carried_out(plan, config, folder)


def _carried_out(plan: Plan, config: DictConfig, folder: Path) -> Result:
    keeping: Keeping = build(plain(config.cache, "cache"), "cache", plan.allow)
    store = Store(Path(config.paths.store))
    if config.teacher.gate:
        given = {name: teacher.network for name, teacher in plan.given.items()}
        ranks.first(lambda: check_teachers(given, plan.data.val_dataloader()))
    logger = plain(config.logger, "logger")
    steps = config.checkpoint.every_n_steps
    if plan.open is not None:
        plan, config = settle(
            plan,
            folder,
            lambda trials: Engine(trials, store, folder, logger, keeping, steps).products(),
        )
    engine = Engine(plan, store, folder, logger, keeping, steps)
    products = engine.products()
    results = ranks.first(lambda: concluded(plan, config, engine, products, folder))
    plan.data.teardown("test")
    return Result(folder, products["student"].learner.deliverable(), results)


def concluded(
    plan: Plan,
    config: DictConfig,
    engine: Engine,
    products: Mapping[str, Product],
    folder: Path,
) -> Results:
    """Evaluate everything, and write what the run folder holds."""
    assessed = assess(plan, config, engine, products)
    results = assessed.results
    results["export"] = delivered(products["student"], plan, folder, config.report.onnx)
    gather_curves(products, folder)
    keep_predictions(assessed, plan, folder)
    write_results(results, folder / UNFINISHED)
    draw(results, config, folder)
    # What is left of a run that was cut off before this is written anew by the same command.
    (folder / UNFINISHED).rename(folder / RESULTS)
    if config.report.table:
        from ensemble_kd.report.table import print_results

        print_results(results)
        print(f"\nrun folder: {folder}")
    return results


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Have a run folder to oneself: a second run would write the same files at the same time.

    Raises:
        UserError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as busy:
        raise UserError(f"{folder}: another process is at work on this run") from busy
    try:
        yield
        # Whoever opened it before finds a run that is done.
        (folder / ".lock").unlink(missing_ok=True)
    finally:
        lock.release()


def refuse_finished(folder: Path) -> None:
    """A folder that holds the results of a run is never written into again.

    Raises:
        UserError: it does.
    """
    if (folder / RESULTS).exists():
        raise UserError(f"{folder}: expected a new run folder, found one that holds {RESULTS}")


def keep_predictions(assessed: Assessed, plan: Plan, folder: Path) -> None:
    """What everybody said of each split, and the samples on which they differ most."""
    if not assessed.kept:
        return
    for split, said in assessed.predictions.items():
        write_predictions(said, folder / PREDICTIONS / f"{split}.safetensors")
    shown = shown_samples(assessed.predictions["test"], plan.data.test_dataloader())
    write_samples(shown, folder / SAMPLES)


def delivered(
    product: Product, plan: Plan, folder: Path, onnx: bool = True
) -> dict[str, float | str]:
    """Write ``student/``: the artefact and its ONNX form, checked against the eager network.

    Returns:
        The largest difference of a logit between the two forms; or, for a network that ONNX cannot
        express, why there is no second form: that is no reason to lose a run. Nothing when that
        form was not asked for.
    """
    target = folder / "student"
    unfinished = folder / ".student"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    network = product.learner.deliverable()
    provenance = {
        key: value for key, value in product.artefact.provenance.items() if key != "files"
    }
    if hasattr(plan.data, "accompany"):
        plan.data.accompany(unfinished)  # what the student needs to read: a tokenizer
    write_artefact(
        unfinished, network, constructor_node(product.stage, product.learner), provenance
    )
    some = next(iter(plan.data.test_dataloader())).inputs
    said: dict[str, float | str] = {}
    try:
        if onnx:
            exported = export_onnx(network, some, unfinished / "student.onnx")
            said["onnx_max_difference"] = exported.max_difference
    except UserError as failure:
        said["onnx_failure"] = str(failure)
        print(f"warning: no student.onnx: {failure}", file=sys.stderr)
    # Only a run that was cut off before its results can have left one here.
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)
    return said


def gather_curves(products: Mapping[str, Product], folder: Path) -> None:
    """``curves.csv`` of the run: the curves of each stage, under the name it has in this run."""
    (folder / CURVES).unlink(missing_ok=True)
    for name, product in products.items():
        points = read_points(product.artefact.folder / CURVES)
        append_points(folder / CURVES, [point._replace(stage=name) for point in points])


def draw(results: Results, config: DictConfig, folder: Path) -> None:
    """Plots and the page, as the group ``report`` wants them."""
    if config.report.plots:
        from ensemble_kd.report.plots import write_plots

        write_plots(results, read_points(folder / CURVES), folder / "plots")
    if config.report.page:
        from ensemble_kd.report.page import write_run_page

        write_run_page(folder, UNFINISHED)
