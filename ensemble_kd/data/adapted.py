"""The user's own LightningDataModule, read as one that yields ``Batch``."""

from __future__ import annotations

import secrets
from functools import cached_property
from typing import Any, NamedTuple

from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor

from ensemble_kd.data.adapted_batches import AdaptedBatches, samples_of
from ensemble_kd.data.opened import Identities
from ensemble_kd.data.orders import Place
from ensemble_kd.data.tokenizing import vocabulary_of
from ensemble_kd.errors import UserError
from ensemble_kd.types import Tokens, labelled

HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class Adapted(LightningDataModule):
    """A datamodule whose batches are pairs, mappings or ``Batch``; see ``as_batch``.

    ``setup`` of the module runs once for each stage, however many trainers use the data: a module
    that splits at random must not train a student on what its teachers were chosen by. Its
    ``teardown`` is not called. ``Batch.index`` is a running number unless batches bring their own:
    with a loader that shuffles, it does not identify a sample.

    Args:
        data: the user's module, with train and validation dataloaders and, for results on a test
            split, a test dataloader.
        labelled_only: training batches hold labelled samples only, and there are as many batches as
            in an ordinary epoch; changes nothing for batches without a mask.
        views: augmentations of each training sample that a strategy asks for; with more than one,
            the module must yield ``Batch`` with ``views``.

    Raises:
        ValueError: ``data`` is not a datamodule or moves batches to the device in its own way.
    """

    def __init__(
        self, data: LightningDataModule, labelled_only: bool = False, views: int = 1
    ) -> None:
        super().__init__()
        if not isinstance(data, LightningDataModule):
            raise ValueError(f"data must be a LightningDataModule, got {type(data).__name__}")
        hooks = [hook for hook in HOOKS if is_overridden(hook, data)]
        if hooks:
            raise ValueError(
                f"data must not override {hooks[0]}, which would see a Batch instead of its own "
                f"format, got {type(data).__name__}; do this work in its dataset"
            )
        self.data = data
        self.labelled_only = labelled_only
        self.views = views
        self._set_up: set[str] = set()

    @property
    def inputs(self) -> tuple[int, ...]:
        """Shape of one sample; of texts as ``Tokens``, their length.

        Raises:
            UserError: the inputs are not one tensor.
        """
        inputs = self._seen.first
        if isinstance(inputs, Tokens):
            inputs = inputs.ids
        if not isinstance(inputs, Tensor):
            raise UserError(
                f"{type(self.data).__name__}: inputs of type {type(inputs).__name__} have no one "
                "shape; give networks that need none"
            )
        return tuple(inputs.shape[1:])

    @property
    def classes(self) -> int:
        """The module's ``classes`` or ``num_classes``, or the largest label and one.

        Raises:
            UserError: a label is not below what the module says.
        """
        seen = self._seen.largest + 1
        for name in ("classes", "num_classes"):
            said = getattr(self.data, name, None)
            count = len(said) if isinstance(said, list | tuple) else said
            if isinstance(count, int):
                if seen > count:
                    raise UserError(
                        f"{type(self.data).__name__}.{name}: expected labels below {count}, "
                        f"got {seen - 1}"
                    )
                return count
        return seen

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes: the module's ``names``, or its list ``classes``, or their numbers."""
        for said in (getattr(self.data, "names", None), getattr(self.data, "classes", None)):
            if isinstance(said, list | tuple) and len(said) == self.classes:
                return tuple(map(str, said))
        return tuple(map(str, range(self.classes)))

    @property
    def tokenizer(self) -> Any:
        """The module's own ``tokenizers.Tokenizer``, or what a tokenizer of transformers holds."""
        said = getattr(self.data, "tokenizer", None)
        return getattr(said, "backend_tokenizer", said)

    @property
    def vocabulary(self) -> int | None:
        """How many rows an embedding of tokens has; None without a tokenizer."""
        return None if self.tokenizer is None else vocabulary_of(self.tokenizer)

    @property
    def per_token(self) -> bool:
        """Whether tokens have classes, and not whole samples."""
        return self._seen.axes > 1

    @property
    def mean(self) -> Any:
        """The module's own ``mean``: what it subtracts from its inputs; None where it has none."""
        return getattr(self.data, "mean", None)

    @property
    def std(self) -> Any:
        """The module's own ``std``: what it divides them by afterwards."""
        return getattr(self.data, "std", None)

    def identities(self) -> Identities:
        """The module's own ids of all samples, and their numbers in ``Batch.index``.

        Raises:
            UserError: it has none.
        """
        said = getattr(self.data, "identities", None)
        if said is None:
            raise UserError(
                f"{type(self.data).__name__} has no identities(); write one that returns the ids "
                "of all samples and their numbers in Batch.index, or use teachers that can be asked"
            )
        found: Identities = said()
        return found

    @cached_property
    def digest(self) -> str:
        """The module's own ``digest``; else a random one, so that nothing is reused by mistake."""
        said = getattr(self.data, "digest", None)
        return said if isinstance(said, str) else secrets.token_hex(32)

    def sizes(self) -> dict[str, int]:
        """Samples that one pass serves: ``train``, ``labelled`` (those of them), ``val``, ``test``.

        ``test`` is left out when the module has no test dataloader.
        """
        seen = self._seen
        sizes = {"train": seen.train, "labelled": seen.labelled, "val": seen.val}
        if is_overridden("test_dataloader", self.data):
            sizes["test"] = sum(len(batch.target) for batch in self.test_dataloader())
        return sizes

    def prepare_data(self) -> None:
        """The module's own, once."""
        if "prepare" not in self._set_up:
            self.data.prepare_data()
            self._set_up.add("prepare")

    def setup(self, stage: str | None = None) -> None:
        """The module's own, once for ``fit`` (which covers ``validate``) and once for ``test``."""
        stage = stage if stage in ("test", "predict") else "fit"
        if stage in self._set_up:
            return
        self.data.trainer = self.trainer
        if self.trainer is None:
            self.prepare_data()
        self.data.setup(stage)
        self._set_up.add(stage)

    def train_dataloader(self) -> AdaptedBatches:
        """The module's training batches."""
        return self._batches("train_dataloader", self.labelled_only, self.views)

    def val_dataloader(self) -> AdaptedBatches:
        """The module's validation batches."""
        return self._batches("val_dataloader")

    def test_dataloader(self) -> AdaptedBatches:
        """The module's test batches.

        Raises:
            UserError: it has none.
        """
        return self._batches("test_dataloader")

    def _batches(self, name: str, labelled_only: bool = False, views: int = 1) -> AdaptedBatches:
        owner = type(self.data).__name__
        if not is_overridden(name, self.data):
            raise UserError(f"{owner} has no {name}(); write one that returns a DataLoader")
        self.setup("test" if name == "test_dataloader" else "fit")
        self.data.trainer = self.trainer
        loader = getattr(self.data, name)()
        if loader is None or isinstance(loader, (list, tuple, dict)):
            raise UserError(
                f"{owner}.{name}() must return one dataloader, got {type(loader).__name__}"
            )
        return AdaptedBatches(loader, self._place, labelled_only, views)

    @cached_property
    def _seen(self) -> _Seen:
        """One pass over training and validation."""
        parts = (self._batches("train_dataloader"), self._batches("val_dataloader"))
        first: Any = None
        largest, axes = -1, 1
        counts = []
        for part in parts:
            total = known = 0
            for batch in part:
                first = batch.inputs if first is None else first
                axes = batch.target.ndim
                mask = labelled(batch)
                if mask.any():
                    largest = max(largest, int(batch.target[mask].max()))
                total += len(mask)
                known += int(samples_of(mask).sum())
            counts.append((total, known))
        (train, known), (val, _) = counts
        if largest < 1 or not train or not val:
            raise UserError(
                f"{type(self.data).__name__} must yield training and validation batches with "
                f"labels of at least 2 classes, got {train} and {val} samples and {largest} as the "
                "largest label"
            )
        return _Seen(first, axes, largest, train, known, val)

    def _place(self) -> Place:
        if self.trainer is None:
            return Place()
        return Place(self.trainer.current_epoch, self.trainer.global_rank, self.trainer.world_size)


class _Seen(NamedTuple):
    """What a pass over the data told."""

    first: Any
    axes: int
    largest: int
    train: int
    labelled: int
    val: int
