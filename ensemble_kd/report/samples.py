"""``samples.json``: the test samples on which the student and its teachers differ most."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ensemble_kd.errors import UserError
from ensemble_kd.files import write_json
from ensemble_kd.report.form import expect_form, read_form
from ensemble_kd.report.roles import ALONE

if TYPE_CHECKING:
    from torch import Tensor

    from ensemble_kd.predictions import Predictions
    from ensemble_kd.types import Batch

SCHEMA = 1
STUDENT, ENSEMBLE = "student", "ensemble"
LARGEST = 128
"""Pixels of the longer side of an image; larger ones are scaled down."""
LONGEST = 2000
"""Characters of a text that are kept."""
WIDEST = 64
"""Values of a vector that are kept."""


Said = TypedDict("Said", {"class": str, "probability": float})


class Kind(TypedDict):
    """What every input has."""

    kind: str


class Image(Kind):
    """A picture, in base64."""

    png: str
    width: int
    height: int


class Text(Kind):
    """A text, and which of its parts the sample is."""

    parts: list[str]
    word: int | None


class Table(Kind):
    """Values as the networks see them, some of ``count``."""

    values: list[float | None]
    count: int


KINDS: Mapping[str, type[Kind]] = {"image": Image, "text": Text, "table": Table, "other": Kind}


class Sample(TypedDict):
    """One of ``shown_samples``; its input is of one of the ``KINDS``."""

    index: int
    place: int | None
    target: str | None
    against: str
    kl: float | None
    said: dict[str, Said]
    input: Kind


class Samples(TypedDict):
    """The content of ``samples.json``."""

    schema: int
    samples: list[Sample]


def shown_samples(
    predictions: Predictions, batches: Iterable[Batch], count: int = 12
) -> list[dict[str, Any]]:
    """The samples with the largest KL(ensemble || student), as values that JSON can hold.

    In a run without an ensemble it is KL(control/no_teacher || student). Of a sequence only the
    place with the largest divergence counts. Equal divergences go by the order of the split.

    Args:
        predictions: of all predictors, on the split that ``batches`` go through.
        batches: of the split; read until all samples are found.
        count: how many samples at most.

    Returns:
        The largest divergence first: ``index`` of the sample, ``place`` in a sequence or None,
        ``target`` (name of its class, None where it is not known), ``against`` (the reference),
        ``kl`` (nats; None if it is infinite), ``said`` (of the student, the ensemble and the
        control: ``class`` and ``probability``, by name) and ``input``, whose ``kind`` is ``image``
        (``png`` in base64, ``width``, ``height``), ``text`` (``parts``, and ``word``, the number of
        the part that the place is, or None), ``table`` (``values`` as the networks see them,
        ``count`` of them in all) or ``other``. Nothing where there is no reference.
    """
    reference = next((name for name in (ENSEMBLE, ALONE) if name in predictions.logits), None)
    if reference is None or STUDENT not in predictions.logits:
        return []
    divergence = _divergence(predictions.logits[reference], predictions.logits[STUDENT])
    rows = _largest(divergence.tolist(), predictions.index.tolist(), count)
    places = _places(predictions.index.tolist(), rows)
    inputs = _inputs(batches, {int(predictions.index[row]) for row in rows})
    probabilities = {
        name: predictions.logits[name][rows].double().softmax(-1)
        for name in (STUDENT, ENSEMBLE, ALONE)
        if name in predictions.logits
    }
    shown = []
    for number, row in enumerate(rows):
        index, target = int(predictions.index[row]), int(predictions.target[row])
        kl = float(divergence[row])
        if index in inputs:
            shown.append(
                {
                    "index": index,
                    "place": places[row],
                    "target": predictions.names[target] if target >= 0 else None,
                    "against": reference,
                    "kl": kl if kl < float("inf") else None,
                    "said": {
                        name: _top(predictions.names, values[number])
                        for name, values in probabilities.items()
                    },
                    "input": _described(inputs[index], places[row]),
                }
            )
    return shown


def write_samples(samples: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write ``samples.json``, whole or not at all.

    Raises:
        UserError: the file system refuses.
    """
    write_json(path, {"schema": SCHEMA, "samples": list(samples)})


