"""Every metric against its definition in float64, and what holds for all of them."""

from __future__ import annotations

import doctest
import math
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import accumulate, combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax
from scipy.stats import entropy
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from ensemble_kd import metrics
from ensemble_kd.metrics import (
    Agreement,
    Brier,
    ErrorInheritance,
    KnowledgeTransfer,
    NegativeLogLikelihood,
    OracleAccuracy,
    PredictiveKL,
    ProbabilityLoyalty,
    TeacherDiversity,
)
from ensemble_kd.types import NEVER, UNLABELLED

Values = dict[str, float]


def probabilities(logits: Tensor) -> np.ndarray:
    found: np.ndarray = softmax(logits.double().numpy(), axis=-1)
    return found


def classes(logits: Tensor) -> list[int]:
    """What is named for each sample of (n, c)."""
    return [int(row.argmax()) for row in logits.double().numpy()]


def share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def reference_negative_log_likelihood(logits: Tensor, target: Tensor) -> Values:
    known = (target != UNLABELLED).numpy()
    p = probabilities(logits)[known]
    loss = log_loss(target.numpy()[known], p, labels=range(p.shape[-1]))
    return {"": float(loss)}


def reference_brier(logits: Tensor, target: Tensor) -> Values:
    costs = []
    for p, true in zip(probabilities(logits), target.tolist(), strict=True):
        if true != UNLABELLED:
            costs.append(sum((p[c] - (c == true)) ** 2 for c in range(len(p))))
    return {"": float(np.mean(costs))}


def reference_agreement(first: Tensor, second: Tensor) -> Values:
    return {"": float(accuracy_score(classes(first), classes(second)))}


def reference_predictive_kl(student: Tensor, reference: Tensor) -> Values:
    both = zip(probabilities(student), probabilities(reference), strict=True)
    return {"": float(np.mean([sum(rel_entr(q, p)) for p, q in both]))}


def reference_probability_loyalty(student: Tensor, reference: Tensor) -> Values:
    both = zip(probabilities(student), probabilities(reference), strict=True)
    return {"": float(np.mean([1 - jensenshannon(p, q, base=2) for p, q in both]))}


def reference_error_inheritance(student: Tensor, teacher: Tensor, target: Tensor) -> Values:
    errors = inherited = 0
    for own, other, true in zip(classes(student), classes(teacher), target.tolist(), strict=True):
        if true not in (UNLABELLED, own):
            errors += 1
            inherited += own == other
    return {"": share(inherited, errors)}


def reference_knowledge_transfer(
    student: Tensor, teacher: Tensor, control: Tensor, target: Tensor
) -> Values:
    positive, negative = [], []
    said = [classes(each) for each in (student, teacher, control)]
    for own, taught, alone, true in zip(*said, target.tolist(), strict=True):
        if taught == true != alone:
            positive.append(own == true)
        if taught != true == alone:
            negative.append(own != true)
    return {
        "positive": share(sum(positive), len(positive)),
        "positive_n": len(positive),
        "negative": share(sum(negative), len(negative)),
        "negative_n": len(negative),
    }


def reference_teacher_diversity(logits: Tensor, target: Tensor) -> Values:
    p = [probabilities(each) for each in logits]
    said = [classes(each) for each in logits]
    differing, q = [], []
    for one, other in combinations(said, 2):
        differing.append(np.mean([a != b for a, b in zip(one, other, strict=True)]))
        table = np.zeros((2, 2))
        for a, b, true in zip(one, other, target.tolist(), strict=True):
            if true != UNLABELLED:
                table[int(a == true), int(b == true)] += 1
        alike, unlike = table[1, 1] * table[0, 0], table[0, 1] * table[1, 0]
        if alike + unlike:
            q.append((alike - unlike) / (alike + unlike))
    divergence = [
        entropy(np.mean(row, axis=0), base=2) - np.mean([entropy(each, base=2) for each in row])
        for row in zip(*p, strict=True)
    ]
    return {
        "disagreement": float(np.mean(differing)),
        "q_statistic": float(np.mean(q)) if q else math.nan,
        "js_divergence": float(np.mean(divergence)),
    }


def reference_oracle_accuracy(logits: Tensor, target: Tensor) -> Values:
    said = zip(*(classes(each) for each in logits), strict=True)
    both = zip(said, target.tolist(), strict=True)
    return {"": float(np.mean([true in named for named, true in both if true != UNLABELLED]))}


