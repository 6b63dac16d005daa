"""Evaluation against naive float64 loops over single samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.evaluation import Evaluation, Measured
from ensemble_kd.scores import MOST_CLASSES
from ensemble_kd.teachers import Frozen, Mixture
from ensemble_kd.types import UNLABELLED, Batch, Output, Tokens

CLASSES = 4
SIZES = (7, 7, 3, 1)


class Network(nn.Module):
    """A linear network with a BatchNorm that counts how often it is run."""

    def __init__(self, seed: int, scale: float = 3.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.linear = nn.Linear(5, CLASSES)
        self.norm = nn.BatchNorm1d(5)
        with torch.no_grad():
            self.linear.weight.copy_(scale * torch.randn(CLASSES, 5, generator=generator))
            self.linear.bias.zero_()
        self.runs = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.runs += 1
        logits: Tensor = self.linear(self.norm(inputs))
        return logits


class Saying(nn.Module):
    """A network that gives what it is given."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, inputs: Tensor) -> Output:
        return Output(self.logits[inputs[:, 0].long()])


def batches(labelled: bool = True, sizes: Sequence[int] = SIZES) -> list[Batch]:
    """Seeded batches of unequal size; the first input of a sample in ``numbered`` is its index."""
    generator = torch.Generator().manual_seed(0)
    found, start = [], 0
    for size in sizes:
        target = torch.randint(CLASSES, (size,), generator=generator)
        mask = None
        if not labelled:
            mask = torch.rand(size, generator=generator) < 0.5
            target = target.where(mask, torch.tensor(UNLABELLED))
        inputs = torch.randn(size, 5, generator=generator)
        found.append(Batch(inputs, target, torch.arange(start, start + size), mask))
        start += size
    return found


def numbered(batch: Batch) -> Batch:
    """A batch whose inputs are the numbers of its samples."""
    return batch._replace(inputs=batch.index[:, None].float())


def reference_log_probabilities(
    network: nn.Module, loader: Sequence[Batch]
) -> np.ndarray[Any, Any]:
    """(n, c) float64."""
    rows = []
    for batch in loader:
        for sample in batch.inputs:
            with torch.no_grad():
                logits = network.eval()(sample[None])
            logits = getattr(logits, "logits", logits)[0].double().numpy()
            top = logits.max()
            rows.append(logits - top - math.log(sum(math.exp(x - top) for x in logits)))
    return np.array(rows)


def reference_scores(
    log_p: np.ndarray[Any, Any], loader: Sequence[Batch], bins: int
) -> list[float]:
    """Accuracy, NLL and ECE over the labelled samples, one after the other."""
    targets = [int(label) for batch in loader for label in batch.target]
    rows = [(row, label) for row, label in zip(log_p, targets, strict=True) if label != UNLABELLED]
    hits = [float(row.argmax() == label) for row, label in rows]
    losses = [-row[label] for row, label in rows]
    confidences = [math.exp(row.max()) for row, _ in rows]
    ece = 0.0
    for number in range(bins):
        # A bin holds its lower edge; the last one holds 1 as well.
        inside = [i for i, c in enumerate(confidences) if min(int(c * bins), bins - 1) == number]
        if inside:
            accuracy = sum(hits[i] for i in inside) / len(inside)
            confidence = sum(confidences[i] for i in inside) / len(inside)
            ece += len(inside) / len(rows) * abs(accuracy - confidence)
    return [sum(hits) / len(hits), sum(losses) / len(losses), ece]


