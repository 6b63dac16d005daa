"""Command lines with something wrong in them: what hypothesis draws for tests and campaigns.

A case changes a configuration that is right, an option of a group with what it needs, in one or two
places: another value for a key, a key less, a key more, an option that is not there, the same
override twice, options that may not go together, or text that is no override at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from odd_values import alike, values, written
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from ensemble_kd.config import compose
from ensemble_kd.groups import options
from ensemble_kd.paths import conf_dir

TOP = "settings"
"""The values of the primary configuration that belong to no group."""

TOGETHER = "together"
"""Options of several groups, each of them right by itself."""

WORDS = "words"
"""Arguments that are drawn as text."""

COMMANDS = "commands"
"""The smaller commands; the first argument is the command's name."""

SMALL = ("teacher.members=[cnn_tiny,cnn_tiny]", "epochs=1", "batch_size=32")
ONE_BATCH = (
    *("+trainer.limit_train_batches=1", "+trainer.limit_val_batches=1", "teacher.epochs=1"),
    *("controls=[]", "evaluation.robustness=null", "report.plots=false", "report.onnx=false"),
)
TEXT = ("student=bert_tiny", "teacher.members=[bert_tiny]", "batch_size=32", "epochs=1")
FEW_TEXTS = ("data.source.limit=60", "data.tokenizer.size=60", "data.length=8")
TEXTS = ("data=sst2", *FEW_TEXTS, *TEXT)
NEEDED: Mapping[str, tuple[str, ...]] = {
    "data=arrays": ("data.source.path=own.npz",),
    "data=cifar100": ("data.source.limit=200",),
    "data=digits_tasks": ("strategy=multi_task",),
    "data=fashion_mnist": ("data.source.limit=200",),
    "data=image_folder": ("data.path=images",),
    "data=masked_sst2": (
        *(f"data.samples.{each.removeprefix('data.')}" for each in FEW_TEXTS),
        *TEXT,
    ),
    "data=own": ("data._target_=ensemble_kd.data.InMemory",),
    "data=sst2": (*FEW_TEXTS, *TEXT),
    "data=table": ("data.source.path=own.csv", "student=mlp_small", "teacher.members=[mlp_small]"),
    "data=text": ("data.source.path=own.csv", "data.source.text=[text]", *FEW_TEXTS[1:], *TEXT),
    "data=wnut17": (*FEW_TEXTS, *TEXT),
    "data=words": ("data.source.path=own.conll", *FEW_TEXTS[1:], *TEXT),
    "objective=mobilebert": ("student=mobilebert", "teacher.members=[ib_bert]"),
    "strategy=self_distillation": (*TEXTS, "student=fastbert", "teacher.members=[]"),
    "teacher=none": ("strategy=mutual", "strategy.taught=false"),
    "weighting=confidence": ("data.labelled=null",),
    "weighting=fixed": ("weighting.weights=[1,2]",),
    "weighting=reinforced": ("data.labelled=null",),
}
"""What an option cannot do without."""

FILES = ("artefact", "huggingface", "lightgbm", "onnx", "recorded", "sklearn", "timm", "xgboost")
"""Options that open a file, which is not there."""


class Case(NamedTuple):
    """A command line.

    Attributes:
        group: what is changed in it.
        arguments: what follows ``python -m ensemble_kd``, or of a smaller command its name and
            what follows that.
    """

    group: str
    arguments: tuple[str, ...]


ODD_FILES = {
    "empty": b"",
    "bracket": b"{",
    "list": b"[]",
    "mapping": b"{}",
    "bytes": b"\xff\xfe\x00",
    "schema": b'{"schema": 99}',
    "two": b'{"schema": 2, "predictors": [1]}',
    "deep": b"[" * 5000,
    "numbers": b'{"schema": 2, "stages": 1, "predictors": {"student": {"val": NaN}}}',
}
"""What stands in the place of the results of a run."""

ARGUMENTS = {
    "report": ("--metric", "--margin", "--against", "accuracy", "student", "nan", "-1"),
    "worth": ("--help", "--zzz"),
    "speeds": ("--speeds", "--allow", "--split", "val", "all", "0.5", "2", "nan", "os"),
    "layers": ("seed=-1", "student=zzz", "student=null", "data.val_share=2", "~seed", "epochs=[]"),
    "search": (
        *("--trials", "0", "-1", "1e9", "x", "--folder", "--config-dir", "epochs=0", "a name"),
        *("objective.temperature=interval(4,1)", "zzz=interval(1,2)", "seed=interval(0,a)"),
        *("student=glob(zzz*)", "epochs=choice()", "seed=range(3,1)", "a=tag(1,2,b)"),
    ),
    "cache": ("ls", "verify", "gc", "--yes", "--root", "--older-than", "nan", "-1", "1d", "fill"),
    "store": ("ls", "verify", "gc", "--yes", "--root", "--zzz"),
}
"""What the smaller commands may be given, right or not."""


@st.composite
def _commands(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from(sorted(ARGUMENTS)))
    places = st.sampled_from((*ODD_FILES, "nowhere", ".", "", "own.csv", "images", "\0", "x" * 300))
    words = st.sampled_from(ARGUMENTS[name])
    given = draw(st.lists(words | words | places | st.text(max_size=6), max_size=3))
    first = [draw(places)] if name in ("report", "worth", "speeds") else []
    # Whatever is right with the rest: teachers are not trained for this.
    last = ["epochs=0"] if name == "cache" and "fill" in given else []
    return Case(COMMANDS, (name, *first, *given, *last))


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """The options of each group of this package."""
    return {group: tuple(found) for group, found in options([conf_dir()]).items()}


