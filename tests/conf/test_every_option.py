"""Every file under conf/ is found, composed, planned and trained for a step."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.errors import UserError
from ensemble_kd.groups import options
from ensemble_kd.networks.pretrained import folder_digest
from ensemble_kd.paths import conf_dir
from ensemble_kd.plan import make_plan
from ensemble_kd.store import Store

ABOUT_SWEEPS = ("sweep", "hydra/launcher")
"""They change no single run; test_sweep.py composes each value, test_job.py the launchers."""
OPTIONS = [
    f"{group}={option}"
    for group, names in options([conf_dir()]).items()
    for option in names
    if group not in ABOUT_SWEEPS
]
SOURCES = tuple(f"teacher={name}" for name in options([conf_dir()])["source"])
ELSEWHERE = (
    *("trainer=gpu", "experiment=cifar100", "experiment=sst2", "experiment=wnut17"),
    *("source=", "control=", "student=timm", *SOURCES),
)
"""Options that begin so need a graphics card, or are trained by test_experiments.py,
test_text_experiments.py, test_sources.py, test_timm.py and test_controls_run.py."""
FILES = [path.relative_to(conf_dir()) for path in conf_dir().rglob("*.yaml")]

STEP = (
    "epochs=1",
    "teacher.epochs=1",
    "batch_size=16",
    "+trainer.limit_train_batches=1",
    "+trainer.limit_val_batches=1",
    "paths.data=../files",
    "controls=[]",
)
SMALL = ("teacher.members=[cnn_tiny,cnn_tiny]",)
SMALLER = ("data.source.limit=40", "data.labelled=20")
TEXTS = ("data=sst2", "data.tokenizer.size=60", "data.length=12")
TEXT_NETWORKS = ("student=bert_tiny", "teacher.members=[bert_mini]")
NEEDED = {
    "data=arrays": ("data.source.path=own.npz",),
    "data=digits_tasks": ("strategy=multi_task",),
    "data=fashion_mnist": SMALLER,
    "data=huggingface": (
        *("data.source.path=saved", "data.source.text=[sentence]", "data.length=12"),
        *("data.tokenizer={_target_: ensemble_kd.data.WordLevel}", *TEXT_NETWORKS),
    ),
    "data=image_folder": ("data.path=images",),
    "data=masked_sst2": (
        *("data.samples.length=12", "student=bert_tiny", "teacher.members=[bert_tiny]"),
    ),
    "data=own": ("data._target_=own_data.Data", "allow=[own_data]"),
    "data=sst2": (*TEXTS[1:], *TEXT_NETWORKS),
    "data=table": (
        *("data.source.path=own.csv", "data.source.exclude=[sentence]"),
        *("student=mlp_small", "teacher.members=[mlp_small]"),
    ),
    "data=text": (
        *("data.source.path=own.csv", "data.source.text=[sentence]"),
        *(*TEXTS[1:], *TEXT_NETWORKS),
    ),
    "data=wnut17": (*TEXTS[1:], *TEXT_NETWORKS),
    "data=words": ("data.source.path=own.conll", *TEXTS[1:], *TEXT_NETWORKS),
    "experiment=fashion_500": SMALLER,
    "objective=mobilebert": ("student=mobilebert", "teacher.members=[ib_bert]"),
    "strategy=self_distillation": (*TEXTS, "student=fastbert", "teacher.members=[]"),
    "student=transformers": (
        "student.path=model",
        "data.tokenizer._target_=ensemble_kd.data.Pretrained",
        "~data.tokenizer.size",
        "+data.tokenizer.path=model",
    ),
    "teacher=none": ("strategy=mutual", "strategy.taught=false"),
    "weighting=confidence": ("data.labelled=null",),
    "weighting=fixed": ("weighting.weights=[1,2]",),
    "weighting=reinforced": ("data.labelled=null",),
}
"""What an option cannot do without."""
TASKS = ("data=digits_tasks", "strategy=multi_task")
"""These bring the teachers of their own."""


def reads_texts(option: str) -> bool:
    """Whether an option is made for networks that read texts, as its file says."""
    group, _, name = option.partition("=")
    said = (conf_dir() / group / f"{name}.yaml").read_text()
    return re.search(r"\$\{data\.vocabulary\}|\bbody\b|- tinybert$", said, re.MULTILINE) is not None


@pytest.fixture(autouse=True)
def files(fashion_root: Path, cifar_root: Path, text_root: Path, own_folder: Path) -> None:
    """Small files in the places where the real data sets are looked for."""
    (own_folder.parent / "files").mkdir()
    texts = text_root / "sst2", text_root / "wnut17"
    for root in (fashion_root / "fashion_mnist", cifar_root / "cifar100", *texts):
        root.rename(own_folder.parent / "files" / root.name)
    rng = np.random.default_rng(0)
    np.savez("own.npz", x=rng.normal(size=(90, 1, 8, 8)), y=np.arange(90) % 3)
    for number in range(90):
        path = Path("images", str(number % 3), f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)

    rows = [f"{number % 7},text {number},{number % 3}" for number in range(90)]
    Path("own.csv").write_text("\n".join(["size,sentence,label", *rows]) + "\n")
    words = [f"word\tO\nname\tB-{'ab'[number % 2]}\n\n" for number in range(90)]
    Path("own.conll").write_text("".join(words))


MODULE = """
from ensemble_kd.data import Arrays, InMemory


