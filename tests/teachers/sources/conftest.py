"""Small teachers of every kind, made in a folder of the test, with what their own runtime says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx as onnx_format
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ensemble_kd.artefact import write_artefact
from ensemble_kd.errors import UserError
from ensemble_kd.export import constructor_of, export_onnx
from ensemble_kd.networks import Cnn
from ensemble_kd.teachers.sources import (
    Artefact,
    HuggingFace,
    LightGbm,
    Loaded,
    Module,
    Onnx,
    Preprocess,
    Recorded,
    Sklearn,
    Source,
    Timm,
    Told,
    XgBoost,
)
from ensemble_kd.types import as_output

SHAPE = (3, 8, 8)
NAMES = ("ant", "bee", "cat")
IMAGES = Told(SHAPE, NAMES, mean=(0.25, 0.5, 0.5), std=(0.5, 0.25, 0.5))
TABLE = Told((6,), NAMES, mean=(1.0, 0, 2, 0, 0, -1), std=(0.5, 1, 2, 0.25, 1, 4))


@dataclass(frozen=True)
class Case:
    """A teacher, and what it should say.

    Attributes:
        source: to be loaded.
        told: of the data.
        inputs: of a batch.
        native: (b, c) or (b, l, c), what its own runtime says of them.
        probabilities: whether that are probabilities, and not logits.
    """

    source: Source
    told: Told
    inputs: Any
    native: Tensor
    probabilities: bool = False


def pixels(count: int = 7) -> Tensor:
    """Raw images (count, 3, 8, 8) in [0, 1]."""
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(5))


def served(raw: Tensor, told: Told) -> Tensor:
    """Inputs as the data serves them."""
    shape = (-1, *[1] * (raw.ndim - 2))
    return (raw - torch.tensor(told.mean).view(shape)) / torch.tensor(told.std).view(shape)


def network(seed: int) -> Cnn:
    torch.manual_seed(seed)
    made = Cnn(SHAPE, 3, widths=[4, 6]).eval()
    classifier = made.get_submodule("classifier")
    assert isinstance(classifier, nn.Linear)
    nn.init.normal_(classifier.weight, std=9.0)
    classifier.bias.data -= made(served(pixels(), IMAGES)).mean(dim=0)
    return made


def artefact(folder: Path, seed: int) -> Case:
    teacher = network(seed)
    (folder / "made").mkdir()
    write_artefact(folder / "made", teacher, constructor_of(teacher), {"digest": f"{seed}"})
    inputs = served(pixels(), IMAGES)
    return Case(Artefact(str(folder / "made")), IMAGES, inputs, teacher(inputs))


def module(folder: Path, seed: int) -> Case:
    teacher = network(seed)
    file = folder / "weights.safetensors"
    save_file({f"module.{k}": v for k, v in teacher.state_dict().items()}, file)
    arguments = {"inputs": list(SHAPE), "classes": 3, "widths": [4, 6]}
    source = Module("ensemble_kd.networks.Cnn", str(file), arguments, prefix="module.")
    inputs = served(pixels(), IMAGES)
    return Case(source, IMAGES, inputs, teacher(inputs))


def preprocessed(folder: Path, seed: int) -> Case:
    made = module(folder, seed)
    assert isinstance(made.source, Module)
    source = replace(made.source, preprocess=Preprocess(mean=0.5, std=(0.5, 0.25, 1.0)))
    normal = (pixels() - 0.5) / torch.tensor([0.5, 0.25, 1.0]).view(-1, 1, 1)
    return Case(source, IMAGES, made.inputs, network(seed)(normal))


@cache
def exported(seed: int, size: int | None = None) -> bytes:
    """An ONNX file, with a batch size that is fixed if one is given."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export_onnx(network(seed), torch.zeros(2, *SHAPE), file)
        model = onnx_format.load(file)
    for each in (*model.graph.input, *model.graph.output):
        if size is not None:
            each.type.tensor_type.shape.dim[0].dim_value = size
    return bytes(model.SerializeToString())


def onnx(folder: Path, seed: int, size: int | None = None) -> Case:
    (folder / "model.onnx").write_bytes(exported(seed, size))
    inputs = served(pixels(), IMAGES)
    return Case(Onnx(str(folder / "model.onnx")), IMAGES, inputs, network(seed)(inputs))


def onnx_of_four(folder: Path, seed: int) -> Case:
    return onnx(folder, seed, size=4)


def table(seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(60, 6))
    return rows, (rows[:, 0] + rows[:, 1] > 0).astype(int) + (rows[:, 2] > 0.5)


def rows() -> Tensor:
    """(7, 6) single-precision numbers whose standardisation is exact."""
    raw = np.random.default_rng(9).integers(-64, 64, (7, 6)) / 32
    return torch.from_numpy(raw).float()