def reference_by_class(
    log_p: np.ndarray[Any, Any], loader: Sequence[Batch]
) -> tuple[float, float, list[float]]:
    """Macro F1, Brier score and recall by class, one class and one sample after the other."""
    targets = [int(label) for batch in loader for label in batch.target]
    rows = [(row, label) for row, label in zip(log_p, targets, strict=True) if label != UNLABELLED]
    f1, recall = [], []
    for number in range(log_p.shape[1]):
        named = [row.argmax() == number for row, _ in rows]
        is_it = [label == number for _, label in rows]
        both = sum(a and b for a, b in zip(named, is_it, strict=True))
        recall.append(both / sum(is_it) if any(is_it) else math.nan)
        if any(named) or any(is_it):
            f1.append(2 * both / (sum(named) + sum(is_it)))
    brier = 0.0
    for row, label in rows:
        brier += sum((math.exp(x) - (k == label)) ** 2 for k, x in enumerate(row)) / len(rows)
    return sum(f1) / len(f1), brier, recall


def measure(predictors: dict[str, nn.Module], loader: Sequence[Batch], **settings: Any) -> Measured:
    return Evaluation(settings.pop("bins", 15)).measure(predictors, loader, CLASSES, **settings)


@pytest.mark.parametrize("bins", [1, 5, 15])
@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "partly"])
def test_scores_equal_a_loop_over_samples(bins: int, labelled: bool) -> None:
    loader = batches(labelled)
    networks: dict[str, nn.Module] = {"student": Network(0), "teacher/0": Network(1, scale=0.3)}
    found = measure(networks, loader, bins=bins)
    known = sum(int((batch.target != UNLABELLED).sum()) for batch in loader)
    assert known < sum(SIZES) or labelled
    for name, network in networks.items():
        expected = reference_scores(reference_log_probabilities(network, loader), loader, bins)
        assert found.predictors[name][:3] == pytest.approx(expected, rel=1e-5)
        assert found.predictors[name].n == known
        f1, brier, recall = reference_by_class(reference_log_probabilities(network, loader), loader)
        assert found.predictors[name].macro_f1 == pytest.approx(f1, rel=1e-5)
        assert found.predictors[name].brier == pytest.approx(brier, rel=1e-5)
        assert found.predictors[name].recall == pytest.approx(recall, rel=1e-5, nan_ok=True)


def test_recall_of_a_class_that_does_not_occur_is_not_known() -> None:
    logits = torch.eye(CLASSES)[torch.arange(18) % CLASSES] * 3
    loader = [
        numbered(batch)._replace(target=(batch.index % CLASSES).clamp(max=2)) for batch in batches()
    ]
    recall = measure({"student": Saying(logits)}, loader).predictors["student"].recall
    assert recall[:2] == (1.0, 1.0)
    assert 0 < recall[2] < 1
    assert math.isnan(recall[3])


def test_so_many_classes_are_not_counted_one_by_one() -> None:
    classes = MOST_CLASSES + 1
    loader = [numbered(batch) for batch in batches()]
    found = Evaluation().measure({"student": Saying(torch.rand(18, classes))}, loader, classes)
    scores = found.predictors["student"]
    assert math.isnan(scores.macro_f1)
    assert scores.recall == ()
    assert math.isfinite(scores.nll)


def test_predictions_are_kept_by_sample_in_the_order_of_the_split() -> None:
    loader = batches(labelled=False)
    networks: dict[str, nn.Module] = {"teacher/0": Network(0), "student": Network(1)}
    networks["ensemble"] = Mixture([networks["teacher/0"], networks["student"]])
    said = measure(networks, loader, names=["a", "b", "c", "d"]).predictions
    assert said.names == ("a", "b", "c", "d")
    assert torch.equal(said.index, torch.arange(18))
    assert torch.equal(said.target, torch.cat([batch.target for batch in loader]))
    assert list(said.logits) == list(networks)
    for name in ("teacher/0", "student"):
        logits = torch.cat([networks[name].eval()(batch.inputs) for batch in loader])
        torch.testing.assert_close(said.logits[name], logits.detach())
    assert not any(logits.is_inference() for logits in said.logits.values())