def write_files(folder: Path) -> None:
    """The small data sets that some options read from the current folder."""
    rng = np.random.default_rng(0)
    np.savez(folder / "own.npz", x=rng.normal(size=(90, 1, 8, 8)), y=np.arange(90) % 3)
    rows = [f"{number % 7},text {number},{number % 3}" for number in range(90)]
    (folder / "own.csv").write_text("\n".join(["size,text,label", *rows]) + "\n")
    words = [f"word\tO\nname\tB-{'ab'[number % 2]}\n\n" for number in range(90)]
    (folder / "own.conll").write_text("".join(words))
    for number in range(90):
        image = folder / "images" / str(number % 3) / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(image)

    for name, content in ODD_FILES.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "results.json").write_bytes(content)


def base(group: str, option: str) -> tuple[str, ...]:
    """Overrides of a run that is right, in which an option is chosen."""
    if group in ("source", "control", "hydra/launcher") or option in FILES:
        return SMALL
    chosen = f"{group}={option}"
    said = (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8")
    texts = "${data.vocabulary}" in said or "body" in said or "tinybert" in option
    small = TEXTS if texts else SMALL
    return (*small, chosen, *NEEDED.get(chosen, ()))


@cache
def keys(group: str, option: str) -> tuple[tuple[str, Any], ...]:
    """The keys that an option has, and their values."""
    if group in ("source", "control"):
        path = conf_dir() / group / f"{option}.yaml"
        return tuple(_keys("", OmegaConf.load(path)))
    config = compose(base(group, option), with_hydra=True)
    if group in ("experiment", TOP, "sweep"):
        return tuple(_keys("", _without_hydra(config)))
    node = config.get(group)
    return tuple(_keys(group, node)) if isinstance(node, DictConfig) else ()


def _without_hydra(config: DictConfig) -> DictConfig:
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return config


def _keys(start: str, node: Any) -> Iterator[tuple[str, Any]]:
    """All keys of a mapping, inner mappings themselves among them."""
    plain: Any = OmegaConf.to_container(node, resolve=False)
    for key, held in plain.items():
        name = f"{start}.{key}" if start else str(key)
        if isinstance(held, Mapping):
            yield from _keys(name, node[key])
            yield name, None
        else:
            yield name, held


@st.composite
def cases(draw: st.DrawFn, group: str) -> Case:
    """Command lines in which something of a group is changed."""
    if group == COMMANDS:
        return draw(_commands())
    if group == WORDS:
        words = st.text(max_size=12) | st.text("=+~[]{}()',\\\"$:.@/ ab1", max_size=12)
        flags = st.sampled_from(("--cfg", "--cfg=job", "-m", "--multirun", "--info", "--zzz"))
        return Case(group, tuple(draw(st.lists(words | words | flags, min_size=1, max_size=3))))
    if group == TOGETHER:
        several = draw(st.lists(st.sampled_from(sorted(_mixed())), min_size=2, max_size=4))
        chosen = {name: draw(st.sampled_from(groups()[name])) for name in several}
        return Case(group, (*SMALL, *(f"{name}={option}" for name, option in chosen.items())))
    if group == TOP:
        option, start, known = "", tuple(SMALL), _top()
    else:
        option = draw(st.sampled_from(groups()[group]))
        start, known = base(group, option), keys(group, option)
    changes = [draw(_change(group, option, known)) for _ in range(draw(st.sampled_from((1, 1, 2))))]
    return Case(group, (*start, *changes))


def _mixed() -> set[str]:
    return set(groups()) - {"source", "control", "sweep", "hydra/launcher", "experiment", "data"}


@cache
def _top() -> tuple[tuple[str, Any], ...]:
    config = _without_hydra(compose(SMALL, with_hydra=True))
    return tuple((key, value) for key, value in _keys("", config) if not _of_a_group(key))


def _of_a_group(key: str) -> bool:
    return key.partition(".")[0] in groups() and "." in key


@st.composite
def _change(draw: st.DrawFn, group: str, option: str, known: Sequence[tuple[str, Any]]) -> str:
    if group in ("source", "control"):
        return draw(_member(group, option, known))
    kind = draw(st.integers(0, 19))
    if not known or (kind == 0 and group != TOP):
        return f"{group}={written(draw(values()))}"
    # What a constructor takes, mostly: another constructor is refused alike everywhere.
    taken = [each for each in known if not each[0].endswith("_")]
    key, value = draw(st.sampled_from(taken if taken and kind % 4 else known))
    if kind == 1:
        return f"~{key}"
    if kind == 2:
        return f"+{key}.zzz={written(draw(values()))}"
    if kind == 3:
        return f"{key}zzz={written(draw(values()))}"
    return f"{key}={written(draw(alike(value) if kind < 12 else values()))}"


@st.composite
def _member(draw: st.DrawFn, group: str, option: str, known: Sequence[tuple[str, Any]]) -> str:
    """A list of teachers or of controls in which one is changed."""
    place = "teacher.members" if group == "source" else "controls"
    if draw(st.integers(0, 3)) == 0:
        return f"{place}={written([draw(values())])}"
    key, _ = draw(st.sampled_from(known))
    if group == "source":
        first = next(name for name, _ in known if not name.startswith("_"))
        node = {option: draw(st.just("nothing.file") | values())}
        if key != first:
            node[key.partition(".")[0]] = draw(values())
        return f"{place}={written([node])}"
    said = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{option}.yaml"))
    said = {"name": "own", **said} if isinstance(said, dict) else said
    parts = key.split(".")
    inner: Any = said
    for part in parts[:-1]:
        inner = inner[part]
    inner[parts[-1]] = draw(values())
    return f"{place}={written([_readable(said)])}"


def _readable(node: Any) -> Any:
    """Interpolations are written without quotes, which would make no difference to Hydra."""
    if isinstance(node, Mapping):
        return {key: _readable(value) for key, value in node.items()}
    return node
