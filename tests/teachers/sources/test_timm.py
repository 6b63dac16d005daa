"""Networks of timm as teachers: by a stand-in, and by the library where it is installed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ensemble_kd.teachers.sources import Preprocess, Timm, Told
from ensemble_kd.teachers.sources.timm import own_preprocess

Refusal = Callable[[Callable[[], object]], str]
TOLD = Told((3, 8, 8), ("ant", "bee", "cat"))


@pytest.fixture
def published(timm: Any, tmp_path: Path) -> Path:
    """A folder as timm writes it for the hub."""
    torch.manual_seed(0)
    folder = tmp_path / "published"
    folder.mkdir()
    save_file(timm.create_model("net16", False, 3).state_dict(), folder / "model.safetensors")
    said = {
        "architecture": "net16",
        "num_classes": 3,
        "label_names": ["cat", "ant", "bee"],
        "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]},
    }
    (folder / "config.json").write_text(json.dumps(said))
    return folder


def test_a_folder_as_it_is_published(published: Path) -> None:
    loaded = Timm(str(published)).load(TOLD)
    assert loaded.names == ("cat", "ant", "bee")
    assert loaded.network(torch.rand(2, 3, 8, 8)).logits.shape == (2, 3)
    (published / "config.json").write_text(
        (published / "config.json").read_text().replace("label_names", "nothing")
    )
    again = Timm(str(published)).load(TOLD)
    assert again.names is None
    assert again.digest != loaded.digest


def test_preprocessing_is_that_of_the_library(timm: Any) -> None:
    network = timm.create_model("net8", False, 3)
    assert own_preprocess(timm, network) == Preprocess(
        size=10,
        crop=(8, 8),
        interpolation="bicubic",
        channels=3,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.5, 0.5),
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"crop_mode": "squash", "input_size": (3, 8, 12)}, ((10, 15), (8, 12))),
        ({"crop_mode": "squash"}, ((10, 10), (8, 8))),
        ({"input_size": (3, 8, 12)}, "square images"),
        ({"crop_mode": "border"}, "with 'border'"),
        ({"interpolation": "random"}, "got 'random'"),
        ({"input_size": 8}, "say it with preprocess"),
        ({"input_size": (3, 8)}, "say it with preprocess"),
        ({"input_size": (3, "8", None)}, "say it with preprocess"),
        ({"crop_pct": 0}, "say it with preprocess"),
        ({"mean": None}, "say it with preprocess"),
    ],
)
def test_other_configurations(
    changes: dict[str, Any], expected: Any, timm: Any, monkeypatch: Any, refusal: Refusal
) -> None:
    network = timm.create_model("net8", False, 3)
    said = {**timm.data.resolve_model_data_config(network), **changes}
    monkeypatch.setattr(timm.data, "resolve_model_data_config", lambda model: said)
    if isinstance(expected, str):
        assert expected in refusal(lambda: own_preprocess(timm, network))
    else:
        made = own_preprocess(timm, network)
        assert (made.size, made.crop) == expected


def test_arguments_are_in_the_digest(make: Any) -> None:
    case = make("timm")
    digest = case.source.load(case.told).digest
    changes: list[dict[str, Any]] = [{"preprocess": Preprocess()}, {"arguments": {"in_chans": 3}}]
    for change in changes:
        assert replace(case.source, **change).load(case.told).digest != digest
    assert case.source.load(replace(case.told, mean=0.0)).digest != digest


def test_what_is_refused(make: Any, published: Path, refusal: Refusal) -> None:
    case = make("timm")

    def line(source: Timm) -> str:
        return refusal(lambda: source.load(TOLD))

    assert "timm has no network 'net9'; did you mean 'net8'" in line(
        replace(case.source, name="net9")
    )
    assert "1 wrong shapes: body.weight" in line(replace(case.source, name="net16"))
    assert "wrong shapes: fc.bias" in line(replace(case.source, arguments={"num_classes": 5}))
    assert "timm: net8: " in line(replace(case.source, arguments={"depth": 5}))
    assert "no such folder; as the id of a repository on the hub" in line(Timm("hf-hub:timm/net8"))
    assert "got 'main'" in line(Timm("hf-hub:timm/net8", revision="main"))
    said = json.loads((published / "config.json").read_text())
    for key in ("checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg", "features_only"):
        (published / "config.json").write_text(json.dumps({**said, "model_args": {key: "x.pth"}}))
        assert f"timm: net16: arguments must not hold {key}: " in line(Timm(str(published)))
    (published / "config.json").write_text(json.dumps({**said, "label_names": 3}))
    assert "label_names: expected a list, got int" in line(Timm(str(published)))
    (published / "config.json").write_text("{}")
    assert "expected a configuration of timm with architecture" in line(Timm(str(published)))
    (published / "model.safetensors").rename(published / "pytorch_model.bin")
    assert "got pytorch_model.bin; nothing is unpickled" in line(Timm(str(published)))


def test_it_is_not_installed(monkeypatch: Any, refusal: Refusal) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    said = refusal(lambda: Timm("net8", "weights").load(TOLD))
    assert said == "a network of timm needs the package 'timm': pip install ensemble-kd[timm]"


def test_it_does_not_fit_the_other_packages(
    tmp_path: Path, monkeypatch: Any, refusal: Refusal
) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms\\ndoes not')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    said = refusal(lambda: Timm("net8", "weights").load(TOLD))
    assert said == "timm cannot be imported: operator torchvision::nms does not"


def test_the_library_itself(tmp_path: Path) -> None:
    library = pytest.importorskip("timm", reason="timm needs torchvision beside torch")
    torch.manual_seed(0)
    network = library.create_model("resnet10t", pretrained=False, num_classes=3).eval()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    loaded = Timm("resnet10t", str(tmp_path / "w.pt")).load(TOLD)
    raw = torch.rand(2, 3, 8, 8)
    own = Preprocess(size=224, mean=0.5)
    plain = replace(Timm("resnet10t", str(tmp_path / "w.pt")), preprocess=own).load(TOLD)
    resized = torch.nn.functional.interpolate(raw, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(plain.network(raw).logits, network(resized - 0.5))
        assert loaded.network(raw).logits.shape == (2, 3)