@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "partly"])
def test_pairs_equal_a_loop_over_all_samples_labelled_or_not(labelled: bool) -> None:
    loader = batches(labelled)
    networks: dict[str, nn.Module] = {"student": Network(0), "ensemble": Network(1)}
    found = measure(networks, loader, pairs=[("student", "ensemble")])
    log_p = reference_log_probabilities(networks["student"], loader)
    log_q = reference_log_probabilities(networks["ensemble"], loader)
    near = found.pairs["student", "ensemble"]
    assert near.agreement == pytest.approx(np.mean(log_p.argmax(1) == log_q.argmax(1)))
    kl = np.mean([(np.exp(q) * (q - p)).sum() for p, q in zip(log_p, log_q, strict=True)])
    assert near.kl == pytest.approx(kl, rel=1e-5)


def test_does_not_depend_on_how_samples_are_cut_into_batches() -> None:
    loader = batches(sizes=(18,))
    whole_batch = loader[0]
    cut = [
        Batch(whole_batch.inputs[a:b], whole_batch.target[a:b], torch.arange(a, b))
        for a, b in ((0, 1), (1, 4), (4, 18))
    ]
    networks: dict[str, nn.Module] = {"student": Network(0), "ensemble": Network(1)}
    pairs = [("student", "ensemble")]
    whole, parts = (measure(networks, some, pairs=pairs) for some in (loader, cut))
    assert parts.predictors["student"][:4] == pytest.approx(
        whole.predictors["student"][:4], rel=1e-5
    )
    assert parts.pairs[pairs[0]] == pytest.approx(whole.pairs[pairs[0]], rel=1e-5)


def test_logits_between_zero_and_one_are_not_taken_for_probabilities() -> None:
    logits = torch.rand(18, CLASSES, generator=torch.Generator().manual_seed(3))
    loader = [numbered(batch) for batch in batches()]
    found = measure({"student": Saying(logits)}, loader).predictors["student"]
    log_p = logits.double().log_softmax(-1).numpy()
    assert found[:3] == pytest.approx(reference_scores(log_p, loader, 15), rel=1e-5)


def test_a_confidence_of_exactly_one_belongs_to_the_last_bin() -> None:
    # 12 right with confidence 1, 6 wrong with 0.95: together 2/3 right with a confidence of 0.98...
    sure, rest = math.log(0.95), math.log(0.05 / 3)
    logits = torch.tensor([[200.0, 0, 0, 0]] * 12 + [[rest, sure, rest, rest]] * 6)
    loader = [
        numbered(batch)._replace(target=torch.zeros_like(batch.target)) for batch in batches()
    ]
    found = measure({"student": Saying(logits)}, loader).predictors["student"]
    assert found.ece == pytest.approx((12 + 6 * 0.95) / 18 - 12 / 18, rel=1e-5)


def test_half_precision_networks_are_measured_in_float32() -> None:
    logits = (30 * torch.randn(18, CLASSES, generator=torch.Generator().manual_seed(3))).half()
    loader = [numbered(batch) for batch in batches()]
    found = measure({"student": Saying(logits)}, loader).predictors["student"]
    log_p = logits.double().log_softmax(-1).numpy()
    assert found[:3] == pytest.approx(reference_scores(log_p, loader, 15), rel=1e-5)


def test_masked_samples_do_not_count_whatever_their_target_says() -> None:
    loader = [batch._replace(target=batch.target.clamp(min=0)) for batch in batches(labelled=False)]
    network = Network(0)
    found, expected = (
        measure({"student": network}, some) for some in (loader, batches(labelled=False))
    )
    assert str(found.predictors) == str(expected.predictors)  # a recall may be NaN
    assert torch.equal(found.predictions.target, expected.predictions.target)


def test_a_split_without_labels_has_pairs_but_no_scores() -> None:
    loader = [
        batch._replace(
            target=torch.full_like(batch.target, UNLABELLED),
            mask=torch.zeros_like(batch.target, dtype=torch.bool),
        )
        for batch in batches()
    ]
    found = measure(
        {"student": Network(0), "ensemble": Network(1)}, loader, pairs=[("student", "ensemble")]
    )
    scores = found.predictors["student"]
    assert scores.n == 0
    assert all(math.isnan(value) for value in scores[:3])
    assert 0 <= found.pairs["student", "ensemble"].agreement <= 1
    assert 0 <= found.pairs["student", "ensemble"].probability_loyalty <= 1