def read_samples(path: Path) -> list[dict[str, Any]]:
    """Read what ``write_samples`` wrote.

    Raises:
        UserError: it is not there, or something else.
    """
    content = read_form(path, Samples, SCHEMA, "the samples of a run")
    samples: list[dict[str, Any]] = content["samples"]
    for place, sample in enumerate(samples):
        own, key = sample["input"], f"samples.{place}.input"
        if own["kind"] not in KINDS:
            raise UserError(f"{path}: {key}.kind: expected {', '.join(KINDS)}, got {own['kind']!r}")
        expect_form(own, KINDS[own["kind"]], path, key)
    return samples


def _divergence(reference: Tensor, student: Tensor) -> Tensor:
    """(n,) float64, KL(reference || student) at temperature 1, in nats."""
    import torch

    p, q = reference.double().log_softmax(-1), student.double().log_softmax(-1)
    # What the reference rules out adds nothing, whatever the student says of it.
    return torch.where(p.exp() > 0, p.exp() * (p - q), 0.0).sum(-1)


def _largest(divergence: Sequence[float], index: Sequence[int], count: int) -> list[int]:
    """Rows by divergence, one for each sample."""
    chosen: dict[int, int] = {}
    for row in sorted(range(len(index)), key=lambda row: (-divergence[row], row)):
        if len(chosen) == count:
            break
        chosen.setdefault(index[row], row)
    return list(chosen.values())


def _places(index: Sequence[int], rows: Iterable[int]) -> dict[int, int | None]:
    """The number of each row within its sample; None where every sample is a single row."""
    if len(set(index)) == len(index):
        return dict.fromkeys(rows)
    first: dict[int, int] = {}
    for row, sample in enumerate(index):
        first.setdefault(sample, row)
    return {row: row - first[index[row]] for row in rows}


def _inputs(batches: Iterable[Batch], wanted: set[int]) -> dict[int, Any]:
    """The inputs of some samples, by their numbers, each without the axis of the batch."""
    from torch import Tensor
    from torch.utils import _pytree as pytree

    def own(part: Any, place: int) -> Any:
        return part[place].detach().cpu() if isinstance(part, Tensor) else part

    found: dict[int, Any] = {}
    for batch in batches:
        for place, sample in enumerate(batch.index.tolist()):
            if sample in wanted and sample not in found:
                found[sample] = pytree.tree_map(lambda part, k=place: own(part, k), batch.inputs)
        if len(found) == len(wanted):
            break
    return found


def _top(names: Sequence[str], probabilities: Tensor) -> dict[str, Any]:
    best = int(probabilities.argmax())
    return {"class": names[best], "probability": float(probabilities[best])}


def _described(inputs: Any, place: int | None) -> dict[str, Any]:
    """A sample as values that JSON can hold."""
    from torch import Tensor

    from ensemble_kd.networks.multi_head import Tasked
    from ensemble_kd.types import Tokens

    if isinstance(inputs, Tasked):
        return _described(inputs.inputs, place)
    if isinstance(inputs, Tokens):
        return _text(inputs.text, place)
    if isinstance(inputs, Tensor) and inputs.ndim in (2, 3):
        return _image(inputs if inputs.ndim == 3 else inputs[None])
    if isinstance(inputs, Tensor) and inputs.ndim == 1:
        values = inputs[:WIDEST].double().tolist()
        return {"kind": "table", "values": values, "count": len(inputs)}
    return {"kind": "other"}


def _text(text: Tensor, place: int | None) -> dict[str, Any]:
    from ensemble_kd.types import SEPARATOR

    # Some texts are cut: a character may end in the middle.
    written = bytes(text.tolist()).rstrip(b"\0").decode(errors="replace")
    parts = written.split(chr(SEPARATOR))
    word = place if len(parts) > 1 and place is not None and place < len(parts) else None
    left = LONGEST
    kept = []
    for part in parts:
        kept.append(part if len(part) <= left else part[:left] + "…")
        left -= len(part)
        if left <= 0:
            break
    return {"kind": "text", "parts": kept, "word": word}


def _image(image: Tensor) -> dict[str, Any]:
    """An image (c, h, w) from its darkest to its brightest value.

    One with another number of channels than 1 or 3 is shown as their mean.
    """
    from PIL import Image

    values = image.double()
    if len(values) not in (1, 3):
        values = values.mean(dim=0, keepdim=True)
    low, high = values.amin(), values.amax()
    scaled = (values - low) / (high - low if high > low else 1.0)
    bytes_ = (255 * scaled).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(bytes_[..., 0] if bytes_.shape[-1] == 1 else bytes_)
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    png = base64.b64encode(file.getvalue()).decode()
    return {"kind": "image", "png": png, "width": picture.width, "height": picture.height}
