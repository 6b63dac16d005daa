"""What the end of a run takes: all predictors on held-out data, and the run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import count

from omegaconf import DictConfig
from torch import Tensor, nn

from ensemble_kd.build import build
from ensemble_kd.config import plain
from ensemble_kd.costs import cost
from ensemble_kd.evaluation import Evaluation
from ensemble_kd.forecast.described import Assessment
from ensemble_kd.forecast.samples import Turns, of_size
from ensemble_kd.forecast.sizes import safetensors
from ensemble_kd.forecast.spans import Timing, span
from ensemble_kd.forecast.stopwatch import Clock
from ensemble_kd.plan import Plan
from ensemble_kd.report.roles import pairs
from ensemble_kd.taught import class_names
from ensemble_kd.teachers import Mixture, translated
from ensemble_kd.training import assemble, on_card

KINDS = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}


def described_as(network: nn.Module) -> int:
    """Bytes of a file with the weights and buffers of a network, each of them once."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    seen: set[tuple[int, int]] = set()
    for name, tensor in sorted(network.state_dict().items()):
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset())
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        tensors[name] = (KINDS.get(str(tensor.dtype), "F32"), tuple(tensor.shape))
    return safetensors(tensors)


def predictors(plan: Plan, networks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """All that a run evaluates, by name, with weights that mean nothing yet.

    Args:
        plan: of the run.
        networks: those of the teachers and stages, by name.
    """
    named = {name: networks[name] for name in plan.given}
    for stage in plan.stages:
        if not stage.epochs:
            continue
        learner = assemble(stage, plan.allow)
        for name, network in learner.predictors().items():
            named[stage.reported(name)] = translated(network, stage.covered, plan.classes)
    mixtures = {
        name: Mixture([named[member] for member in members])
        for name, members in plan.mixtures.items()
    }
    return {**named, **mixtures}


def assessment(
    plan: Plan,
    config: DictConfig,
    networks: Mapping[str, nn.Module],
    seconds: float,
    clock: Clock = time.perf_counter,
) -> Assessment:
    """Evaluate the predictors, untrained, on a few samples.

    Args:
        plan: of the run.
        config: from which it was made.
        networks: those of the teachers and stages, by name.
        seconds: when to stop, about.
        clock: in seconds.
    """
    evaluation: Evaluation = build(plain(config.evaluation, "evaluation"), "evaluation", plan.allow)
    named = predictors(plan, networks)
    batch = next(iter(plan.data.val_dataloader()))
    device = "cuda" if on_card(plain(config.trainer, "trainer")) else "cpu"

    def measured(size: int, rounds: int) -> float:
        before = clock()
        evaluation.measure(
            *(named, Turns([of_size(batch, size)], rounds), plan.classes, pairs(named), device),
            names=class_names(plan.data),
        )
        return clock() - before

    def spoilt(size: int, rounds: int) -> float:
        before = clock()
        if evaluation.robustness is not None:
            turns = Turns([of_size(batch, size)], rounds)
            tokenizer = getattr(plan.data, "tokenizer", None)
            evaluation.robustness.measure(named, turns, plan.classes, tokenizer, device)
        return clock() - before

    # The first time, much is loaded.
    size = min(4, len(batch.index))
    measured(size, 1), spoilt(size, 1)
    while size < len(batch.index) and 2 * (measured(size, 1) + spoilt(size, 1)) < seconds:
        size = min(2 * size, len(batch.index))
    counted = _timed(measured, size, seconds / 4)
    seen = _timed(spoilt, size, seconds / 4)
    some = of_size(batch, size)
    before = clock()
    for network in named.values():
        cost(network, some.inputs)
    # Of a batch that was too large to try, at least five passes more.
    rest = counted.middle.at(len(batch.index)) - counted.middle.at(size)
    described = clock() - before + 5 * rest
    student = described_as(assemble(plan.stages[_last(plan)], plan.allow).deliverable())
    copies = 2 if config.report.onnx else 1
    return Assessment(
        counted,
        span([described]),
        copies * student,
        len(named) * plan.classes * 4 * _places(batch.target),
        16 * _places(batch.target),
        evaluation.keep * 1e6,
        seen,
        0 if evaluation.robustness is None else evaluation.robustness.samples,
    )


def _timed(work: Callable[[int, int], float], size: int, seconds: float) -> Timing:
    """The time of some work for one and for three batches, as a function of the samples."""
    began = time.perf_counter()
    taken: dict[int, list[float]] = {size: [], 3 * size: []}
    for number in count():
        if number > 20 or (number and time.perf_counter() - began > seconds):
            break
        for rounds in (1, 3):
            taken[rounds * size].append(work(size, rounds))
    return Timing.through(taken)


def _last(plan: Plan) -> int:
    """The number of the stage that trains the student."""
    return next(n for n, stage in enumerate(plan.stages) if stage.name == "student")


def _places(target: Tensor) -> int:
    """Answers for each sample: one, or one for each token."""
    return target[0].numel()