def test_members_of_a_mixture_run_once_per_batch() -> None:
    loader = batches()
    one, other, alone = Network(0), Network(1), Network(2)
    predictors: dict[str, nn.Module] = {
        "ensemble": Mixture([one, Frozen(other), alone]),
        "teacher/0": one,
        "teacher/1": other,
    }
    found = measure(predictors, loader, pairs=[("teacher/0", "ensemble")])
    assert [network.runs for network in (one, other, alone)] == [len(SIZES)] * 3
    rows = [reference_log_probabilities(network, loader) for network in (one, other, alone)]
    mixed = np.log(np.mean([np.exp(row) for row in rows], axis=0))
    expected = reference_scores(mixed, loader, 15)
    assert found.predictors["ensemble"][:3] == pytest.approx(expected, rel=1e-5)
    kl = np.mean([(np.exp(q) * (q - p)).sum() for p, q in zip(rows[0], mixed, strict=True)])
    assert found.pairs["teacher/0", "ensemble"].kl == pytest.approx(kl, rel=1e-4)


def test_measuring_members_alone_gives_the_same_mixture() -> None:
    loader = batches()
    one, other = Network(0), Network(1)
    alone = measure({"ensemble": Mixture([one, other])}, loader)
    beside = measure({"a": one, "ensemble": Mixture([one, other]), "b": other}, loader)
    assert beside.predictors["ensemble"] == alone.predictors["ensemble"]


def test_networks_are_left_as_they_were() -> None:
    student, teacher = Network(0).train(), Network(1)
    student.norm.eval()  # a BatchNorm that somebody froze on purpose
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    frozen = Frozen(teacher)
    measure({"student": student, "teacher/0": frozen, "ensemble": Mixture([frozen])}, batches())
    assert student.training
    assert student.linear.training
    assert not student.norm.training
    assert not teacher.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in student.parameters())


def test_training_mode_is_restored_after_an_error_too() -> None:
    student = Network(0).train()
    with pytest.raises(UserError):
        measure({"student": student}, [])
    assert student.training


def test_networks_are_measured_in_eval_mode() -> None:
    seen = []

    class Spy(Network):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append((self.training, self.norm.training, torch.is_inference_mode_enabled()))
            return super().forward(inputs)

    measure({"student": Spy(0).train()}, batches())
    assert set(seen) == {(False, False, True)}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["one", "row"])
def test_predictions_that_are_none_name_the_predictor(bad: float, where: str) -> None:
    logits = torch.zeros(18, CLASSES)
    logits[9, slice(None) if where == "row" else 2] = bad
    predictors: dict[str, nn.Module] = {"student": Network(0), "teacher/1": Saying(logits)}
    loader = [numbered(batch) for batch in batches()]
    predictors["student"] = Saying(torch.zeros(18, CLASSES))
    if bad == -math.inf and where == "one":  # one class is ruled out: a distribution all the same
        assert measure(predictors, loader).predictors["teacher/1"].n == 18
        return
    with pytest.raises(UserError, match=r"^teacher/1: expected finite logits") as caught:
        measure(predictors, loader)
    assert "\n" not in str(caught.value)


def test_another_number_of_classes_names_the_predictor() -> None:
    loader = [numbered(batch) for batch in batches()]
    with pytest.raises(UserError, match="teacher/0: expected 4 classes as in the data, got 3"):
        measure({"teacher/0": Saying(torch.zeros(18, 3))}, loader)


def test_an_empty_split_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="expected at least one batch"):
        measure({"student": Network(0)}, [])


def test_bins_must_be_positive() -> None:
    with pytest.raises(ValueError, match="bins must be >= 1, got 0"):
        Evaluation(bins=0)