class Case(NamedTuple):
    """A metric, its definition, and the shapes of what it takes before the classes, if it does."""

    metric: Callable[[], Metric]
    reference: Callable[..., Values]
    shapes: tuple[tuple[int, ...], ...]
    takes_target: bool


ONE: tuple[int, ...] = ()

CASES = {
    "nll": Case(NegativeLogLikelihood, reference_negative_log_likelihood, (ONE,), True),
    "brier": Case(Brier, reference_brier, (ONE,), True),
    "agreement": Case(Agreement, reference_agreement, (ONE, ONE), False),
    "kl": Case(PredictiveKL, reference_predictive_kl, (ONE, ONE), False),
    "loyalty": Case(ProbabilityLoyalty, reference_probability_loyalty, (ONE, ONE), False),
    "inheritance": Case(ErrorInheritance, reference_error_inheritance, (ONE, ONE), True),
    "transfer": Case(KnowledgeTransfer, reference_knowledge_transfer, (ONE, ONE, ONE), True),
    "two": Case(lambda: TeacherDiversity(2), reference_teacher_diversity, ((2,),), True),
    "five": Case(lambda: TeacherDiversity(5), reference_teacher_diversity, ((5,),), True),
    "oracle": Case(OracleAccuracy, reference_oracle_accuracy, ((3,),), True),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def sample(case: Case, n: int, c: int = 5, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Seeded logits of n samples, right more often than by chance; every third class unknown."""
    generator = torch.Generator().manual_seed(n)
    target = torch.randint(c, (n,), generator=generator)
    shared = 2 * F.one_hot(target, c) + torch.randn(n, c, generator=generator)
    own = [torch.randn(*shape, n, c, generator=generator) for shape in case.shapes]
    target[2::3] = UNLABELLED
    logits = [(2 * (shared + 1.5 * each)).to(dtype) for each in own]
    return [*logits, target] if case.takes_target else logits


def part(given: Sequence[Tensor], rows: slice) -> list[Tensor]:
    """Some of the samples, which are the last axis of classes and the last but one of logits."""
    return [each[..., rows, :] if each.is_floating_point() else each[rows] for each in given]


def batches(given: Sequence[Tensor], sizes: Sequence[int]) -> list[list[Tensor]]:
    spans = zip(sizes, accumulate(sizes), strict=True)
    return [part(given, slice(end - size, end)) for size, end in spans]


def values(computed: Tensor | dict[str, Tensor]) -> Values:
    said = computed if isinstance(computed, dict) else {"": computed}
    return {name: float(value) for name, value in said.items()}


def measured(metric: Metric, *batches: Sequence[Tensor]) -> Values:
    for batch in batches:
        metric.update(*batch)
    return values(metric.compute())


def near(expected: Values) -> object:
    return pytest.approx(expected, rel=1e-5, abs=1e-7, nan_ok=True)


@pytest.mark.parametrize("c", [2, 5, 12])
@pytest.mark.parametrize("sizes", [(9,), (7, 7, 2), (1, 30, 5, 12)], ids=str)
def test_equals_its_definition_however_the_samples_are_cut(
    case: Case, sizes: Sequence[int], c: int
) -> None:
    given = sample(case, sum(sizes), c)
    assert measured(case.metric(), *batches(given, sizes)) == near(case.reference(*given))


def test_is_not_a_mean_of_batch_means(case: Case) -> None:
    given = sample(case, 200)
    halves = [case.reference(*each) for each in batches(given, [160, 40])]
    for name, value in case.reference(*given).items():
        mean = np.mean([half[name] for half in halves])
        assert abs(value - mean) > 1e-3 * value > 0


def test_merges_states_as_if_one_metric_had_seen_everything(case: Case) -> None:
    given = sample(case, 40)
    one, other = case.metric(), case.metric()
    for metric, batch in zip((one, other), batches(given, [33, 7]), strict=True):
        metric.update(*batch)
    one.merge_state(other)
    assert values(one.compute()) == near(case.reference(*given))


PROCESS = """
import os, pickle, sys
from pathlib import Path
from torch import distributed

folder = Path(sys.argv[1])
jobs = pickle.loads((folder / "jobs").read_bytes())
other = os.fork()  # only now: the imports take longer than all the rest
rank = 0 if other else 1
distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
said = []
for metric, shares in jobs:
    for batch in shares[rank]:
        metric.update(*batch)
    said.append(metric.compute())
(folder / f"said{rank}").write_bytes(pickle.dumps(said))
distributed.destroy_process_group()
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


def test_two_processes_count_as_one(tmp_path: Path) -> None:
    jobs, expected = [], []
    for case in CASES.values():
        given = sample(case, 40)
        first, second, third = batches(given, [11, 22, 7])
        # The other has seen another number of batches, or none at all.
        for shares in ([first, second], [third]), ([first, second, third], []):
            jobs.append((case.metric(), shares))
            expected.append(case.reference(*given))
    (tmp_path / "jobs").write_bytes(pickle.dumps(jobs))
    subprocess.run([sys.executable, "-c", PROCESS, str(tmp_path)], check=True)
    for rank in range(2):
        said = pickle.loads((tmp_path / f"said{rank}").read_bytes())
        for found, wanted in zip(said, expected, strict=True):
            assert values(found) == near(wanted)


def test_survives_pickling_in_the_middle(case: Case) -> None:
    given = sample(case, 40)
    first, second = batches(given, [10, 30])
    metric = case.metric()
    metric.update(*first)
    revived: Metric = pickle.loads(pickle.dumps(metric))
    assert measured(revived, second) == near(case.reference(*given))


def test_reset_forgets(case: Case) -> None:
    first, second = batches(sample(case, 40), [10, 30])
    metric = case.metric()
    metric.update(*first)
    metric.reset()
    assert measured(metric, second) == near(case.reference(*second))


def test_called_says_of_the_batch_and_counts_it(case: Case) -> None:
    given = sample(case, 40)
    metric = case.metric()
    for batch in batches(given, [10, 30]):
        assert values(metric(*batch)) == near(case.reference(*batch))
    assert values(metric.compute()) == near(case.reference(*given))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rounds_the_inputs_only(case: Case, dtype: torch.dtype) -> None:
    # The definition sees the same rounded logits, so what is left is the metric's own rounding.
    given = sample(case, 48, dtype=dtype)
    assert measured(case.metric(), given) == near(case.reference(*given))


def test_takes_tokens_as_samples(case: Case) -> None:
    given = sample(case, 24)
    tokens = [each.unflatten(-2 if each.is_floating_point() else -1, (4, 6)) for each in given]
    assert measured(case.metric(), tokens) == near(case.reference(*given))


def test_classes_that_all_rule_out_change_nothing(case: Case) -> None:
    given = sample(case, 24)
    wider = [
        F.pad(F.pad(each, (0, 1), value=NEVER), (0, 2), value=-math.inf)
        if each.is_floating_point()
        else each
        for each in given
    ]
    assert measured(case.metric(), wider) == near(case.reference(*given))


def test_of_nothing_is_nan_and_of_counts_zero(case: Case) -> None:
    metric = case.metric()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchmetrics warns of compute before update
        found = values(metric.compute())
    for name, value in found.items():
        assert value == 0 if name.endswith("_n") else math.isnan(value)


def test_of_unlabelled_samples_only_is_what_needs_no_label(case: Case) -> None:
    given = sample(case, 24)
    if case.takes_target:
        given[-1] = torch.full_like(given[-1], UNLABELLED)
    unlabelled = {"disagreement", "js_divergence"} if case.takes_target else {""}
    for name, value in measured(case.metric(), given).items():
        assert value == 0 if name.endswith("_n") else math.isnan(value) == (name not in unlabelled)


def test_many_batches_lose_no_precision(case: Case) -> None:
    given = sample(case, 6)
    metric = case.metric()
    for _ in range(1000):
        metric.update(*given)
    expected = case.reference(*given)
    for name, value in values(metric.compute()).items():
        times = 1000 if name.endswith("_n") else 1
        assert value == pytest.approx(times * expected[name], rel=1e-4, nan_ok=True)


def test_has_a_gradient_where_it_says_so(case: Case) -> None:
    *logits, last = sample(case, 24)
    given = [*(each.requires_grad_() for each in logits), last]
    found = case.metric()(*given)
    assert isinstance(found, dict) or found.requires_grad == case.metric().is_differentiable


@pytest.mark.parametrize("name", [name for name in metrics.__all__ if name != "cut_texts"])
def test_examples(name: str) -> None:
    result = doctest.testmod(sys.modules[getattr(metrics, name).__module__])
    assert result.attempted > 0
    assert result.failed == 0
