"""ONNX files: what goes into them, what comes out, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from ensemble_kd.teachers.sources import Onnx, Preprocess, Told
from ensemble_kd.teachers.sources.probabilities import FLOOR
from ensemble_kd.types import Tokens

Refusal = Callable[[Callable[[], object]], str]
TOLD = Told((4,), ("a", "b", "c"))
WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def written(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[tuple[str, int, Sequence[Any]]],
    outputs: Sequence[tuple[str, int, Sequence[Any]]],
    external: bool = False,
) -> str:
    """An ONNX file with the constant ``w`` (4, 3)."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(model, path, save_as_external_data=external, location="w.bin", size_threshold=0)
    return str(path)


def linear(path: Path, kind: int = TensorProto.FLOAT, batch: Any = "b", **more: Any) -> str:
    """``logits = x @ w``, computed in single precision."""
    nodes = [
        helper.make_node("Cast", ["x"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["single", "w"], ["logits"]),
    ]
    return written(path, nodes, [("x", kind, [batch, 4])], [("logits", 1, [batch, 3])], **more)


def rows(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_numbers_of_each_size(kind: int, tmp_path: Path) -> None:
    said = Onnx(linear(tmp_path / "m.onnx", kind)).load(TOLD).network(rows()).logits
    held = rows().half().float() if kind == TensorProto.FLOAT16 else rows()
    torch.testing.assert_close(said, held @ torch.from_numpy(WEIGHTS))
    assert said.dtype == torch.float32


@pytest.mark.parametrize("count", [1, 3, 4, 6, 8])
def test_a_fixed_batch_size_is_cut_and_filled_up(count: int, tmp_path: Path) -> None:
    network = Onnx(linear(tmp_path / "m.onnx", batch=3)).load(TOLD).network
    expected = rows(count) @ torch.from_numpy(WEIGHTS)
    torch.testing.assert_close(network(rows(count)).logits, expected)


def test_the_output_is_the_only_one_or_the_one_called_logits(
    tmp_path: Path, refusal: Refusal
) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["logits"]),
        helper.make_node("Neg", ["logits"], ["other"]),
        helper.make_node("ArgMax", ["logits"], ["label"]),
    ]
    outputs = [("label", 7, ["b", 1]), ("other", 1, ["b", 3]), ("logits", 1, ["b", 3])]
    file = written(tmp_path / "m.onnx", nodes, [("x", 1, ["b", 4])], outputs)
    expected = rows() @ torch.from_numpy(WEIGHTS)
    torch.testing.assert_close(Onnx(file).load(TOLD).network(rows()).logits, expected)
    other = Onnx(file, output="other").load(TOLD)
    torch.testing.assert_close(other.network(rows()).logits, -expected)
    assert other.digest != Onnx(file).load(TOLD).digest
    assert "output: expected one of label, other, logits, got 'scores'" in refusal(
        lambda: Onnx(file, output="scores").load(TOLD)
    )
    assert "expected a tensor of floating-point numbers, got 'label'" in refusal(
        lambda: Onnx(file, output="label").load(TOLD)
    )
    nameless = written(tmp_path / "n.onnx", nodes, [("x", 1, ["b", 4])], outputs[:2])
    assert "none of them is called logits" in refusal(lambda: Onnx(nameless).load(TOLD))


def test_probabilities_become_logits(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["p"])]
    file = written(tmp_path / "m.onnx", nodes, [("x", 1, ["b", 3])], [("p", 1, ["b", 3])])
    told = replace(TOLD, inputs=(3,))
    given = torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]])
    said = Onnx(file, probabilities=True).load(told).network(given).logits
    torch.testing.assert_close(said, given.clamp(min=FLOOR).log())
    assert torch.isfinite(said).all()
    plain = Onnx(file).load(told)
    assert torch.equal(plain.network(given).logits, given)
    assert plain.digest != Onnx(file, probabilities=True).load(told).digest


