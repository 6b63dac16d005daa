"""Small texts, tokenizers and networks of transformers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kd.types import SEPARATOR, Tokens

os.environ["HF_HUB_OFFLINE"] = "1"  # before its client is imported: no test asks a hub

LENGTH = 12
WORDS = ("a", "good", "bad", "film", "the", "end", "very", "it", "was")


class Kit:
    """What makes them.

    Attributes:
        length: of the texts in tokens.
        texts: some of them.
        pairs: of texts.
        words: of the vocabulary.
    """

    length = LENGTH
    words = WORDS
    texts = (
        "a good film",
        "very bad",
        "the end it was very good",
        "film",
        "it was a bad end",
        "a a a",
    )
    pairs = tuple(zip(texts, (*texts[1:], texts[0]), strict=True))

    def tokenizer(self, words: Sequence[str] = WORDS) -> Any:
        """Of whole words, with the special tokens of BERT."""
        from tokenizers import Tokenizer, models, pre_tokenizers, processors

        special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
        vocabulary = {word: number for number, word in enumerate((*special, *words))}
        made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
        made.add_special_tokens(list(special))
        return made

    def tokens(self, made: Any, texts: Sequence[Any], length: int = LENGTH) -> Tokens:
        """Texts, or pairs of them, as the data serves them."""
        made.enable_truncation(length)
        made.enable_padding(length=length, pad_id=0, pad_token="[PAD]")
        found = made.encode_batch(list(texts))
        text = [(chr(SEPARATOR).join(t) if isinstance(t, tuple) else t).encode() for t in texts]
        width = max(map(len, text))
        return Tokens(
            torch.tensor([each.ids for each in found]),
            torch.tensor([each.attention_mask for each in found]).bool(),
            torch.tensor([each.type_ids for each in found]),
            torch.tensor([[*each, *[0] * (width - len(each))] for each in text], dtype=torch.uint8),
        )

    def saved_tokenizer(self, folder: Path, made: Any, **settings: Any) -> Any:
        """The same as transformers has it, in a folder."""
        from transformers import PreTrainedTokenizerFast

        wrapped = PreTrainedTokenizerFast(
            tokenizer_object=made,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
            **settings,
        )
        wrapped.save_pretrained(folder)
        return wrapped

    def bert(self, kind: str, seed: int, folder: Path, **settings: Any) -> Any:
        """A network of texts, saved and at rest."""
        import transformers
        from transformers.utils import logging

        logging.disable_progress_bar()
        torch.manual_seed(seed)
        config = transformers.BertConfig(
            vocab_size=32,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=LENGTH + 4,
            num_labels=3,
            initializer_range=0.5,
            **settings,
        )
        teacher = getattr(transformers, f"BertFor{kind}")(config).eval()
        teacher.save_pretrained(folder)
        return teacher

    def vit(self, seed: int, folder: Path) -> Any:
        """A network of images and its processor, saved and at rest."""
        import transformers
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
        from transformers.utils import logging

        logging.disable_progress_bar()
        torch.manual_seed(seed)
        config = transformers.ViTConfig(
            image_size=8,
            patch_size=4,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=24,
            num_labels=3,
            initializer_range=0.5,
        )
        teacher = transformers.ViTForImageClassification(config).eval()
        teacher.save_pretrained(folder)
        processor = ViTImageProcessorPil(size={"height": 8, "width": 8})
        processor.save_pretrained(folder)
        return teacher, processor


@pytest.fixture
def kit() -> Kit:
    """Makes small texts, tokenizers and networks of transformers."""
    return Kit()
