from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ensemble_kd.build import build
from ensemble_kd.errors import UserError
from ensemble_kd.objectives import Soft, Term
from ensemble_kd.strategies import Parallel

SOFT = {"_target_": "ensemble_kd.objectives.Soft", "temperature": 2.0}
TERM = {"_target_": "ensemble_kd.objectives.Term", "objective": SOFT, "weight": 0.5}
UNIFORM = {"_target_": "ensemble_kd.weightings.Uniform"}


def test_a_nested_node_becomes_objects() -> None:
    node = {
        "_target_": "ensemble_kd.strategies.Parallel",
        "terms": {"soft": TERM},
        "weighting": UNIFORM,
    }
    strategy = build(node, "strategy")
    assert isinstance(strategy, Parallel)
    term = strategy.lesson.terms["soft"]
    assert isinstance(term, Term)
    assert isinstance(term.objective, Soft)
    assert term.weight == 0.5


def test_each_build_makes_its_own_object() -> None:
    assert build(SOFT, "objective") is not build(SOFT, "objective")


def test_a_partial_is_completed_later() -> None:
    maker = build({"_target_": "torch.optim.SGD", "_partial_": True, "momentum": 0.9}, "optimizer")
    optimizer = maker([nn.Parameter(torch.zeros(1))], lr=0.1)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.9


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.load",
        "torch.hub.load",
        "joblib.load",
        "pandas.read_pickle",
        "hydra.utils.instantiate",
        "ensemble_kd.build.importlib.import_module",
        "ensemble_kd.job.os.system",
        "ensemble_kd.store.shutil.rmtree",
        "ensemble_kd.build.build",
        "ensemble_kd.artefact.load",
        "torch.nn.Module.__class__",
        "torch.nn.functional.relu",
        "torch.nn.modules.module.torch.load",
        "pytorch_lightning.LightningModule.load_from_checkpoint",
        "torchmetrics.utilities.data.sys.exit",
        "pytorch_lightning.demos.mnist_datamodule.MNISTDataModule",
        "pytorch_lightning.cli.LightningCLI",
        "pytorch_lightning.LightningModule",
        "torchmetrics.multimodal.CLIPScore",
        "torch.nn.utils.rnn.PackedSequence",
        "transformers.AutoModel",
        "transformers.Trainer",
        "transformers.pipeline",
        "ensemble_kd.store.Store",
        "ensemble_kd.commands.Parser",
        "ensemble_kd.objectives._private.Soft",
        "ensemble_kd",
        "ensemble_kdx.Soft",
        "..ensemble_kd.Soft",
        "",
        None,
        3,
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_what_is_not_an_allowed_class_is_refused(target: Any, nested: bool, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    hostile: dict[str, Any] = {"_target_": target, "command": f"touch {canary}"}
    node = {**TERM, "objective": {**SOFT, "temperature": [hostile]}} if nested else hostile
    with pytest.raises(UserError, match="_target_") as refusal:
        build(node, "objective", ())
    assert "\n" not in str(refusal.value)
    assert not canary.exists()


def test_libraries_fetch_nothing_for_a_node() -> None:
    """Neither kernels, which are code, nor weights."""
    config = {"_target_": "transformers.BertConfig", "hidden_size": 8, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
    network = {"_target_": "transformers.BertModel", "config": config}
    for change in (
        {"attn_implementation": "stranger/kernel"},
        {"_attn_implementation": "flash_attention_2"},
        {"text_config": {"attn_implementation": "stranger/kernel"}},
        {"use_kernels": True},
        {"auto_map": {"AutoModel": "stranger/code--net.Net"}},
        {"use_pretrained_backbone": True},
    ):
        with pytest.raises(UserError, match="expected nothing by which code or weights are"):
            build({**network, "config": {**config, **change}}, "student")
    assert isinstance(build(network, "student"), nn.Module)


def test_partial_and_recursive_flags_do_not_open_the_list() -> None:
    for flag in ("_partial_", "_recursive_"):
        with pytest.raises(UserError, match=r"os\.system"):
            build({"_target_": "os.system", flag: False, "command": "true"}, "objective")


def test_a_package_of_the_user_can_be_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "class Net:\n    def __init__(self, width: int): ...\n"
    (tmp_path / "my_networks.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    node = {"_target_": "my_networks.Net", "width": 3}
    with pytest.raises(UserError, match="allow="):
        build(node, "student")
    assert type(build(node, "student", ["my_networks"])).__name__ == "Net"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temprature": 2.0}, "objective.temprature: Soft takes no such argument.*'temperature'"),
        ({"temperature": "hot"}, "objective.temperature: expected a number.*got 'hot'"),
        ({"temperature": True}, "objective.temperature: expected a number.*got True"),
        ({"temperature": 0.0}, "objective: temperature must be .*got 0"),
        ({"merge": "median"}, "objective.merge: expected one of .*got 'median'"),
    ],
)
def test_a_wrong_argument_is_named_with_its_key(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build({**SOFT, **change}, "objective")


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(UserError, match=r"objective\.objective: Term needs it"):
        build({"_target_": "ensemble_kd.objectives.Term"}, "objective")


def test_the_wrong_kind_of_object_is_refused() -> None:
    node = {
        "_target_": "ensemble_kd.strategies.Parallel",
        "terms": {"soft": TERM},
        "weighting": SOFT,
    }
    with pytest.raises(UserError, match=r"strategy\.weighting: expected Weighting"):
        build(node, "strategy")


def test_a_nested_mistake_names_its_full_key() -> None:
    cold = {**TERM, "objective": {**SOFT, "temperature": -1.0}}
    node = {
        "_target_": "ensemble_kd.strategies.Parallel",
        "terms": {"soft": cold},
        "weighting": UNIFORM,
    }
    with pytest.raises(UserError, match=r"strategy\.terms\.soft\.objective: temperature"):
        build(node, "strategy")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("ensemble_kd.objectives.Sofft", "has no 'Sofft'.*'Soft'"),
        ("ensemble_kd.objective.Soft", "ensemble_kd has no 'objective'"),
        ("torch.nn.Lineaar", "'Linear'"),
    ],
)
def test_a_misspelt_target_is_answered_with_the_nearest(target: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build({"_target_": target}, "objective")


@pytest.mark.parametrize(
    ("target", "told"), [("torch.nn.Identity", True), ("ensemble_kd.networks.Mlp", False)]
)
def test_only_other_libraries_may_raise_what_they_like(
    target: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, *arguments: Any, **settings: Any) -> None:
        raise KeyError("inside")

    monkeypatch.setattr(f"{target}.__init__", broken)
    with pytest.raises(Exception, match="inside") as failure:
        build({"_target_": target}, "student")
    assert isinstance(failure.value, UserError) == told


def test_interpolations_of_a_stranger_are_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hush")
    with pytest.raises(UserError, match="interpolation") as refusal:
        build({**SOFT, "temperature": "${oc.env:SECRET}"}, "objective")
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize("value", [None, False, 3, "text"])
def test_what_is_no_node_stays_what_it_is(value: Any) -> None:
    assert build(value, "logger") is value


def test_lists_of_nodes_are_built_in_order() -> None:
    made: Sequence[Any] = build([SOFT, UNIFORM], "both")
    assert [type(part).__name__ for part in made] == ["Soft", "Uniform"]