def test_texts_go_in_by_name(tmp_path: Path, refusal: Refusal) -> None:
    names = {"attention_mask": 7, "input_ids": 6, "token_type_ids": 9}
    nodes = [
        *(helper.make_node("Cast", [name], [f"{name}_"], to=1) for name in names),
        helper.make_node("Sum", ["input_ids_", "attention_mask_", "token_type_ids_"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["logits"]),
    ]
    inputs = [(name, kind, ["b", 4]) for name, kind in names.items()]
    file = written(tmp_path / "m.onnx", nodes, inputs, [("logits", 1, ["b", 3])])
    told = replace(TOLD, tokenizer=object())
    ids, kinds = torch.tensor([[5, 6, 7, 0], [1, 0, 0, 0]]), torch.tensor([[0, 1, 1, 0], [0] * 4])
    tokens = Tokens(ids, ids > 0, kinds, torch.zeros(2, 1, dtype=torch.uint8))
    said = Onnx(file).load(told).network(tokens).logits
    summed = (ids + (ids > 0) + kinds).float()
    torch.testing.assert_close(said, summed @ torch.from_numpy(WEIGHTS))
    assert "input 'attention_mask': expected samples of shape (4), got (5,)" in refusal(
        lambda: Onnx(file).load(replace(told, inputs=(5,)))
    )
    assert "expected one input, the samples, got 3" in refusal(lambda: Onnx(file).load(TOLD))
    floating = linear(tmp_path / "f.onnx")
    assert "expected the inputs input_ids, attention_mask, token_type_ids for texts, got 'x'" in (
        refusal(lambda: Onnx(floating).load(told))
    )


def test_a_tokenizer_beside_the_file_must_be_that_of_the_data(
    make: Any, tmp_path: Path, refusal: Refusal
) -> None:
    case = make("huggingface_other_tokens")
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["ids"], to=1),
        helper.make_node("MatMul", ["ids", "w"], ["logits"]),
    ]
    inputs = [("input_ids", 7, ["b", 4])]
    file = written(tmp_path / "m.onnx", nodes, inputs, [("logits", 1, ["b", 3])])
    told = replace(case.told, inputs=(4,))
    Onnx(file).load(told)
    told.tokenizer.save(str(tmp_path / "tokenizer.json"))
    Onnx(file).load(told)
    shutil.copy(Path(case.source.path, "tokenizer.json"), tmp_path)
    assert "the tokenizer beside it is not that of the data" in refusal(
        lambda: Onnx(file).load(told)
    )


def test_preprocessing_comes_first(make: Any) -> None:
    case = make("onnx")
    preprocess = Preprocess(mean=0.5, std=(0.5, 0.25, 1.0))
    loaded = replace(case.source, preprocess=preprocess).load(case.told)
    expected = make("preprocessed", folder="same").native
    torch.testing.assert_close(loaded.network(case.inputs).logits, expected, rtol=1e-4, atol=1e-4)
    assert loaded.digest != case.source.load(case.told).digest
    sized = replace(case.source, preprocess=Preprocess(size=(9, 9)))
    from ensemble_kd.errors import UserError

    with pytest.raises(UserError, match=r"expected samples of shape \(3, 8, 8\), got \(3, 9, 9\)"):
        sized.load(case.told)


def test_tensors_beside_the_file_count(tmp_path: Path, refusal: Refusal) -> None:
    file = linear(tmp_path / "m.onnx", external=True)
    source = Onnx(file)
    first = source.load(TOLD)
    torch.testing.assert_close(first.network(rows()).logits, rows() @ torch.from_numpy(WEIGHTS))
    content = (tmp_path / "w.bin").read_bytes()
    (tmp_path / "w.bin").write_bytes(b"\0" + content[1:])
    assert source.load(TOLD).digest != first.digest
    (tmp_path / "w.bin").unlink()
    assert "w.bin: expected tensors of m.onnx, found no such file" in refusal(
        lambda: source.load(TOLD)
    )


