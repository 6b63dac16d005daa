"""What a run's networks are worth: all that ``results.json`` says of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from omegaconf import DictConfig
from torch import nn

from ensemble_kd.build import build
from ensemble_kd.config import plain
from ensemble_kd.costs import cost
from ensemble_kd.engine import Engine, Product
from ensemble_kd.evaluation import Evaluation, Measured
from ensemble_kd.export import count_parameters
from ensemble_kd.plan import Plan
from ensemble_kd.predictions import Predictions
from ensemble_kd.report.contract import Results
from ensemble_kd.report.results import Trained, compile_results
from ensemble_kd.report.roles import pairs
from ensemble_kd.robustness import Spoilt
from ensemble_kd.scorecard import scorecard
from ensemble_kd.taught import class_names
from ensemble_kd.teachers import Foreign, Mixture
from ensemble_kd.training import on_card
from ensemble_kd.worth import Worth, worth

Split = Literal["val", "test"]
SPLITS: tuple[Split, ...] = ("val", "test")


class Assessed(NamedTuple):
    """What was found out.

    Attributes:
        results: the content of ``results.json``.
        predictions: what everybody said of each split.
        kept: whether there is room to keep that in the run folder.
    """

    results: Results
    predictions: dict[Split, Predictions]
    kept: bool


def assess(
    plan: Plan, config: DictConfig, engine: Engine, products: Mapping[str, Product]
) -> Assessed:
    """Measure every predictor on the validation and the test split, and what it costs.

    Raises:
        UserError: a predictor says nothing sensible, or a split is empty.
    """
    predictors = named_predictors(plan, products)
    evaluation: Evaluation = build(plain(config.evaluation, "evaluation"), "evaluation", plan.allow)
    trainer = plain(config.trainer, "trainer")
    device = "cuda" if on_card(trainer) else "cpu"
    found: dict[Split, Measured] = {
        split: evaluation.measure(
            predictors,
            _batches(plan, split),
            plan.classes,
            pairs(predictors),
            device,
            engine.kept(split, predictors, trainer),
            class_names(plan.data),
        )
        for split in SPLITS
    }
    spoilt: list[Spoilt] = []
    if evaluation.robustness is not None:
        tokenizer = getattr(plan.data, "tokenizer", None)
        test = _batches(plan, "test")
        spoilt = evaluation.robustness.measure(predictors, test, plan.classes, tokenizer, device)
    some = next(iter(_batches(plan, "test"))).inputs
    results = compile_results(
        seed=config.seed,
        strategy=config.strategy.name,
        data=described(plan.data),
        val=scorecard(found["val"], plan.teachers),
        test=scorecard(found["test"], plan.teachers),
        costs={name: cost(network, some) for name, network in predictors.items()},
        stages=stage_records(plan, products),
        worth=_worth(found["val"].predictions, plan),
        robustness=spoilt,
    )
    predictions = {split: measured.predictions for split, measured in found.items()}
    return Assessed(results, predictions, _room(predictions, evaluation.keep))


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
        Trained(name, teacher.digest, True, 0, 0.0, _parameters(teacher.network))
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
            product.stage.teachers,
        )
        for product in products.values()
    ]
    return given + trained


def described(data: Any) -> dict[str, Any]:
    """What ``results.json`` says of the data."""
    return {
        "name": type(getattr(data, "source", data)).__name__,
        "digest": data.digest,
        "inputs": [int(size) for size in data.inputs],
        "classes": int(data.classes),
        **data.sizes(),
    }


def _batches(plan: Plan, split: Split) -> Any:
    return plan.data.val_dataloader() if split == "val" else plan.data.test_dataloader()


def _worth(said: Predictions, plan: Plan) -> dict[str, Worth]:
    """What each teacher adds to the ensemble, on data that may be looked at to choose by it."""
    if len(plan.teachers) < 2:
        return {}
    found = worth([said.logits[name] for name in plan.teachers], said.target, said.index)
    return dict(zip(plan.teachers, found, strict=True))


def _parameters(network: nn.Module) -> int | None:
    """Number of parameters; None where a part of the network runs in another library."""
    if any(isinstance(part, Foreign) for part in network.modules()):
        return None
    return count_parameters(network)


def _room(predictions: Mapping[Split, Predictions], limit: float) -> bool:
    largest = max(each.nbytes for each in predictions.values()) / 1e6
    if largest > limit:
        print(
            f"warning: predictions of {largest:,.0f} MB are not kept, and the report shows no "
            f"samples: evaluation.keep allows {limit:,.0f} MB",
            file=sys.stderr,
        )
    return largest <= limit
