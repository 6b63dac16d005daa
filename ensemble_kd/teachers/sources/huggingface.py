"""A network of transformers, from a folder or from the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import digest_of, one_line, shortened
from ensemble_kd.networks.prepared import Prepared
from ensemble_kd.optional import optional
from ensemble_kd.teachers.sources.hub import files_in, folder_of
from ensemble_kd.teachers.sources.image_processor import own_preprocess
from ensemble_kd.teachers.sources.preprocess import Preprocess, preparing, seen
from ensemble_kd.teachers.sources.reading import reading
from ensemble_kd.teachers.sources.source import Loaded, Source, Told

Task = Literal["image-classification", "text-classification", "token-classification"]

ENDINGS: dict[str, Task] = {
    "ForImageClassification": "image-classification",
    "ForImageClassificationWithTeacher": "image-classification",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
}
"""How the names of architectures end, and what these are for."""

LEFT_OVER = re.compile(r"(^|\.)(pooler\.|position_ids$)")
"""Weights that files keep from pretraining and that the classifiers of the library never use."""

MAKERS: dict[Task, str] = {
    "image-classification": "AutoModelForImageClassification",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
}


@dataclass(frozen=True)
class HuggingFace(Source):
    """What ``model.save_pretrained(folder)`` wrote, with its image processor or tokenizer.

    Weights are read as safetensors only, in float32, and no code is run that lies beside them.
    Images go through the processor's own steps, as tensors. Texts whose tokenizer is that of the
    data are taken as they are; others are read by the teacher's own tokenizer, from the text.

    Args:
        path: a folder, or the id of a repository on the hub.
        revision: there, the commit, 40 hexadecimal digits.
        task: what it is for; None where its architecture says it.
        length: to how many tokens its own tokenizer cuts and pads; None for as many as the data.
        attention: how it is computed: step by step, so that its maps can be looked at (``eager``),
            or at once; None for what the library prefers.
        preprocess: what it makes of the images, in place of its own processor.
    """

    path: str
    revision: str | None = None
    task: Task | None = None
    length: int | None = None
    attention: Literal["eager", "sdpa"] | None = None
    preprocess: Preprocess | None = None

    def __post_init__(self) -> None:
        if self.length is not None and self.length < 1:
            raise ValueError(f"length must be >= 1, got {self.length}")

    def load(self, told: Told) -> Loaded:
        """The network; its classes are those of ``id2label``."""
        transformers = optional("transformers", "text", f"huggingface: {self.path}")
        folder = folder_of(self.path, self.revision, "text")
        files = files_in(folder)
        with quiet(transformers):
            config = _config(transformers, folder)
            task = self.task or _task(config, folder)
            _check_data(task, told, folder)
            network = _network(transformers, folder, config, task, self.attention)
            prepare, settings = self._preparing(transformers, folder, network, task, told)
        settings |= {"task": task, "attention": self.attention}
        settings["version"] = transformers.__version__
        digest = digest_of("huggingface", files, settings)
        return Loaded(Prepared(network, prepare).eval(), digest, names=_names(config, folder))

    def _preparing(
        self, transformers: Any, folder: Path, network: Any, task: Task, told: Told
    ) -> tuple[nn.Module, dict[str, Any]]:
        """What prepares the inputs, and what is to be said of it in the digest."""
        if task == "image-classification":
            preprocess = self.preprocess or own_preprocess(transformers, folder, network.config)
            return preparing(preprocess, told), seen(preprocess, told)
        read = reading(transformers, folder, network, told, self.length)
        return read, {"length": read.length, "as_given": read.as_given}


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Without the library's progress bars and reports; what is wrong is said by errors."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _config(transformers: Any, folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: expected config.json of a network of transformers, found none")
    if (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{folder}: expected a whole network, got an adapter, adapter_config.json: "
            "merge it into its network and save that"
        )
    try:
        return transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as failure:  # the library raises many kinds
        raise UserError(f"{folder / 'config.json'}: {one_line(failure)}") from failure


def _task(config: Any, folder: Path) -> Task:
    found = {
        task
        for name in config.architectures or ()
        for end, task in ENDINGS.items()
        if name.endswith(end)
    }
    if len(found) != 1:
        raise UserError(
            f"{folder}: expected a classifier, got {shortened(config.architectures or ['nothing'])}"
            f"; say task: {', '.join(get_args(Task))} if it is one all the same"
        )
    return found.pop()


def _check_data(task: Task, told: Told, folder: Path) -> None:
    texts = told.tokenizer is not None
    wanted = {
        "image-classification": not texts,
        "text-classification": texts and not told.per_token,
        "token-classification": texts and told.per_token,
    }
    if not wanted[task]:
        kind = (
            "images"
            if not texts
            else "texts with a class for each " + ("token" if told.per_token else "text")
        )
        raise UserError(f"{folder}: expected data for {task}, got {kind}")


def _network(
    transformers: Any, folder: Path, config: Any, task: Task, attention: str | None
) -> nn.Module:
    # A configuration may name code on a hub that computes attention, or other weights; none of it
    # is asked. Without a word the library takes sdpa, or eager where there is none.
    config._attn_implementation = attention
    config.transformers_weights = None
    try:
        network, told = getattr(transformers, MAKERS[task]).from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as failure:  # the library raises many kinds
        raise UserError(f"{folder}: the network cannot be loaded: {one_line(failure)}") from failure
    # The library would go on with random weights in their place.
    missing = {str(key) for key in told["missing_keys"]}
    mismatched = {str(entry[0]) for entry in told["mismatched_keys"]}
    missing -= mismatched
    unexpected = {key for key in map(str, told["unexpected_keys"]) if not LEFT_OVER.search(key)}
    found = {"missing": missing, "unexpected": unexpected, "wrong shapes": mismatched}
    if any(found.values()):
        words = [f"{len(keys)} {what}: {shortened(keys)}" for what, keys in found.items() if keys]
        raise UserError(
            f"{folder}: the weights do not fit {type(network).__name__}: {'; '.join(words)}"
        )
    made: nn.Module = network
    return made


def _names(config: Any, folder: Path) -> tuple[str, ...] | None:
    """Of the classes; None where they are the generic ones."""
    if config.num_labels < 2 or config.problem_type not in (None, "single_label_classification"):
        raise UserError(
            f"{folder}: expected a classifier of two or more classes of which one is right, got "
            f"{config.num_labels} with problem_type {config.problem_type!r}"
        )
    if set(config.id2label) != set(range(config.num_labels)):
        raise UserError(
            f"{folder / 'config.json'}: expected id2label to name the classes 0 to "
            f"{config.num_labels - 1}, got {shortened(config.id2label)}"
        )
    names = tuple(str(config.id2label[number]) for number in range(config.num_labels))
    generic = all(re.fullmatch(r"LABEL_\d+", name) for name in names)
    return None if generic else names
