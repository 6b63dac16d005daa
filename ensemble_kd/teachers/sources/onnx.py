"""A network in an ONNX file, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import digest_of, offered, one_line, shortened
from ensemble_kd.teachers.foreign import Foreign
from ensemble_kd.teachers.sources.onnx_tensors import files_beside
from ensemble_kd.teachers.sources.preprocess import Preprocess, preparing, seen
from ensemble_kd.teachers.sources.probabilities import logits_of
from ensemble_kd.teachers.sources.source import Loaded, Source, Told
from ensemble_kd.teachers.sources.tokenizers import settings_in, settings_of
from ensemble_kd.types import Output, Tokens

FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
WHOLE = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}
TEXTS = ("input_ids", "attention_mask", "token_type_ids")
"""Names of the inputs of networks of texts, as transformers exports them."""

LOGITS = "logits"

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Onnx(Source):
    """A classifier of samples that are one tensor, or of texts by the numbers of their tokens.

    Texts go in by the tokens of the data; a ``tokenizer.json`` beside the file must be the same.

    A batch size that is fixed in the file is kept: batches are cut and filled up with zeros.

    Args:
        path: the file; tensors that it keeps beside itself are found there.
        output: name of the logits, (b, c), or (b, l, c) for texts whose tokens have classes; None
            for the only output, or the one that is called ``logits``.
        probabilities: the output are probabilities; a zero among them becomes the smallest that has
            a logarithm, see ``sources.probabilities.FLOOR``.
        threads: of onnxruntime; None for as many as PyTorch uses.
        providers: where onnxruntime computes, by preference.
        preprocess: what it makes of the images; None for one that sees what the student sees.
    """

    path: str
    output: str | None = None
    probabilities: bool = False
    threads: int | None = None
    providers: Sequence[str] = ("CPUExecutionProvider",)
    preprocess: Preprocess | None = None

    def load(self, told: Told) -> Loaded:
        """The network, its inputs held against the samples of the data."""
        import onnxruntime

        file = offered(self.path, "an ONNX file")
        prepare = None if self.preprocess is None else preparing(self.preprocess, told)
        files = [file, *files_beside(file)]
        session = Session(file, self.providers, self.threads)
        output = _output(session, self.output, file)
        feeds = _feeds(session, told, prepare, file)
        network = OnnxNetwork(session, output, feeds, self.probabilities, prepare)
        settings = {
            "output": output,
            "probabilities": self.probabilities,
            "providers": list(self.providers),
            "version": onnxruntime.__version__,
            **seen(self.preprocess, told),
        }
        return Loaded(network.eval(), digest_of("onnx", files, settings))


class Session:
    """An open ONNX file that can be pickled: it is opened again where it comes to.

    Args:
        file: where it lies.
        providers: where onnxruntime computes, by preference.
        threads: of onnxruntime; None for as many as PyTorch uses.

    Raises:
        UserError: onnxruntime refuses it.
    """

    def __init__(self, file: Path, providers: Sequence[str], threads: int | None) -> None:
        self.file = file.absolute()
        self.providers = tuple(providers)
        self.threads = threads
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "running"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def said(self, output: str, given: dict[str, Array]) -> Array:
        """An output for some inputs, by their names.

        Raises:
            UserError: onnxruntime fails.
        """
        try:
            found: Array = self.running.run([output], given)[0]
        except Exception as failure:  # onnxruntime's errors have no common class
            raise UserError(
                f"{self.file}: onnxruntime cannot run it: {one_line(failure)}"
            ) from failure
        return found

    def _open(self) -> None:
        import onnxruntime

        known = onnxruntime.get_available_providers()
        absent = [name for name in self.providers if name not in known]
        if absent:
            raise UserError(f"providers: expected some of {', '.join(known)}, got {absent[0]!r}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = self.threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        # Threads that wait by spinning would take the cores on which the student is trained.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.running = onnxruntime.InferenceSession(
                str(self.file), options, providers=list(self.providers)
            )
        except Exception as failure:  # onnxruntime's errors have no common class
            raise UserError(
                f"{self.file}: expected an ONNX file, onnxruntime refuses it: {one_line(failure)}"
            ) from failure


@dataclass(frozen=True)
class Feed:
    """An input of a network.

    Attributes:
        name: in the file.
        part: of ``Tokens`` that goes there: ``ids``, ``mask`` or ``kinds``; None for the sample.
        dtype: that it wants.
    """

    name: str
    part: str | None
    dtype: Any


class OnnxNetwork(Foreign):
    """Logits of a network in onnxruntime.

    Args:
        session: the open file.
        output: name of the logits.
        feeds: its inputs.
        probabilities: the output are probabilities.
        prepare: makes of a batch of images what the network takes; None for the batch itself.
    """

    def __init__(
        self,
        session: Session,
        output: str,
        feeds: Sequence[Feed],
        probabilities: bool,
        prepare: nn.Module | None,
    ) -> None:
        super().__init__()
        self.session = session
        self.output = output
        self.feeds = tuple(feeds)
        self.probabilities = probabilities
        self.prepare = prepare
        size = session.running.get_inputs()[0].shape[0]
        self.fixed = size if isinstance(size, int) else None

    def forward(self, inputs: Any) -> Output:
        """Logits (*, c) float32 of a batch, on the device of its inputs."""
        device = (inputs.ids if isinstance(inputs, Tokens) else inputs).device
        with torch.no_grad():
            given = {feed.name: self._array(inputs, feed) for feed in self.feeds}
        said = self._said(given)
        logits = (
            logits_of(said) if self.probabilities else torch.from_numpy(said.astype(np.float32))
        )
        return Output(logits.to(device))

    def _array(self, inputs: Any, feed: Feed) -> Array:
        value = inputs if feed.part is None else getattr(inputs, feed.part)
        value = value if self.prepare is None else self.prepare(value)
        found: Array = value.detach().cpu().contiguous().numpy().astype(feed.dtype, copy=False)
        return found

    def _said(self, given: dict[str, Array]) -> Array:
        count = len(next(iter(given.values())))
        size = self.fixed or count
        parts = []
        for start in range(0, count, size):
            piece = {name: value[start : start + size] for name, value in given.items()}
            filled = {name: _filled_up(value, size) for name, value in piece.items()}
            parts.append(self.session.said(self.output, filled)[: count - start])
        return np.concatenate(parts)


def _filled_up(array: Array, size: int) -> Array:
    if len(array) == size:
        return array
    return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])


def _output(session: Session, asked: str | None, file: Path) -> str:
    outputs = {each.name: each.type for each in session.running.get_outputs()}
    name = asked or (next(iter(outputs)) if len(outputs) == 1 else LOGITS)
    if name not in outputs:
        raise UserError(
            f"{file}: output: expected one of {', '.join(outputs)}, got {asked!r}"
            + ("" if asked else ", and none of them is called logits")
        )
    if outputs[name] not in FLOATS:
        raise UserError(
            f"{file}: output: expected a tensor of floating-point numbers, got {name!r}, which is "
            f"{outputs[name]}"
        )
    return name


def _feeds(session: Session, told: Told, prepare: nn.Module | None, file: Path) -> tuple[Feed, ...]:
    """What goes into each input.

    Raises:
        UserError: types or shapes do not fit the samples of the data.
    """
    inputs = session.running.get_inputs()
    if told.tokenizer is not None:
        return _of_texts(inputs, told, file)
    if len(inputs) != 1:
        names = shortened(each.name for each in inputs)
        raise UserError(f"{file}: expected one input, the samples, got {len(inputs)}: {names}")
    (only,) = inputs
    if only.type not in FLOATS:
        raise UserError(
            f"{file}: input {only.name!r}: expected floating-point numbers, got {only.type}"
        )
    sample = torch.zeros(1, *told.inputs)
    shape = tuple((sample if prepare is None else prepare(sample)).shape[1:])
    _check_shape(only, shape, file)
    return (Feed(only.name, None, FLOATS[only.type]),)


def _of_texts(inputs: Sequence[Any], told: Told, file: Path) -> tuple[Feed, ...]:
    own = settings_in(file.parent)
    if own is not None and own != settings_of(told.tokenizer):
        raise UserError(
            f"{file}: the tokenizer beside it is not that of the data: use it for the data, too, "
            f"with data.tokenizer: {{_target_: ensemble_kd.data.Pretrained, path: {file.parent}}}"
        )
    feeds = []
    parts = dict(zip(TEXTS, ("ids", "mask", "kinds"), strict=True))
    for each in inputs:
        if each.name not in parts:
            raise UserError(
                f"{file}: expected the inputs {', '.join(TEXTS)} for texts, got {each.name!r}"
            )
        if each.type not in WHOLE:
            raise UserError(f"{file}: input {each.name!r}: expected whole numbers, got {each.type}")
        _check_shape(each, tuple(told.inputs), file)
        feeds.append(Feed(each.name, parts[each.name], WHOLE[each.type]))
    return tuple(feeds)


def _check_shape(given: Any, shape: tuple[int, ...], file: Path) -> None:
    wanted = tuple(given.shape[1:])
    fits = len(wanted) == len(shape) and all(
        own == size for own, size in zip(wanted, shape, strict=True) if isinstance(own, int)
    )
    if not fits:
        raise UserError(
            f"{file}: input {given.name!r}: expected samples of shape "
            f"({', '.join(map(str, wanted))}), got {shape}"
        )
