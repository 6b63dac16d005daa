"""``python -m ensemble_kd.worth RUN``: which teachers of a run earn their place in the ensemble.

Computed from what the teachers said of the validation split, which the run has kept; no network
runs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ensemble_kd.coalitions import Coalitions, all_coalitions, drawn_coalitions
from ensemble_kd.commands import Parser, path, status
from ensemble_kd.errors import UserError
from ensemble_kd.functional import log_mean_probabilities, log_probabilities, spread
from ensemble_kd.predictions import Predictions, read_predictions
from ensemble_kd.report.console import open_console, show_table, start_table
from ensemble_kd.report.roles import role
from ensemble_kd.report.spared import spared
from ensemble_kd.types import SPOKEN, UNLABELLED

EXACT = 10
"""Up to so many teachers all their coalitions are looked at; there are 2^m."""

BLOCK = 2**21
"""Numbers that are in memory at a time, which is 16 MB of them."""


class Worth(NamedTuple):
    """What a teacher adds to the accuracy of the ensemble.

    Attributes:
        leave_one_out: accuracy of the ensemble of all, less that of the ensemble without it.
        leave_one_out_error: its standard error.
        shapley: its Shapley value, its share of what the ensemble of all gains over chance.
        shapley_error: its standard error.
    """

    leave_one_out: float
    leave_one_out_error: float
    shapley: float
    shapley_error: float


def worth(
    logits: Sequence[Tensor],
    target: Tensor,
    index: Tensor | None = None,
    seed: int = 0,
    exact: int = EXACT,
) -> list[Worth]:
    r"""What each of m teachers adds to the ensemble, from what they said of some samples.

    The value :math:`v(S)` of a coalition S of teachers is the accuracy of the mean of their
    probabilities, the ensemble that a run reports; :math:`v(\emptyset)` is the share of the most
    frequent class, which one gets right without asking anybody. The Shapley value of a teacher is

    .. math:: \sum_{S \not\ni i} \frac{|S|! (m - |S| - 1)!}{m!} (v(S \cup \{i\}) - v(S)),

    what it adds to those who came before, in the mean over all orders in which the teachers may
    come. The values of all teachers sum to :math:`v(\text{all}) - v(\emptyset)`. Two teachers that
    can stand in for each other share what they add, while leaving out one of them costs little: the
    two values answer two questions.

    With more than ``exact`` teachers the orders are a random sample, each with its reverse, which
    evens out who comes early (antithetic variates); the sum stays exact.

    As v is a mean over samples, so is each value, and its standard error is that of a mean; of a
    sample of orders, the error of that is in it. What chance is counts as known.

    Source: Shapley, A Value for n-Person Games (1953). The sampling is that of Castro, Gomez and
    Tejada, Polynomial Calculation of the Shapley Value Based on Sampling, Computers and Operations
    Research 36 (2009), to which the reverse orders are added.

    Args:
        logits: (n, c) of each teacher, in any floating type.
        target: (n,) int64, the class of each sample; ``UNLABELLED`` ones do not count.
        index: (n,) int64, the sequence to which each place belongs, whose places are not
            independent of each other: the errors then are of a mean over clusters. All samples are
            independent if not given.
        seed: of the orders.
        exact: up to how many teachers all coalitions are looked at.

    Returns:
        One for each teacher. All values are NaN when no sample is labelled, the errors also where
        there is one sample only.

    Raises:
        ValueError: there is no teacher, or the shapes do not fit.
    """
    if not logits:
        raise ValueError("logits must be of one or more teachers, got none")
    shapes = sorted({tuple(each.shape) for each in logits})
    if len(shapes) > 1 or len(shapes[0]) != 2 or len(target) != shapes[0][0]:
        raise ValueError(
            f"logits must be (samples, classes) with {len(target)} samples as the target, "
            f"got {shapes}"
        )
    known = target != UNLABELLED
    classes = target[known]
    if not len(classes):
        return [Worth(*[math.nan] * 4)] * len(logits)
    log_p = torch.stack([log_probabilities(each[known]) for each in logits])
    groups = torch.arange(len(classes)) if index is None else index[known]
    teachers = len(logits)
    coalitions = all_coalitions(teachers) if teachers <= exact else drawn_coalitions(teachers, seed)

    chance = float(classes.bincount().max()) / len(classes)
    losses = torch.empty(teachers, len(classes), dtype=torch.float64)
    shapley = torch.empty_like(losses)
    accuracies = torch.zeros(len(coalitions.members), dtype=torch.float64)
    for rows, right in _right(log_p, classes, coalitions.members):
        right[0] = chance
        losses[:, rows] = right[-1] - right[coalitions.without]
        shapley[:, rows] = coalitions.shares.T @ right
        accuracies += right.sum(1) / len(classes)
    shapley_error = torch.hypot(_error(shapley, groups), _error_of_walks(accuracies, coalitions))
    columns = (losses.mean(1), _error(losses, groups), shapley.mean(1), shapley_error)
    return [Worth(*row) for row in torch.stack(columns, 1).tolist()]


def _right(log_p: Tensor, target: Tensor, members: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Which samples each coalition gets right, block by block of samples.

    Args:
        log_p: (m, n, c) log-probabilities of the teachers.
        target: (n,) classes.
        members: (s, m) bool, the last of all teachers. Of one without any, nothing is said.

    Yields:
        The samples of a block, and (s, b) float64, 1 for right and 0 for wrong.
    """
    inside = members.double()
    size = max(1, BLOCK // (len(members) * log_p.shape[-1]))
    for start in range(0, len(target), size):
        rows = slice(start, start + size)
        knows = log_p[:, rows] > SPOKEN
        p = torch.where(knows, log_p[:, rows].exp(), 0.0).double()
        mean = torch.einsum("sm,mbc->sbc", inside, p)
        if not knows.all():  # the mean is over those who know a class
            known = torch.einsum("sm,mbc->sbc", inside, knows.double())
            mean = torch.where(known > 0, mean / known, -1.0)
        said = mean.argmax(-1)
        # As the run merges it, whose logarithms may round a tie to another class.
        said[-1] = _merged(log_p[:, rows]).argmax(-1)
        yield rows, (said == target[rows]).double()


def _merged(log_p: Tensor) -> Tensor:
    """Log-probabilities (n, c) of the ensemble of all teachers, from theirs, (m, n, c)."""
    weights = torch.full((len(log_p),), 1 / len(log_p))
    return log_mean_probabilities(log_p, spread(weights, log_p[0]))


def _error(values: Tensor, groups: Tensor) -> Tensor:
    """Standard errors (m,) of the means of (m, n) values, whose samples are independent by group.

    Of a mean over clusters; where each sample is a group of its own, s / sqrt(n). NaN with one.
    """
    numbers, own = groups.unique(return_inverse=True)
    if len(numbers) < 2:
        return torch.full_like(values[:, 0], torch.nan)
    residuals = values - values.mean(1, keepdim=True)
    sums = values.new_zeros(len(values), len(numbers)).index_add(1, own, residuals)
    scale = len(numbers) / (len(numbers) - 1)
    return (scale * sums.square().sum(1)).sqrt() / values.shape[1]


def _error_of_walks(accuracies: Tensor, coalitions: Coalitions) -> Tensor:
    """Standard errors (m,) of Shapley values that are a mean over drawn pairs of orders."""
    if not len(coalitions.walks):
        return accuracies.new_zeros(coalitions.members.shape[1])
    steps = accuracies[coalitions.stops].diff(dim=-1)
    gains = torch.empty_like(steps).scatter(-1, coalitions.walks, steps).mean(1)
    return gains.std(0) / math.sqrt(len(gains))


def show(run: Path) -> None:
    """Print what each teacher of a run is worth, and which the ensemble would not miss.

    Args:
        run: the folder of a run.

    Raises:
        UserError: the folder is no run's, or the run kept no predictions, has no two teachers, or
            no labels to hold them against.
    """
    path = run / "predictions" / "val.safetensors"
    if not path.is_file():
        raise UserError(f"{run}: expected a run that kept its predictions, found no {path}")
    said = read_predictions(path)
    teachers = {name: each for name, each in said.logits.items() if role(name) == "teacher"}
    known = said.target != UNLABELLED
    if len(teachers) < 2:
        raise UserError(f"{path}: expected two teachers or more, got {len(teachers)}")
    if not bool(known.any()):
        raise UserError(f"{path}: expected samples with labels, got none")
    found = dict(zip(teachers, worth([*teachers.values()], said.target, said.index), strict=True))
    whole = _accuracy(_merged(torch.stack([*map(log_probabilities, teachers.values())])), said)
    console = open_console()
    columns = ("teacher", "accuracy", "ensemble without it", "worth")
    table = start_table(columns, plain=not console.is_terminal)
    for name, its in found.items():
        own, without = _accuracy(teachers[name], said), whole - its.leave_one_out
        value = f"{100 * its.shapley:.2f} ± {100 * its.shapley_error:.2f}"
        table.add_row(name, f"{100 * own:.2f}", f"{100 * without:.2f}", value)
    title = f"ensemble of {len(found)} teachers: accuracy {100 * whole:.2f}"
    show_table(console, f"{title} on {int(known.sum())} samples, val", table)
    said_of_each = {name: its._asdict() for name, its in found.items()}
    console.print(spared(said_of_each), soft_wrap=True)


def _accuracy(logits: Tensor, said: Predictions) -> float:
    known = said.target != UNLABELLED
    return float((logits.argmax(-1) == said.target)[known].double().mean())


def main() -> int:
    """The command line; returns its exit status, 2 for a user's mistake."""
    parser = Parser(prog="python -m ensemble_kd.worth", description=__doc__)
    parser.add_argument("run", type=path, help="the folder of a run")
    asked = parser.parse_args()
    return status(lambda: show(asked.run))


if __name__ == "__main__":
    sys.exit(main())
