"""Outputs of teachers, kept on disk."""

from ensemble_kd.cache.formats import Float16, Float32, Format, format_named
from ensemble_kd.cache.manifest import DamagedError, Manifest
from ensemble_kd.cache.places import Places
from ensemble_kd.cache.record import Record, verify
from ensemble_kd.cache.shares import Shares
from ensemble_kd.cache.shelf import Shelf
from ensemble_kd.cache.sparse import Sampled, TopK
from ensemble_kd.cache.writer import Numbers, Writer

__all__ = [
    "DamagedError",
    "Float16",
    "Float32",
    "Format",
    "Manifest",
    "Numbers",
    "Places",
    "Record",
    "Sampled",
    "Shares",
    "Shelf",
    "TopK",
    "Writer",
    "format_named",
    "verify",
]
