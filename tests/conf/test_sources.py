"""Every option of teacher that is a source, and every source as a member, teaches for a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_model
from torch import nn

from ensemble_kd.artefact import write_artefact
from ensemble_kd.build import locate
from ensemble_kd.config import compose
from ensemble_kd.data import Digits, InMemory
from ensemble_kd.engine import Engine
from ensemble_kd.errors import UserError
from ensemble_kd.export import constructor_of, export_onnx
from ensemble_kd.groups import options
from ensemble_kd.networks import Mlp
from ensemble_kd.paths import conf_dir
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.store import Store
from ensemble_kd.teachers.sources import Source

STEP = (
    *("epochs=1", "batch_size=16", "controls=[]", "logger=none"),
    *("+trainer.limit_train_batches=1", "+trainer.limit_val_batches=0"),
)
DATA = InMemory(Digits())
SHAPE = [1, 8, 8]


def digits() -> tuple[Any, Any, Any]:
    """All samples before they are standardised, their labels, and their ids."""
    parts = Digits().load()
    raw = parts.train.inputs.reshape(-1, 64).astype(np.float64)
    return raw, parts.train.labels, np.arange(len(raw))


def network() -> nn.Module:
    torch.manual_seed(0)
    return Mlp(SHAPE, 10, hidden=[8]).eval()


def artefact() -> str:
    Path("made").mkdir()
    write_artefact(Path("made"), network(), constructor_of(network()), {"digest": "0"})
    return "path=made"


def module() -> str:
    save_model(network(), "w.safetensors")
    arguments = "{inputs: [1, 8, 8], classes: 10, hidden: [8]}"
    return f"ensemble_kd.networks.Mlp, weights: w.safetensors, arguments: {arguments}"


def onnx() -> str:
    export_onnx(network(), torch.zeros(2, *SHAPE), "m.onnx")
    return "path=m.onnx"


def sklearn() -> str:
    import skops.io
    from sklearn.naive_bayes import GaussianNB

    rows, labels, _ = digits()
    skops.io.dump(GaussianNB(var_smoothing=0.1).fit(rows, labels), "m.skops")
    return "path=m.skops"


def lightgbm() -> str:
    from lightgbm import LGBMClassifier

    rows, labels, _ = digits()
    model = LGBMClassifier(n_estimators=2, num_leaves=4, verbose=-1, n_jobs=1)
    model.fit(rows, labels).booster_.save_model("m.txt")
    return "path=m.txt"


def xgboost() -> str:
    from xgboost import XGBClassifier

    rows, labels, _ = digits()
    XGBClassifier(n_estimators=2, max_depth=2, n_jobs=1).fit(rows, labels).save_model("m.json")
    return "path=m.json"


def recorded() -> str:
    ids, _ = DATA.identities()
    _, labels, _ = digits()
    np.savez("p.npz", id=ids, logits=np.eye(10)[labels] * 3)
    return "path=p.npz"


def huggingface() -> str:
    import transformers
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
    from transformers.utils import logging

    logging.disable_progress_bar()
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, num_hidden_layers=1, num_labels=10, **sizes
    )
    transformers.ViTForImageClassification(config).save_pretrained("vit")
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained("vit")
    return "path=vit"


MAKERS: dict[str, Callable[[], str]] = {
    "artefact": artefact,
    "huggingface": huggingface,
    "lightgbm": lightgbm,
    "module": module,
    "onnx": onnx,
    "recorded": recorded,
    "sklearn": sklearn,
    "xgboost": xgboost,
}
GROUPS = options([conf_dir()])
KNOWING = ("sklearn", "lightgbm", "xgboost", "recorded")
"""These have seen the labels and pass the gate."""


def trained(*overrides: str) -> Plan:
    plan = make_plan(compose([*overrides, *STEP]))
    products = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()
    weights = products["student"].deliverable().parameters()
    assert all(torch.isfinite(weight).all() for weight in weights)
    return plan


def test_every_source_is_tried() -> None:
    assert set(GROUPS["source"]) == {*MAKERS, "timm"}  # of which its own test has a stand-in


@pytest.mark.parametrize("name", GROUPS["source"])
def test_the_first_argument_of_a_source_is_what_it_is(name: str) -> None:
    node: Any = OmegaConf.load(conf_dir() / "source" / f"{name}.yaml")
    arguments = [str(key) for key in node]
    kind = locate(node["_target_"], name)
    assert isinstance(kind, type)
    assert issubclass(kind, Source)
    assert arguments[0] == "_target_"
    assert arguments[1:] == list(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    assert OmegaConf.is_missing(node, arguments[1])


@pytest.mark.parametrize("name", [name for name in MAKERS if name in GROUPS["teacher"]])
def test_as_the_only_teacher(name: str) -> None:
    gate = () if name in KNOWING else ("teacher.gate=false",)
    plan = trained(f"teacher={name}", f"teacher.{MAKERS[name]()}", *gate)
    assert list(plan.given) == ["teacher/0"]


def test_as_members_beside_one_that_is_trained() -> None:
    told = module()
    members = f"[cnn_tiny, {{module: {told}}}, {{recorded: {recorded().removeprefix('path=')}}}]"
    plan = trained(f"teacher.members={members}", "teacher.gate=false")
    assert plan.teachers == ("teacher/0", "teacher/1", "teacher/2")
    assert list(plan.given) == ["teacher/1", "teacher/2"]


def test_with_classes_in_another_order() -> None:
    ids, _ = DATA.identities()
    _, labels, _ = digits()
    np.savez("p.npz", id=ids, logits=np.eye(10)[9 - labels] * 3)
    order = "['9','8','7','6','5','4','3','2','1','0']"
    trained(f"teacher.members=[{{recorded: p.npz, classes: {order}}}]")


def test_the_number_of_classes_is_wrong() -> None:
    ids, _ = DATA.identities()
    np.savez("p.npz", id=ids, logits=np.zeros((len(ids), 7)))
    with pytest.raises(UserError, match=r"expected .*10.*got .*7") as refusal:
        trained("teacher=recorded", "teacher.path=p.npz")
    assert "\n" not in str(refusal.value)


@pytest.fixture
def texts() -> tuple[str, ...]:
    """Texts of two classes and a network that reads them, with its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ("good", "bad", "film", "very")
    rows = [f"{' '.join(words[(n >> k) % 4] for k in range(0, 6, 2))},{n % 2}" for n in range(120)]
    Path("own.csv").write_text("\n".join(["text,label", *rows]))
    numbers = {token: n for n, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *words))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]")
    wrapped.save_pretrained("bert")
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=8, num_hidden_layers=1, max_position_embeddings=16, **sizes)
    BertForSequenceClassification(config).save_pretrained("bert")
    return (
        *("data=text", "data.source.path=own.csv", "data.source.text=[text]", "data.length=8"),
        *("student=bert_tiny", "teacher=huggingface", "teacher.path=bert", "teacher.gate=false"),
    )


