"""What is compared by ``text.py``: methods for texts, in families of one student and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

CONTROL = "no teacher"

Settings = Mapping[str, Sequence[str]]


class Family(NamedTuple):
    """What is compared with each other.

    Attributes:
        title: of the table.
        said: what the reader must know.
        settings: overrides of each setting, by name; the first one's control is the reference.
        plain: the setting that is plain distillation.
        also: further predictors of the first setting that are reported, by name.
        score: what is measured.
    """

    title: str
    said: Sequence[str]
    settings: Settings
    plain: str
    also: Mapping[str, str]
    score: Literal["accuracy", "span_f1"] = "accuracy"


BEGUN = "initial=begun:"
"""Begins an override that names one of ``PRETRAINED``, from whose student this one starts."""
ALONE = ("objective=label", "strategy.taught=false", "teacher.members=[]")
"""A student without teachers."""
PRETRAINED: Settings = {
    "language model": ("experiment=sst2_distilbert", "initial=null", *ALONE),
    "distilbert": ("experiment=sst2_distilbert",),
}
"""Students that model the language of the same sentences, without labels, before their task."""
FIRST = "initial={teacher: 0, layers: [0, 1]}"
LSTM = ("student=bilstm", *(f"student.{size}=64" for size in ("embedding", "width", "hidden")))

FAMILIES = {
    "bert": Family(
        "A tiny BERT",
        (
            "student `bert_tiny` (2 blocks, 64 wide), teacher `bert_mini` (4 blocks), 600 of 2,000",
            "sentences of SST-2 labelled, 5 epochs, sentences cut after 32 tokens",
        ),
        {
            "kd": ("experiment=sst2",),
            "kd, three teachers": (
                "experiment=sst2",
                "teacher.members=[bert_mini,bert_mini,bert_mini]",
            ),
            "kd, first blocks of the teacher": ("experiment=sst2", FIRST),
            "pkd_skip": ("experiment=sst2_pkd_skip",),
            "pkd_last": ("experiment=sst2_pkd_last",),
            "tinybert": ("experiment=sst2_tinybert",),
            "simplified_tinybert": ("experiment=sst2_simplified_tinybert",),
            "minilm": ("experiment=sst2_minilm",),
            "language model, no teacher": ("experiment=sst2", f"{BEGUN}language model", *ALONE),
            "language model, kd": ("experiment=sst2", f"{BEGUN}language model"),
            "distilbert, kd": ("experiment=sst2", f"{BEGUN}distilbert"),
        },
        "kd",
        {CONTROL: "control/no_teacher", "the teacher": "teacher/0"},
    ),
    "lstm": Family(
        "An LSTM",
        ("student `bilstm`, 64 wide; teacher and sentences as above",),
        {
            "kd": ("experiment=sst2", *LSTM),
            # As many steps as with four made-up sentences for each.
            "tang, no made-up sentences": (
                *("experiment=sst2_tang", "data.synthesise=null"),
                *("epochs=9", "teacher.epochs=5"),
            ),
            "tang": ("experiment=sst2_tang",),
        },
        "kd",
        {CONTROL: "control/no_teacher", "the teacher": "teacher/0"},
    ),
    "fastbert": Family(
        "FastBERT",
        (
            "student `fastbert` (4 blocks, 64 wide), no teacher: 5 epochs and 3 for the earlier",
            "classifiers, the control 8; sentences as above; all blocks are used",
        ),
        {"self_distillation": ("experiment=sst2_fastbert",)},
        "self_distillation",
        {CONTROL: "control/no_teacher"},
    ),
    "mobilebert": Family(
        "MobileBERT",
        (
            "student `mobilebert` (4 thin blocks, 64 wide), teacher like `ib_bert`, 8 epochs;",
            "sentences as above",
        ),
        {
            "kd": ("experiment=sst2_mobilebert", "strategy=parallel", "objective=kd"),
            "mobilebert": ("experiment=sst2_mobilebert",),
        },
        "kd",
        {CONTROL: "control/no_teacher", "the teacher": "teacher/0"},
    ),
    "names": Family(
        "Names in messages",
        (
            "student `bilstm`, 64 wide, teacher 100 wide, 3,394 messages of WNUT 2017, 6 epochs;",
            "F1 of whole names. Figures of code ef9935159ce7 are of messages cut after 32 tokens,",
            "where 931 of the 1,079 names lie",
        ),
        {
            "tsai": ("experiment=wnut17_tsai",),
        },
        "tsai",
        {CONTROL: "control/no_teacher", "the teacher": "teacher/0"},
        "span_f1",
    ),
}

ELSEWHERE = {
    "sst2_prepared": "it makes a teacher for other runs",
    "sst2_tokenizers": "it needs such teachers",
}
"""Experiments that are not measured, and why."""