def sklearn(folder: Path, seed: int) -> Case:
    import skops.io
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    forest = RandomForestClassifier(4, max_depth=3, random_state=seed)
    estimator = make_pipeline(StandardScaler(), forest).fit(*table(0))
    skops.io.dump(estimator, folder / "forest.skops")
    native = torch.from_numpy(estimator.predict_proba(rows().double().numpy()))
    inputs = served(rows(), TABLE)
    return Case(Sklearn(str(folder / "forest.skops")), TABLE, inputs, native, True)


def lightgbm(folder: Path, seed: int) -> Case:
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(n_estimators=4, min_child_samples=2, verbose=-1, n_jobs=1)
    model.set_params(learning_rate=0.1 + seed / 10).fit(*table(0))
    model.booster_.save_model(folder / "model.txt")
    native = torch.from_numpy(model.booster_.predict(rows().double().numpy()))
    source = LightGbm(str(folder / "model.txt"))
    return Case(source, TABLE, served(rows(), TABLE), native, True)


def lightgbm_of_two(folder: Path, seed: int) -> Case:
    from lightgbm import LGBMClassifier

    features, target = table(seed)
    model = LGBMClassifier(n_estimators=4, min_child_samples=2, verbose=-1, n_jobs=1)
    model.fit(features, target == 1).booster_.save_model(folder / "two.txt")
    native = torch.from_numpy(model.predict_proba(rows().double().numpy()))
    told = replace(TABLE, names=("no", "yes"))
    return Case(LightGbm(str(folder / "two.txt")), told, served(rows(), TABLE), native, True)


def xgboost(folder: Path, seed: int) -> Case:
    from xgboost import XGBClassifier

    model = XGBClassifier(n_estimators=4, max_depth=2, n_jobs=1, learning_rate=0.2 + seed / 10)
    model.fit(*table(0)).save_model(folder / "model.ubj")
    native = torch.from_numpy(model.predict_proba(rows().numpy()))
    source = XgBoost(str(folder / "model.ubj"))
    return Case(source, TABLE, served(rows(), TABLE), native, True)


def xgboost_of_two(folder: Path, seed: int) -> Case:
    from xgboost import XGBClassifier

    features, target = table(0)
    model = XGBClassifier(n_estimators=4, max_depth=2, n_jobs=1, learning_rate=0.2 + seed / 10)
    model.fit(features, target == 1).save_model(folder / "two.json")
    native = torch.from_numpy(model.predict_proba(rows().numpy()))
    told = replace(TABLE, names=("no", "yes"))
    return Case(XgBoost(str(folder / "two.json")), told, served(rows(), TABLE), native, True)


NUMBERS = np.array([10, 3, 7, 0, 100, 42, 5])


def recorded(folder: Path, seed: int) -> Case:
    ids = np.array([f"image-{number}" for number in range(7)])
    said = np.random.default_rng(seed).normal(size=(7, 3)).astype(np.float32)
    np.savez(folder / "said.npz", id=ids[::-1], logits=said[::-1])
    told = replace(IMAGES, identities=lambda: (ids, NUMBERS))
    source = Recorded(str(folder / "said.npz"))
    return Case(source, told, torch.from_numpy(NUMBERS), torch.from_numpy(said))


TIMM = '''
"""A stand-in for the library: one linear network and its configuration."""
from types import SimpleNamespace
from torch import nn
__version__ = "0"
class Net(nn.Module):
    def __init__(self, num_classes, in_chans, size):
        super().__init__()
        self.body = nn.Conv2d(in_chans, 4, size)
        self.fc = nn.Linear(4, num_classes)
        self.default_cfg = {"classifier": "fc", "size": size}
    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)).relu())
def list_models():
    return ["net8", "net16"]
def create_model(name, pretrained, num_classes=1000, in_chans=3, pretrained_cfg=None):
    assert not pretrained
    return Net(num_classes, in_chans, {"net8": 8, "net16": 16}[name])
def resolve_model_data_config(model):
    size = model.default_cfg["size"]
    return {"input_size": (3, size, size), "interpolation": "bicubic", "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.5, 0.5), "crop_pct": 0.8, "crop_mode": "center"}
data = SimpleNamespace(resolve_model_data_config=resolve_model_data_config)
'''


@pytest.fixture
def timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in for timm, importable under its name."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "timm.py").write_text(TIMM)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    import timm as library

    yield library
    sys.modules.pop("timm", None)


def of_timm(folder: Path, seed: int) -> Case:
    import timm as library

    torch.manual_seed(seed)
    teacher = library.create_model("net8", False, num_classes=3).eval()
    torch.save(teacher.state_dict(), folder / "net8.pth")
    resized = nn.functional.interpolate(pixels(), (10, 10), mode="bicubic", antialias=True)
    resized = resized.clamp(0, 1)
    std = torch.tensor([0.25, 0.5, 0.5]).view(-1, 1, 1)
    native = teacher((resized[..., 1:9, 1:9] - 0.5) / std)
    source = Timm("net8", weights=str(folder / "net8.pth"))
    return Case(source, IMAGES, served(pixels(), IMAGES), native)


