"""Data that yields ``Batch``."""

from ensemble_kd.data.adapted import Adapted
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
from ensemble_kd.data.digits import Digits
from ensemble_kd.data.fashion_mnist import FashionMNIST
from ensemble_kd.data.folders import Folders
from ensemble_kd.data.image_folder import ImageFolder
from ensemble_kd.data.in_memory import InMemory
from ensemble_kd.data.munge import Munge
from ensemble_kd.data.recurring import Recurring
from ensemble_kd.data.relabelled import Relabelled, seen_by
from ensemble_kd.data.source import Parts, Samples, Source
from ensemble_kd.data.tasks import Tasks

__all__ = [
    "CIFAR100",
    "Adapted",
    "Arrays",
    "Augmentation",
    "Batches",
    "Chain",
    "Crop",
    "Digits",
    "FashionMNIST",
    "Flip",
    "Folders",
    "ImageFolder",
    "InMemory",
    "Munge",
    "Noise",
    "Parts",
    "Recurring",
    "Relabelled",
    "ResizedCrop",
    "Samples",
    "Shift",
    "Source",
    "Table",
    "Tasks",
    "as_batch",
    "seen_by",
]
