"""A network of the package transformers, with the weights that it was published with."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ensemble_kd.given_files import digest_of, is_commit, one_line
from ensemble_kd.networks.arguments import at_least, text_length
from ensemble_kd.optional import optional
from ensemble_kd.types import Tokens


class Transformers(nn.Module):
    """A classifier of the package transformers, from a local folder or a hub, to be trained on.

    Child: ``body``, the model as the package builds it, such as ``body.bert.encoder.layer.0``.
    What the checkpoint does not hold, usually the classifier, is drawn from the seed. Only
    safetensors are read and no code that comes with a model is run. The data must be tokenized with
    the model's own tokenizer. Computed in float32, attention step by step.

    Where it comes from decides only how it begins: afterwards, ``path``, ``revision`` and
    ``sha256`` are None, and ``architecture`` is the model's configuration.

    Args:
        path: a local folder, or the id of a model on the hub; None for new weights.
        vocabulary: how many tokens the data have.
        inputs: (length,) of a text in tokens.
        classes: number of classes.
        per_token: a class for each token, logits (b, l, c), and not for each text, (b, c).
        revision: of a model on the hub: the commit, 40 hexadecimal digits.
        sha256: of a local folder, as ``folder_digest`` has it: so that other weights under the same
            name are another student.
        architecture: of a network with new weights: its configuration.

    Raises:
        ValueError: an argument is out of range; the model is not there, has no safetensors, or
            does not fit the data.
        UserError: the package transformers is not installed.
    """

    begins_with = ("path", "revision", "sha256", "architecture")

    def __init__(
        self,
        path: str | None,
        vocabulary: int,
        inputs: Sequence[int],
        classes: int,
        per_token: bool = False,
        revision: str | None = None,
        sha256: str | None = None,
        architecture: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        length = text_length(inputs)
        at_least(1, vocabulary=vocabulary)
        at_least(2, classes=classes)
        if (path is None) == (architecture is None):
            raise ValueError(
                "path must be a folder or the id of a model on a hub, or null where there is an "
                f"architecture, got path {path!r} and "
                f"{'no' if architecture is None else 'an'} architecture"
            )
        self.path = None
        self.vocabulary = vocabulary
        self.inputs = tuple(inputs)
        self.classes = classes
        self.per_token = per_token
        self.revision = None
        self.sha256 = None
        library = optional("transformers", "text", "Transformers")
        kind = "AutoModelForTokenClassification" if per_token else _OF_TEXTS
        auto = getattr(library, kind)
        tokens = None
        if path is not None:
            _check_origin(path, revision, sha256)
            with _quiet(library):
                self.body = _published(auto, path, revision, classes)
                tokens = _tokens(library, path, revision)
            self.architecture = json.loads(self.body.config.to_json_string(use_diff=False))
        else:
            config = library.AutoConfig.for_model(**(architecture or {}))
            with _quiet(library):
                self.body = auto.from_config(
                    config, attn_implementation="eager", trust_remote_code=False
                )
            self.architecture = dict(architecture or {})
        _check_sizes(path or "the architecture", self.body, length, vocabulary, tokens)
        named = inspect.signature(self.body.forward).parameters
        of_pairs = getattr(self.body.config, "type_vocab_size", 0) > 1
        self._takes_kinds = of_pairs and "token_type_ids" in named

    def forward(self, inputs: Tokens) -> Tensor:
        """Logits (b, c), or (b, l, c)."""
        padding = getattr(self.body.config, "pad_token_id", None) or 0
        # Some models find out the places of tokens from what is no padding.
        ids = inputs.ids.masked_fill(~inputs.mask, padding)
        kinds = {"token_type_ids": inputs.kinds} if self._takes_kinds else {}
        logits: Tensor = self.body(input_ids=ids, attention_mask=inputs.mask.long(), **kinds).logits
        return logits


_OF_TEXTS = "AutoModelForSequenceClassification"


def folder_digest(folder: str | Path) -> str:
    """sha256 of what decides the model in a folder, its weights and its configuration, in hex."""
    files = [*Path(folder).glob("*.safetensors"), *Path(folder).glob("config.json")]
    return digest_of("transformers", files, {})


def _check_origin(path: str, revision: str | None, sha256: str | None) -> None:
    if Path(path).is_dir():
        if revision is not None:
            raise ValueError(f"revision must be null for the local folder {path}, got {revision}")
        found = folder_digest(path)
        if sha256 != found:
            raise ValueError(f"sha256 must be that of {path}, {found}, got {sha256}")
        return
    if not is_commit(revision):
        raise ValueError(
            f"path {path} is no folder, and as the id of a model on the hub it needs as revision "
            f"the commit, 40 hexadecimal digits, got {revision}"
        )


def _published(auto: Any, path: str, revision: str | None, classes: int) -> Any:
    try:
        model: Any = auto.from_pretrained(
            path,
            revision=revision or "main",
            num_labels=classes,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation="eager",
        )
    except (OSError, ValueError, RuntimeError) as failure:
        reason = one_line(failure, 300)
        if "ignore_mismatched_sizes" in reason:
            reason = f"its classifier is made for another number of classes than {classes}"
        # Without its cause: of a chain, ``build`` tells the user the first one.
        raise ValueError(f"path {path}: the model cannot be loaded: {reason}") from None
    # Where it lay decides nothing, and would tell two that are alike apart.
    for part in (model.config, *model.modules()):
        if hasattr(part, "name_or_path"):
            part.name_or_path = ""
    return model.train()


def _tokens(library: Any, path: str, revision: str | None) -> int | None:
    """How many tokens the model's tokenizer knows; None where it does not say."""
    file = library.utils.cached_file(
        path,
        "tokenizer.json",
        revision=revision or "main",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if file is None:
        return None
    tokenizer = optional("tokenizers", "text", "Transformers").Tokenizer.from_file(str(file))
    return int(tokenizer.get_vocab_size())


def places(network: Any) -> int | None:
    """How many tokens a network of transformers takes; None where nothing in it says it."""
    for name, part in network.named_modules():
        # Models like RoBERTa count places from the padding on, and keep some at the front.
        if name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None:
            return int(part.num_embeddings) - int(part.padding_idx) - 1
    said = getattr(network.config, "max_position_embeddings", None)
    return said if isinstance(said, int) and said > 0 else None


def _check_sizes(path: str, body: Any, length: int, vocabulary: int, tokens: int | None) -> None:
    config = body.config
    known = config.vocab_size if tokens is None else tokens
    if vocabulary > config.vocab_size or (tokens is not None and vocabulary != tokens):
        raise ValueError(
            f"vocabulary must be the {known} tokens of {path}, got {vocabulary}: tokenize the data "
            f"with its tokenizer, data.tokenizer={path}"
        )
    limit = places(body)
    if limit is not None and length > limit:
        raise ValueError(f"inputs must be at most {limit} tokens for {path}, got {length}")


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Without the package's reports about what it loads."""
    logs = library.utils.logging
    verbosity, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(verbosity)
        if bars:
            logs.enable_progress_bar()
