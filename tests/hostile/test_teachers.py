"""Files that are given as teachers and data: pickles, and formats that can carry or name code."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ensemble_kd.data import Arrays
from ensemble_kd.state_dicts import read_weights
from ensemble_kd.teachers.sources import (
    Artefact,
    HuggingFace,
    LightGbm,
    Module,
    Onnx,
    Recorded,
    Sklearn,
    Source,
    Timm,
    Told,
    XgBoost,
)

TOLD = Told(
    (4,),
    ("ant", "bee", "cat"),
    mean=0.0,
    std=1.0,
    identities=lambda: (np.arange(3), np.arange(3)),
)


def torch_saved(held: Any, legacy: bool = False) -> bytes:
    written = io.BytesIO()
    torch.save(held, written, _use_new_zipfile_serialization=not legacy)
    return written.getvalue()


def scripted() -> bytes:
    written = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(4, 3), torch.zeros(1, 4)), written)
    return written.getvalue()


def replaced_in_zip(held: Any) -> bytes:
    """A checkpoint of tensors in which the pickle that lists them is another one."""
    source = zipfile.ZipFile(io.BytesIO(torch_saved({"w": torch.zeros(2)})))
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name in source.namelist():
            own = pickle.dumps(held, 2) if name.endswith("data.pkl") else source.read(name)
            archive.writestr(name, own)
    return written.getvalue()


CHECKPOINTS: dict[str, tuple[str, Callable[[Any], bytes]]] = {
    "pickle": ("net.pt", pickle.dumps),
    "pickle_as_bin": ("pytorch_model.bin", pickle.dumps),
    "pickle_without_protocol": ("net.pth", lambda charge: pickle.dumps(charge, 0)),
    "pickle_as_safetensors": ("net.safetensors", pickle.dumps),
    "pickle_by_name": ("net.pkl", pickle.dumps),
    "zip": ("net.pt", torch_saved),
    "legacy": ("net.pt", lambda charge: torch_saved(charge, legacy=True)),
    "among_tensors": ("net.pt", lambda charge: torch_saved({"w": torch.zeros(2), "x": charge})),
    "as_a_name": ("net.ckpt", lambda charge: torch_saved({"state_dict": {"x": [charge]}})),
    "zip_with_another_pickle": ("net.pt", replaced_in_zip),
    "whole_network": ("net.pt", lambda _: torch_saved(nn.Linear(2, 2))),
    "zip_as_safetensors": ("net.safetensors", torch_saved),
    "two_pickles": ("net.pt", lambda charge: torch_saved({"w": 1}) + pickle.dumps(charge)),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_that_holds_objects_is_refused_with_a_hint(
    name: str, own_folder: Path, charge: Any, refused: Callable[..., str]
) -> None:
    file, written = CHECKPOINTS[name]
    (own_folder / file).write_bytes(written(charge))
    said = refused(lambda: read_weights(own_folder / file))
    assert file in said
    if name != "two_pickles":
        assert "nothing is unpickled" in said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file:UserWarning")
def test_an_archive_of_torchscript_is_refused(
    own_folder: Path, refused: Callable[..., str]
) -> None:
    (own_folder / "net.pt").write_bytes(scripted())
    refused(lambda: read_weights(own_folder / "net.pt"))


def npz(**arrays: Any) -> bytes:
    written = io.BytesIO()
    np.savez(written, **arrays)
    return written.getvalue()


def objects(charge: Any) -> Any:
    return np.array([charge, charge, charge], dtype=object)


def npy(charge: Any) -> bytes:
    written = io.BytesIO()
    np.save(written, objects(charge), allow_pickle=True)
    return written.getvalue()


def skops_file(held: Any) -> bytes:
    from skops.io import dumps

    written: bytes = dumps(held)
    return written


def transforming(function: Any) -> Any:
    from sklearn.preprocessing import FunctionTransformer

    return FunctionTransformer(function)


def renamed(written: bytes, old: str, new: str) -> bytes:
    """A skops file whose schema names something else."""
    source, made = zipfile.ZipFile(io.BytesIO(written)), io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name).replace(old.encode(), new.encode()))
    return made.getvalue()


def onnx_beside(where: str) -> bytes:
    """A network whose only weight lies in another file."""
    from onnx import TensorProto, helper

    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=where)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 3])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight]
    )
    written: bytes = helper.make_model(graph).SerializeToString()
    return written


TEACHERS: dict[str, tuple[str, Callable[[Any], bytes], Callable[[str], Source]]] = {
    "recorded_npy": ("said.npy", npy, lambda path: Recorded(path, probabilities=False)),
    "recorded_npz": (
        "said.npz",
        lambda charge: npz(id=objects(charge), logits=np.zeros((3, 3))),
        Recorded,
    ),
    "recorded_names": (
        "said.npz",
        lambda charge: npz(id=np.arange(3), logits=np.zeros((3, 3)), names=objects(charge)),
        Recorded,
    ),
    "recorded_pickle": ("said.npz", pickle.dumps, Recorded),
    "sklearn_pickle": ("trees.skops", pickle.dumps, Sklearn),
    "sklearn_joblib": ("trees.joblib", pickle.dumps, Sklearn),
    "sklearn_object": ("trees.skops", skops_file, Sklearn),
    "sklearn_function": ("trees.skops", lambda _: skops_file(transforming(os.mkdir)), Sklearn),
    "sklearn_trusted_by_a_file": (
        "trees.skops",
        lambda _: skops_file(transforming(os.mkdir)),
        lambda path: Sklearn(path, trusted=["posix.mkdir"]),
    ),
    "sklearn_through_its_library": (
        "trees.skops",
        lambda _: renamed(skops_file(transforming(os.mkdir)), "posix", "sklearn.utils.os"),
        Sklearn,
    ),
    "sklearn_method": (
        "trees.skops",
        lambda charge: skops_file(transforming(Path(charge.canary).mkdir)),
        Sklearn,
    ),
    "lightgbm_pickle": ("trees.txt", pickle.dumps, LightGbm),
    "xgboost_pickle": ("trees.json", pickle.dumps, XgBoost),
    "xgboost_deep": ("trees.json", lambda _: b"[" * 200_000, XgBoost),
    "onnx_pickle": ("net.onnx", pickle.dumps, Onnx),
    "onnx_weights_above": ("net.onnx", lambda _: onnx_beside("../outside.bin"), Onnx),
    "onnx_weights_elsewhere": ("net.onnx", lambda _: onnx_beside("/etc/passwd"), Onnx),
    "onnx_weights_behind_a_link": ("net.onnx", lambda _: onnx_beside("link.bin"), Onnx),
    "module_of_torch": (
        "net.pt",
        pickle.dumps,
        lambda path: Module("torch.load", path, {"f": path, "weights_only": False}),
    ),
    "module_with_a_node": (
        "net.pt",
        pickle.dumps,
        lambda path: Module("torch.nn.Linear", path, {"in_features": {"_target_": "os.mkdir"}}),
    ),
    "module_weights": (
        "net.pt",
        pickle.dumps,
        lambda path: Module("torch.nn.Linear", path, {"in_features": 4, "out_features": 3}),
    ),
    "artefact_is_a_pickle": ("student", pickle.dumps, Artefact),
    "timm_weights": ("net.pth", pickle.dumps, lambda path: Timm("resnet18", path)),
}


@pytest.mark.parametrize("name", TEACHERS)
def test_a_hostile_teacher_is_refused(
    name: str, tmp_path: Path, own_folder: Path, charge: Any, refused: Callable[..., str]
) -> None:
    file, written, source = TEACHERS[name]
    if name.startswith("timm"):
        pytest.importorskip("timm")
    (tmp_path / "outside.bin").write_bytes(bytes(48))
    (own_folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (own_folder / file).write_bytes(written(charge))
    refused(lambda: source(str(own_folder / file)).load(TOLD))


@pytest.mark.parametrize("held", ["pytorch_model.bin", "model.safetensors"])
def test_the_code_beside_a_network_of_transformers_is_not_run(
    held: str, own_folder: Path, canary: Path, charge: Any, refused: Callable[..., str]
) -> None:
    code = f"import os; os.mkdir({str(canary)!r})\n"
    (own_folder / "modeling_own.py").write_text(code)
    named = {
        "AutoConfig": "modeling_own.Own",
        "AutoModelForImageClassification": "modeling_own.Own",
    }
    config = {"model_type": "own", "architectures": ["OwnForImageClassification"]}
    (own_folder / "config.json").write_text(json.dumps({**config, "auto_map": named}))
    (own_folder / held).write_bytes(pickle.dumps(charge))
    refused(lambda: HuggingFace(str(own_folder), task="image-classification").load(TOLD))


@pytest.mark.parametrize(
    "written", [pickle.dumps, npy, lambda charge: npz(x=objects(charge), y=objects(charge))]
)
def test_pickles_among_data_are_refused(
    written: Callable[[Any], bytes], own_folder: Path, charge: Any, refused: Callable[..., str]
) -> None:
    (own_folder / "data.npz").write_bytes(written(charge))
    refused(lambda: Arrays(own_folder / "data.npz").load())
