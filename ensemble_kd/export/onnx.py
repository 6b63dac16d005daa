"""A network as an ONNX file, checked against the network."""

from __future__ import annotations

import copy
import gc
import logging
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.types import as_output

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram


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
    network: nn.Module, example_inputs: Tensor, path: str | Path, tolerance: float = 1e-4
) -> OnnxReport:
    """Write a network as one self-contained ONNX file, with a free batch size.

    The network itself is not touched: a copy of it is exported, in eval mode, in float32, from the
    CPU. The file has one input ``inputs`` and one output ``logits``. It appears whole, under its
    name, or not at all, and holds no paths of this machine.

    Args:
        network: returns logits, an ``Output`` or an object with ``.logits``.
        example_inputs: (b, ...) one or more samples.
        path: the file; its folder exists.
        tolerance: how far a logit may be from the network's, as a share of the largest logit where
            that is above one.

    Raises:
        UserError: the network cannot be exported, or what was exported says something else.
    """
    path = Path(path)
    if (
        not isinstance(example_inputs, Tensor)
        or not example_inputs.dim()
        or not len(example_inputs)
    ):
        raise UserError(f"{path}: exporting needs one tensor that holds a batch of example inputs")
    eager = _Logits(copy.deepcopy(network)).cpu().float().eval()
    example = example_inputs.detach().cpu()
    if example.is_floating_point():
        example = example.float()
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

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return as_output(self.network(inputs)).logits


def _program(eager: nn.Module, example: Tensor) -> ONNXProgram:
    # Two samples at least: with one, the exporter would take the batch size for a constant.
    several = torch.cat([example, example])[: max(2, len(example))]
    program = torch.onnx.export(
        eager,
        (several,),
        input_names=["inputs"],
        output_names=["logits"],
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    if program is None:
        raise torch.onnx.OnnxExporterError("the exporter returned nothing")
    # They hold stack traces, with the paths of this machine.
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    return program


def _compare(
    eager: nn.Module, example: Tensor, file: Path, tolerance: float
) -> tuple[tuple[int, ...], float]:
    """The batch sizes that were tried, and the largest difference of a logit."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    batches = [example, example[:1], torch.cat([example, example[:1]])]
    largest = 0.0
    for batch in batches:
        with torch.inference_mode():
            expected = eager(batch)
        said = torch.from_numpy(session.run(["logits"], {"inputs": batch.numpy()})[0])
        if said.shape != expected.shape:
            raise _UnlikeError(f"expected shape {tuple(expected.shape)}, got {tuple(said.shape)}")
        difference = (said - expected).abs().max().item()
        if not difference <= tolerance * max(1.0, expected.abs().max().item()):
            raise _UnlikeError(f"on {len(batch)} samples a logit is off by {difference:g}")
        largest = max(largest, difference)
    return tuple(len(batch) for batch in batches), largest


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
            yield
    finally:
        registration.removeFilter(about_the_network)
