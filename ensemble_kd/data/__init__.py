"""Data that yields ``Batch``.

Whatever is made for Lightning is loaded when it is first used: the processes that make batches, and
whoever only needs objectives, do without Lightning, which takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ensemble_kd.data.arrays import Arrays
from ensemble_kd.data.as_batch import as_batch
from ensemble_kd.data.augment import (
    Augmentation,
    Chain,
    Crop,
    Flip,
    Noise,
    ResizedCrop,
    Shift,
)
from ensemble_kd.data.batches import Batches, Table
from ensemble_kd.data.cifar100 import CIFAR100
from ensemble_kd.data.conll import Conll
from ensemble_kd.data.digits import Digits
from ensemble_kd.data.fashion_mnist import FashionMNIST
from ensemble_kd.data.folders import Folders
from ensemble_kd.data.hugging_face import HuggingFace
from ensemble_kd.data.munge import Munge
from ensemble_kd.data.recurring import Recurring
from ensemble_kd.data.source import Parts, Samples, Source
from ensemble_kd.data.synthesis import Synthesis
from ensemble_kd.data.tabular import Tabular
from ensemble_kd.data.tang_augmentation import TangAugmentation
from ensemble_kd.data.text_table import TextTable
from ensemble_kd.data.texts import Texts
from ensemble_kd.data.token_augment import MaskTokens, ReplaceTokens
from ensemble_kd.data.tokenizing import Pretrained, Tokenizing, WordLevel, WordPiece
from ensemble_kd.data.written import Written, written

if TYPE_CHECKING:
    from ensemble_kd.data.adapted import Adapted
    from ensemble_kd.data.image_folder import ImageFolder
    from ensemble_kd.data.in_memory import InMemory
    from ensemble_kd.data.masked_language import MaskedLanguage
    from ensemble_kd.data.relabelled import Relabelled, seen_by
    from ensemble_kd.data.tasks import Tasks

__all__ = [
    "CIFAR100",
    "Adapted",
    "Arrays",
    "Augmentation",
    "Batches",
    "Chain",
    "Conll",
    "Crop",
    "Digits",
    "FashionMNIST",
    "Flip",
    "Folders",
    "HuggingFace",
    "ImageFolder",
    "InMemory",
    "MaskTokens",
    "MaskedLanguage",
    "Munge",
    "Noise",
    "Parts",
    "Pretrained",
    "Recurring",
    "Relabelled",
    "ReplaceTokens",
    "ResizedCrop",
    "Samples",
    "Shift",
    "Source",
    "Synthesis",
    "Table",
    "Tabular",
    "TangAugmentation",
    "Tasks",
    "TextTable",
    "Texts",
    "Tokenizing",
    "WordLevel",
    "WordPiece",
    "Written",
    "as_batch",
    "seen_by",
    "written",
]

_HOMES = {
    "Adapted": "adapted",
    "ImageFolder": "image_folder",
    "InMemory": "in_memory",
    "MaskedLanguage": "masked_language",
    "Relabelled": "relabelled",
    "Tasks": "tasks",
    "seen_by": "relabelled",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # the next use does not come here any more
    return value