class Data(InMemory):
    def __init__(self):
        super().__init__(Arrays("own.npz"), batch_size=16)
"""


def write_own(option: str) -> None:
    """What an option needs of a user, beside files that are small."""
    if option == "data=own":
        Path("own_data.py").write_text(MODULE)
    if option == "data=huggingface":
        import datasets

        rows = {"sentence": ["some text", "another"] * 45, "label": [0, 1] * 45}
        datasets.disable_progress_bars()
        datasets.Dataset.from_dict(rows).save_to_disk("saved")


def write_model(folder: Path) -> None:
    """A small pretrained network of the package transformers, with its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForMaskedLM

    tokens = ["[PAD]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz"]
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    BertForMaskedLM(
        BertConfig(vocab_size=len(tokens), num_hidden_layers=1, **sizes)
    ).save_pretrained(folder)
    numbers = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def test_no_file_is_forgotten() -> None:
    grouped = {f"{path.parent}={path.stem}" for path in FILES if len(path.parts) > 1}
    sweeps = {f"{group}={name}" for group in ABOUT_SWEEPS for name in options([conf_dir()])[group]}
    assert grouped == set(OPTIONS) | sweeps
    assert [path.name for path in FILES if len(path.parts) == 1] == ["config.yaml"]


@pytest.mark.filterwarnings("ignore:.*limit_val_batches")
@pytest.mark.parametrize("option", [each for each in OPTIONS if not each.startswith(ELSEWHERE)])
def test_every_option_trains_for_a_step(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(".")
    write_own(option)
    own_teachers = option.startswith("teacher=") or option in TASKS
    small: tuple[str, ...] = () if own_teachers else SMALL
    if reads_texts(option):
        small = (*TEXTS, *TEXT_NETWORKS)
    # The option itself behind what it goes with: a student takes the place of the usual one.
    overrides = [*STEP, *small, option, *NEEDED.get(option, ())]
    if option == "student=transformers":
        write_model(Path("model"))
        overrides.append(f"student.sha256={folder_digest('model')}")
    if option == "trainer=fsdp":  # it is trained in tests/distributed
        with pytest.raises(UserError, match="torchrun"):
            make_plan(compose(overrides))
        return
    plan = make_plan(compose(overrides))
    trainer_only = option == "trainer=ddp"  # its processes are started in test_trainer_and_logger
    if trainer_only:
        return
    products = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()
    assert list(products) == [stage.name for stage in plan.stages]
    for product in products.values():
        for parameter in product.learner.deliverable().parameters():
            assert torch.isfinite(parameter).all()


def test_a_graphics_card_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"trainer: .*gpu") as refusal:
        make_plan(compose(["trainer=gpu"]))
    assert "\n" not in str(refusal.value)
