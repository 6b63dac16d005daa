"""A run, from top to bottom: plan, stages, evaluation, export, report."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig
from torch import nn

from ensemble_kd.artefact import write_artefact
from ensemble_kd.build import build
from ensemble_kd.config import plain
from ensemble_kd.engine import CURVES, Engine, Product, constructor_node
from ensemble_kd.errors import UserError
from ensemble_kd.evaluation import Evaluation
from ensemble_kd.export import count_parameters, export_onnx
from ensemble_kd.gate import check_teachers
from ensemble_kd.latency import latency
from ensemble_kd.plan import Plan
from ensemble_kd.report.curves import append_points, read_points
from ensemble_kd.report.results import Results, Trained, compile_results, write_results
from ensemble_kd.store import Store
from ensemble_kd.taught import class_names
from ensemble_kd.teachers import Foreign, Keeping, Mixture, Numbered
from ensemble_kd.training import on_card

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = "results.json"


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

    Args:
        plan: from ``make_plan``.
        config: the configuration from which it was made.
        folder: the run folder.

    Raises:
        UserError: what only turns up on the way, such as a loss that stops being finite.
        Interrupted: Ctrl-C; finished stages are in the store.
    """
    refuse_finished(folder)
    keeping: Keeping = build(plain(config.cache, "cache"), "cache", plan.allow)
    store = Store(Path(config.paths.store))
    if config.teacher.gate:
        given = {name: teacher.network for name, teacher in plan.given.items()}
        check_teachers(given, plan.data.val_dataloader())
    engine = Engine(plan, store, folder, plain(config.logger, "logger"), keeping)
    products = engine.products()
    results = evaluated(plan, config, engine, products)
    results["export"] = delivered(products["student"], plan, folder, config.report.onnx)
    gather_curves(products, folder)
    write_results(results, folder / RESULTS)
    report(results, config, folder)
    return Result(folder, products["student"].learner.deliverable(), results)


def refuse_finished(folder: Path) -> None:
    """A folder that holds the results of a run is never written into again.

    Raises:
        UserError: it does.
    """
    if (folder / RESULTS).exists():
        raise UserError(f"{folder}: expected a new run folder, found one that holds {RESULTS}")


def evaluated(
    plan: Plan, config: DictConfig, engine: Engine, products: Mapping[str, Product]
) -> Results:
    """Every predictor on the validation and the test split."""
    predictors = named_predictors(plan, products)
    pairs = [
        (name, "ensemble") for name in predictors if "ensemble" in predictors and name != "ensemble"
    ]
    evaluation: Evaluation = build(plain(config.evaluation, "evaluation"), "evaluation", plan.allow)
    trainer = plain(config.trainer, "trainer")
    device = "cuda" if on_card(trainer) else "cpu"
    splits: tuple[tuple[Literal["val", "test"], Any], ...] = (
        ("val", plan.data.val_dataloader()),
        ("test", plan.data.test_dataloader()),
    )
    val, test = (
        evaluation.measure(
            predictors,
            loader,
            plan.classes,
            pairs,
            device,
            engine.kept(name, predictors, trainer),
            class_names(plan.data),
        )
        for name, loader in splits
    )
    plan.data.teardown("test")
    some = next(iter(plan.data.test_dataloader())).inputs
    return compile_results(
        seed=config.seed,
        strategy=config.strategy.name,
        data=described(plan.data),
        val=val,
        test=test,
        parameters={name: _size(network) for name, network in predictors.items()},
        stages=stage_records(plan, products),
        milliseconds={
            name: latency(network, some)
            for name, network in predictors.items()
            if not any(isinstance(part, Numbered) for part in network.modules())
        },
    )


def named_predictors(plan: Plan, products: Mapping[str, Product]) -> dict[str, nn.Module]:
    """All networks of a run by name: teachers, their ensemble, then the stages in order."""
    named = {name: teacher.network for name, teacher in plan.given.items()}
    for product in products.values():
        named |= product.predictors()
    mixtures = {
        name: Mixture([named[member] for member in members])
        for name, members in plan.mixtures.items()
    }
    teachers = {name: named.pop(name) for name in plan.teachers}
    return {**teachers, **mixtures, **named}


def stage_records(plan: Plan, products: Mapping[str, Product]) -> list[Trained]:
    """What ``results.json`` says of the stages; given teachers are stages that took no time."""
    given = [
        Trained(name, teacher.digest, True, 0, 0.0, _size(teacher.network))
        for name, teacher in plan.given.items()
    ]
    trained = [
        Trained(
            product.stage.name,
            product.artefact.digest,
            product.reused,
            product.stage.epochs,
            round(product.seconds, 3),
            count_parameters(product.learner.deliverable()),
        )
        for product in products.values()
    ]
    return given + trained


def _size(network: nn.Module) -> int | None:
    """Number of parameters; None where a part of the network runs in another library."""
    if any(isinstance(part, Foreign) for part in network.modules()):
        return None
    return count_parameters(network)


def described(data: Any) -> dict[str, Any]:
    """What ``results.json`` says of the data."""
    return {
        "name": type(getattr(data, "source", data)).__name__,
        "digest": data.digest,
        "inputs": [int(size) for size in data.inputs],
        "classes": int(data.classes),
        **data.sizes(),
    }


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


def report(results: Results, config: DictConfig, folder: Path) -> None:
    """Plots and the table at the end, as the group ``report`` wants them."""
    if config.report.plots:
        from ensemble_kd.report.plots import write_plots

        write_plots(results, read_points(folder / CURVES), folder / "plots")
    if config.report.table:
        from ensemble_kd.report.table import print_results

        print_results(results)
        print(f"\nrun folder: {folder}")