def tagged() -> list[Batch]:
    """Two texts of four tokens; the last token of the second one is padding."""
    places = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]], dtype=torch.bool)
    target = torch.tensor([[1, 2, 0, 0], [0, 1, UNLABELLED, UNLABELLED]])
    mask = target != UNLABELLED
    return [Batch(torch.zeros(2, 1), target, torch.arange(2), mask, places=places)]


class Tagging(nn.Module):
    """Says the same of every batch."""

    def __init__(self, answers: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.logits = nn.functional.one_hot(torch.tensor(answers), 3).float() * 5

    def forward(self, inputs: Tensor) -> Tensor:
        return self.logits


def test_of_sequences_only_places_are_compared_and_only_labels_are_scored() -> None:
    first = Tagging([[1, 2, 0, 0], [0, 0, 1, 0]])
    second = Tagging([[1, 2, 0, 1], [0, 0, 1, 2]])  # another tag at one place, and at padding
    pair = ("first", "second")
    measured = Evaluation().measure({"first": first, "second": second}, tagged(), 3, [pair])
    assert measured.pairs[pair].agreement == pytest.approx(6 / 7)
    assert measured.predictors["first"].n == 6
    assert measured.predictors["first"].accuracy == pytest.approx(5 / 6)
    assert measured.predictors["first"].span_f1 is None
    assert measured.predictions.index.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert measured.predictions.target.tolist() == [1, 2, 0, 0, 0, 1, UNLABELLED]


def test_entities_are_scored_where_asked_for() -> None:
    said = Tagging([[1, 2, 0, 0], [0, 0, 1, 0]])
    names = ["O", "B-x", "I-x"]
    measured = Evaluation(spans=True).measure({"it": said}, tagged(), 3, names=names)
    # One entity found of two; none that is not there, for the third token has no label.
    assert measured.predictors["it"].span_f1 == pytest.approx(2 * 1 / (1 + 2))


class Knowing(nn.Module):
    """Says what it was told of texts."""

    def __init__(self, answers: Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, inputs: Tokens) -> Tensor:
        return nn.functional.one_hot(self.answers, 3).float() * 5


@pytest.mark.parametrize(("width", "cut"), [(4, 0), (3, 1), (2, 2)])
def test_entities_that_were_cut_off_are_spoken_of(
    width: int, cut: int, capsys: pytest.CaptureFixture[str]
) -> None:
    # Words of one token each, the fourth of the first text and the third of the second an entity.
    written = [b"a\x1fb\x1fc\x1fd", b"a\x1fb\x1fc", b"a"]
    text = torch.zeros(3, 9, dtype=torch.uint8)
    for row, each in enumerate(written):
        text[row, : len(each)] = torch.tensor(list(each), dtype=torch.uint8)
    whole = torch.tensor([[0, 0, 0, 1], [1, 0, 1, UNLABELLED], [0, *[UNLABELLED] * 3]])
    target = whole[:, :width]
    known = target != UNLABELLED
    inputs = Tokens(target.clamp(min=0), known, torch.zeros_like(target), text)
    batch = Batch(inputs, target, torch.arange(3), known, places=known)
    said = Knowing(target.clamp(min=0))
    evaluation = Evaluation(spans=True)
    measured = evaluation.measure({"it": said}, [batch], 3, names=["O", "B-x", "I-x"])
    assert measured.predictors["it"].span_f1 == 1.0  # of what was there
    (*lines,) = capsys.readouterr().err.splitlines()
    assert len(lines) == (cut > 0)
    assert all(f"evaluation.spans: {cut} of 3 texts have words beyond" in line for line in lines)
    Evaluation().measure({"it": said}, [batch], 3)
    assert not capsys.readouterr().err


def test_entities_need_classes_that_are_tags() -> None:
    with pytest.raises(UserError, match=r"evaluation\.spans: names must be O, B-TYPE or I-TYPE"):
        Evaluation(spans=True).measure({}, tagged(), 3, names=["a", "b", "c"])
