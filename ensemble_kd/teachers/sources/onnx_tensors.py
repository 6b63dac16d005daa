"""The files in which the tensors of an ONNX model lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import offered, shortened


def files_beside(file: Path) -> list[Path]:
    """The files in which tensors of a model lie, wherever in it these are.

    Raises:
        UserError: one is missing, or lies outside the model's folder.
    """
    import onnx

    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception as failure:  # whatever protobuf raises
        raise UserError(
            f"{file}: expected an ONNX file, got one that is truncated or something else"
        ) from failure
    named = {
        entry.value
        for tensor in _tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    outside = [name for name in named if ".." in Path(name).parts or Path(name).is_absolute()]
    if outside:
        raise UserError(
            f"{file}: expected tensors in the folder of the model, got {shortened(outside)}"
        )
    what = f"tensors of {file.name}"
    return [offered(file.parent / name, what, any_bytes=True) for name in sorted(named)]


def _tensors(message: Any) -> Iterator[Any]:
    """The tensors anywhere in a message: weights, constants, in branches, loops and functions."""
    if message.DESCRIPTOR.full_name == "onnx.TensorProto":
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)