def balanced(teacher: Any, folder: Path, logits: Tensor) -> Tensor:
    """Have each class said of some samples, by other biases of the classifier."""
    mean = logits.mean(dim=0)
    teacher.classifier.bias.data -= mean
    teacher.save_pretrained(folder)
    return logits - mean


def huggingface_texts(folder: Path, seed: int, kit: Any) -> Case:
    made = kit.tokenizer()
    labels = {"id2label": dict(enumerate(NAMES[::-1])), "label2id": {}}
    teacher = kit.bert("SequenceClassification", seed, folder, **labels)
    wrapped = kit.saved_tokenizer(folder, made)
    padded = {"padding": "max_length", "truncation": True, "max_length": kit.length}
    with torch.no_grad():
        given = wrapped(*map(list, zip(*kit.pairs, strict=True)), **padded, return_tensors="pt")
        native = balanced(teacher, folder, teacher(**given).logits)
    told = Told((kit.length,), NAMES, tokenizer=kit.tokenizer())
    return Case(HuggingFace(str(folder)), told, kit.tokens(kit.tokenizer(), kit.pairs), native)


def huggingface_other_tokens(folder: Path, seed: int, kit: Any) -> Case:
    """A tokenizer other than that of the data, which pads on the left."""
    teacher = kit.bert("SequenceClassification", seed, folder)
    wrapped = kit.saved_tokenizer(folder, kit.tokenizer(kit.words[::-1]), padding_side="left")
    padded = {"padding": "max_length", "truncation": True, "max_length": 9}
    with torch.no_grad():
        given = wrapped(*map(list, zip(*kit.pairs, strict=True)), **padded, return_tensors="pt")
        native = balanced(teacher, folder, teacher(**given).logits)
    told = Told((kit.length,), NAMES, tokenizer=kit.tokenizer())
    return Case(
        HuggingFace(str(folder), length=9), told, kit.tokens(kit.tokenizer(), kit.pairs), native
    )


def huggingface_tokens(folder: Path, seed: int, kit: Any) -> Case:
    teacher = kit.bert("TokenClassification", seed, folder)
    kit.saved_tokenizer(folder, kit.tokenizer())
    inputs = kit.tokens(kit.tokenizer(), kit.texts)
    with torch.no_grad():
        native = teacher(input_ids=inputs.ids, attention_mask=inputs.mask.long()).logits
    told = Told((kit.length,), NAMES, tokenizer=kit.tokenizer(), per_token=True)
    return Case(HuggingFace(str(folder)), told, inputs, native)


def huggingface_images(folder: Path, seed: int, kit: Any) -> Case:
    teacher, processor = kit.vit(seed, folder)
    # As bytes, of which both make the same.
    raw = (pixels() * 255).round() / 255
    given = processor(list((raw * 255).to(torch.uint8).numpy()), return_tensors="pt")
    with torch.no_grad():
        native = teacher(**given).logits
    return Case(HuggingFace(str(folder)), IMAGES, served(raw, IMAGES), native)


MAKERS: dict[str, Callable[..., Case]] = {
    "artefact": artefact,
    "module": module,
    "preprocessed": preprocessed,
    "onnx": onnx,
    "onnx_of_four": onnx_of_four,
    "sklearn": sklearn,
    "lightgbm": lightgbm,
    "lightgbm_of_two": lightgbm_of_two,
    "xgboost": xgboost,
    "xgboost_of_two": xgboost_of_two,
    "recorded": recorded,
    "timm": of_timm,
    "huggingface_texts": huggingface_texts,
    "huggingface_other_tokens": huggingface_other_tokens,
    "huggingface_tokens": huggingface_tokens,
    "huggingface_images": huggingface_images,
}

Make = Callable[..., Case]


@pytest.fixture
def make(timm: Any, kit: Any, tmp_path: Path) -> Make:
    """Makes a teacher in a folder of its own."""

    def made(name: str, seed: int = 0, folder: str = "teacher") -> Case:
        where = tmp_path / folder
        where.mkdir()
        with torch.no_grad():
            tools = (kit,) if name.startswith("huggingface") else ()
            return MAKERS[name](where, seed, *tools)

    return made


@pytest.fixture(params=list(MAKERS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of teacher."""
    return str(request.param)


def ask(loaded: Loaded, inputs: Any) -> Any:
    """What a teacher says of inputs, or of the numbers of samples."""
    from ensemble_kd.teachers.foreign import Numbered

    if isinstance(loaded.network, Numbered):
        return loaded.network.of(inputs)
    return as_output(loaded.network(inputs))


@pytest.fixture(name="ask")
def asking() -> Callable[[Loaded, Any], Any]:
    return ask


@pytest.fixture
def refusal() -> Callable[[Callable[[], object]], str]:
    """The one line with which something is refused."""

    def line(call: Callable[[], object]) -> str:
        with pytest.raises(UserError) as caught:
            call()
        said = str(caught.value)
        assert "\n" not in said
        assert len(said) < 700
        return said

    return line
