"""A network as an ONNX file, checked against the network."""

from __future__ import annotations

import copy
import gc
import logging
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.types import Tokens, as_output

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram


TEXTS = ("input_ids", "attention_mask", "token_type_ids")
"""Names of what a network for texts takes, as elsewhere in the field."""

Parts = Mapping[str, Tensor]


class OnnxReport(NamedTuple):
    """What was exported, and how near it is to the network.

    Attributes:
        path: the file.
        max_difference: largest absolute difference of a logit between onnxruntime and PyTorch, over
            all batches that were tried.
        batch_sizes: how many samples these had.
        opset: version of the ONNX operators.
    """

    path: Path
    max_difference: float
    batch_sizes: tuple[int, ...]
    opset: int


def export_onnx(
    network: nn.Module, example_inputs: Any, path: str | Path, tolerance: float = 1e-4
) -> OnnxReport:
    """Write a network as one self-contained ONNX file, with a free batch size.

    The network itself is not touched: a copy of it is exported, in eval mode, in float32, from the
    CPU. The file has one input ``inputs``, or for texts ``input_ids``, ``attention_mask`` and
    ``token_type_ids``, (b, l) int64 of the length of the examples, and one output ``logits``. It
    appears whole, under its name, or not at all, and holds no paths of this machine.

    Args:
        network: returns logits, an ``Output`` or an object with ``.logits``. One that knows that it
            cannot be exported, or a part of it, says why in an attribute ``unexportable``.
        example_inputs: one or more samples, (b, ...) or ``Tokens``.
        path: the file; its folder exists.
        tolerance: how far a logit may be from the network's, as a share of the largest logit where
            that is above one.

    Raises:
        UserError: the network cannot be exported, or what was exported says something else.
    """
    path = Path(path)
    example = _named(example_inputs)
    if any(not part.dim() or not len(part) for part in example.values()) or not example:
        raise UserError(
            f"{path}: exporting needs a batch of example inputs, one tensor or texts, "
            f"got {type(example_inputs).__name__}"
        )
    for part in network.modules():
        if reason := getattr(part, "unexportable", None):
            raise UserError(f"{path}: the network cannot be exported to ONNX: {reason}")
    eager = _Logits(copy.deepcopy(network), isinstance(example_inputs, Tokens)).cpu().float().eval()
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with _quiet(), _without_collection():
            program = _program(eager, example)
        opset = program.model.opset_imports[""]
        program.save(str(unfinished), external_data=False)
        tried, difference = _compare(eager, example, unfinished, tolerance)
        unfinished.replace(path)
    except torch.onnx.OnnxExporterError as failure:
        cause = " ".join(str(failure.__cause__ or failure).split())
        raise UserError(
            f"{path}: the network cannot be exported to ONNX: {cause[:300]}"
        ) from failure
    except _UnlikeError as failure:
        raise UserError(f"{path}: the exported network is not the same: {failure}") from failure
    finally:
        unfinished.unlink(missing_ok=True)
    return OnnxReport(path, difference, tried, opset)


class _UnlikeError(Exception):
    """What the exported network says is not what the network says."""


class _Logits(nn.Module):
    """A network that returns its logits as a plain tensor, whatever else it says."""

    def __init__(self, network: nn.Module, texts: bool) -> None:
        super().__init__()
        self.network = network
        self.texts = texts

    def forward(self, *parts: Tensor) -> Tensor:
        if not self.texts:
            return as_output(self.network(*parts)).logits
        ids, mask, kinds = parts
        unread = ids[:, :0].to(torch.uint8)
        return as_output(self.network(Tokens(ids, mask > 0, kinds, unread))).logits


def _named(inputs: Any) -> Parts:
    """What the file takes, by name; nothing where that is not known."""
    if isinstance(inputs, Tokens):
        named = zip(TEXTS, (inputs.ids, inputs.mask, inputs.kinds), strict=True)
        return {name: part.detach().cpu().long() for name, part in named}
    if not isinstance(inputs, Tensor):
        return {}
    example = inputs.detach().cpu()
    return {"inputs": example.float() if example.is_floating_point() else example}


def _joined(first: Parts, second: Parts) -> Parts:
    return {name: torch.cat([part, second[name]]) for name, part in first.items()}


def _first(example: Parts, count: int) -> Parts:
    return {name: part[:count] for name, part in example.items()}


def _program(eager: nn.Module, example: Parts) -> ONNXProgram:
    # Two samples at least: with one, the exporter would take the batch size for a constant.
    several = _first(_joined(example, example), max(2, _size(example)))
    batch = {0: torch.export.Dim("batch")}
    program = torch.onnx.export(
        eager,
        tuple(several.values()),
        input_names=list(several),
        output_names=["logits"],
        dynamo=True,
        dynamic_shapes=(tuple(batch for _ in several),),
        verbose=False,
    )
    if program is None:
        raise torch.onnx.OnnxExporterError("the exporter returned nothing")
    # They hold stack traces, with the paths of this machine.
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    return program


def _size(example: Parts) -> int:
    return len(next(iter(example.values())))


def _compare(
    eager: nn.Module, example: Parts, file: Path, tolerance: float
) -> tuple[tuple[int, ...], float]:
    """The batch sizes that were tried, and the largest difference of a logit."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    batches = [example, _first(example, 1), _joined(example, _first(example, 1))]
    # What a network does not look at is no input of the file.
    taken = {each.name for each in session.get_inputs()}
    largest = 0.0
    for batch in batches:
        with torch.inference_mode():
            expected = eager(*batch.values())
        fed = {name: part.numpy() for name, part in batch.items() if name in taken}
        said = torch.from_numpy(session.run(["logits"], fed)[0])
        if said.shape != expected.shape:
            raise _UnlikeError(f"expected shape {tuple(expected.shape)}, got {tuple(said.shape)}")
        difference = (said - expected).abs().max().item()
        if not difference <= tolerance * max(1.0, expected.abs().max().item()):
            raise _UnlikeError(f"on {_size(batch)} samples a logit is off by {difference:g}")
        largest = max(largest, difference)
    return tuple(map(_size, batches)), largest


@contextmanager
def _without_collection() -> Iterator[None]:
    """Without garbage collection, which finds nothing here and takes a sixth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks that are about itself and not about the network."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")

    def about_the_network(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    registration.addFilter(about_the_network)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            # LSTMs keep a list of their weights, which they make anew.
            warnings.filterwarnings("ignore", "The tensor attributes? .* assigned during export")
            # All parts of a text have the same batch size, under one name.
            warnings.filterwarnings(
                "ignore", "# The axis name: batch will not be used", UserWarning
            )
            yield
    finally:
        registration.removeFilter(about_the_network)