@pytest.mark.parametrize("same", [True, False])
def test_a_network_of_texts(same: bool, texts: tuple[str, ...]) -> None:
    own = "{_target_: ensemble_kd.data.Pretrained, path: bert}"
    learned = "{_target_: ensemble_kd.data.WordLevel, size: 16}"
    plan = trained(*texts, "~data.tokenizer", f"+data.tokenizer={own if same else learned}")
    teacher: Any = plan.given["teacher/0"].network
    assert teacher.prepare.as_given is same


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("teacher=onnx",), r"path: Missing mandatory value|path"),
        (("teacher=onnx", "teacher.path=absent.onnx"), "teacher/0: absent.onnx: expected an ONNX"),
        (("teacher=sklearn", "teacher.path=m.joblib"), "teacher/0: m.joblib: .*got a pickle"),
        (("teacher.members=[{onnx: a, sklearn: b}]",), "one of the sources"),
        (("teacher.members=[{onxx: a}]",), "one of the sources artefact, .*got {'onxx': 'a'}"),
        (("teacher.members=[{onnx: a, thread: 1}]",), "takes no such argument"),
        (("teacher.members=[{huggingface: a, length: 0}]",), "length must be >= 1"),
        (("teacher=huggingface", "teacher.path=some/one"), "some/one: no such folder; .*revision"),
    ],
)
def test_one_line_for_each_mistake(overrides: tuple[str, ...], said: str) -> None:
    Path("m.joblib").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=said) as refusal:
        trained(*overrides)
    assert "\n" not in str(refusal.value)