def with_branches(path: Path, location: str = "inner.bin") -> str:
    """``x @ w`` with the weights in a branch, and outside the file."""
    constant = numpy_helper.from_array(WEIGHTS, "inner")
    set_external_data(constant, location)
    constant.ClearField("raw_data")
    matmul = helper.make_node("MatMul", ["x", "inner"], ["y"])
    value = helper.make_tensor_value_info("y", 1, ["b", 3])
    then = helper.make_graph([matmul], "then", [], [value], [constant])
    nothing = helper.make_node("MatMul", ["x", "w"], ["y"])
    other = helper.make_graph([nothing], "other", [], [value])
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    nodes = [
        helper.make_node("Constant", [], ["condition"], value=yes),
        helper.make_node("If", ["condition"], ["logits"], then_branch=then, else_branch=other),
    ]
    return written(path, nodes, [("x", 1, ["b", 4])], [("logits", 1, ["b", 3])])


def test_tensors_of_branches_lie_beside_the_file_too(tmp_path: Path, refusal: Refusal) -> None:
    source = Onnx(with_branches(tmp_path / "m.onnx"))
    assert "inner.bin: expected tensors of m.onnx, found no such file" in refusal(
        lambda: source.load(TOLD)
    )
    # As raw numbers may begin, and pickles do.
    (tmp_path / "inner.bin").write_bytes(b"\x80\x04" + (WEIGHTS * 2).tobytes()[2:])
    first = source.load(TOLD)
    expected = rows() @ torch.from_numpy(WEIGHTS * 2)
    torch.testing.assert_close(first.network(rows()).logits, expected, rtol=1e-3, atol=1e-3)
    (tmp_path / "inner.bin").write_bytes(WEIGHTS.tobytes())
    assert source.load(TOLD).digest != first.digest
    for place in ("../inner.bin", "/inner.bin"):
        file = with_branches(tmp_path / "m.onnx", place)
        assert f"expected tensors in the folder of the model, got {place}" in refusal(
            lambda file=file: Onnx(file).load(TOLD)  # type: ignore[misc]
        )


def test_a_network_that_fails_when_it_is_asked(tmp_path: Path, refusal: Refusal) -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [3, 4])
    nodes = [
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("Reshape", ["x", "shape"], ["three"]),
        helper.make_node("MatMul", ["three", "w"], ["logits"]),
    ]
    file = written(tmp_path / "m.onnx", nodes, [("x", 1, ["b", 4])], [("logits", 1, ["b", 3])])
    network = Onnx(file).load(TOLD).network
    assert "m.onnx: onnxruntime cannot run it: " in refusal(lambda: network(rows(5)))


def test_what_is_refused(tmp_path: Path, refusal: Refusal) -> None:
    file = Path(linear(tmp_path / "m.onnx"))

    def line(path: Path = file, told: Told = TOLD, **arguments: Any) -> str:
        return refusal(lambda: Onnx(str(path), **arguments).load(told))

    assert "input 'x': expected samples of shape (4), got (5,)" in line(
        told=replace(TOLD, inputs=(5,))
    )
    assert "got (1, 4)" in line(told=replace(TOLD, inputs=(1, 4)))
    whole = Path(linear(tmp_path / "w.onnx", TensorProto.INT64))
    assert "input 'x': expected floating-point numbers, got tensor(int64)" in line(whole)
    assert "providers: expected some of" in line(providers=["NoSuchProvider"])
    assert "found no such file" in line(tmp_path / "absent.onnx")
    content = file.read_bytes()
    for broken in (content[: len(content) // 2], b"nothing of the kind", b"\x80\x04K\x01."):
        file.write_bytes(broken)
        assert "expected an ONNX file" in line()
    file.write_bytes(b"")
    assert "got an empty file" in line()


def test_threads_and_providers_reach_the_session(tmp_path: Path, monkeypatch: Any) -> None:
    seen = []
    open_session = onnxruntime.InferenceSession

    def watched(path: str, options: Any, providers: Sequence[str]) -> Any:
        seen.append((options.intra_op_num_threads, list(providers)))
        return open_session(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    file = linear(tmp_path / "m.onnx")
    Onnx(file, threads=3).load(TOLD)
    Onnx(file).load(TOLD)
    assert seen == [
        (3, ["CPUExecutionProvider"]),
        (torch.get_num_threads(), ["CPUExecutionProvider"]),
    ]
