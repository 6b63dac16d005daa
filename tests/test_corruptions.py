"""Ways in which samples get worse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from ensemble_kd.corruptions import SEVERITIES, Blur, Contrast, Corruption, Noise, TokenDrop
from ensemble_kd.types import SEPARATOR, Tokens

WORDS = [f"w{number}" for number in range(400)]


def images(count: int = 6, channels: int = 3, side: int = 16) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def tokenizer(length: int = 40) -> Tokenizer:
    known = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[SEP]", *WORDS])}
    made = Tokenizer(models.WordLevel(known, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B:1 [SEP]:1", special_tokens=[("[SEP]", 2)]
    )
    made.enable_truncation(length)
    made.enable_padding(length=length)
    return made


def texts(sentences: list[str], reader: Tokenizer) -> Tokens:
    parts = [tuple(text.split(chr(SEPARATOR))) for text in sentences]
    found = reader.encode_batch([both if len(both) > 1 else both[0] for both in parts])
    width = max(len(text.encode()) for text in sentences)
    text = torch.zeros(len(sentences), width, dtype=torch.uint8)
    for row, sentence in zip(text, sentences, strict=True):
        row[: len(sentence.encode())] = torch.tensor(list(sentence.encode()), dtype=torch.uint8)
    return Tokens(
        torch.tensor([each.ids for each in found]),
        torch.tensor([each.attention_mask for each in found]).bool(),
        torch.tensor([each.type_ids for each in found]),
        text,
    )


def said(inputs: Tokens) -> list[str]:
    return [bytes(row).rstrip(b"\0").decode() for row in inputs.text.numpy()]


@pytest.mark.parametrize("shape", [(4000, 5), (500, 2, 6, 6)])
def test_noise_is_a_fifth_of_the_spread_for_each_grade(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    scale = torch.arange(1.0, shape[1] + 1).view(1, -1, *[1] * (len(shape) - 2))
    inputs = scale * torch.randn(shape, generator=generator) + 7
    noise = Noise().fitted(inputs, None)
    for severity in SEVERITIES:
        added = noise(inputs, torch.arange(len(inputs)), severity) - inputs
        for column in range(shape[1]):
            expected = 0.2 * severity * inputs[:, column].std(correction=0)
            assert added[:, column].std() == pytest.approx(float(expected), rel=0.05)
            assert abs(float(added[:, column].mean())) < 0.1 * expected


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_blur_is_a_gaussian_mean_of_the_neighbours(channels: int, severity: int) -> None:
    inputs = images(2, channels, 9).double()
    found = Blur()(inputs, torch.arange(2), severity)
    sigma = severity * 3 / 16
    reach = min(max(1, round(3 * sigma)), 8)
    kernel = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-reach, reach + 1)]
    total = sum(kernel)

    def at(place: int) -> int:
        """A place beyond the edge is that of its mirror image."""
        return -place if place < 0 else 16 - place if place > 8 else place

    for y, x in ((0, 0), (4, 5), (8, 3)):
        expected = sum(
            (a / total) * (b / total) * inputs[:, :, at(y + j - reach), at(x + i - reach)]
            for j, a in enumerate(kernel)
            for i, b in enumerate(kernel)
        )
        torch.testing.assert_close(found[:, :, y, x], expected)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_keeps_the_mean_and_shrinks_the_rest(severity: int) -> None:
    inputs = images().double()
    found = Contrast()(inputs, torch.arange(6), severity)
    torch.testing.assert_close(found.mean((2, 3)), inputs.mean((2, 3)))
    ratio = found.std((2, 3)) / inputs.std((2, 3))
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1 - 0.18 * severity))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_words_are_missing_from_the_text_and_from_its_tokens(severity: int) -> None:
    reader = tokenizer(210)
    sentences = [" ".join(WORDS[:200]), " ".join(WORDS[200:])]
    inputs = texts(sentences, reader)
    found = TokenDrop().fitted(inputs, reader)(inputs, torch.tensor([3, 8]), severity)
    for before, after in zip(sentences, said(found), strict=True):
        left = after.split()
        assert left == [word for word in before.split() if word in left]  # in their order
        assert 1 - len(left) / 200 == pytest.approx(severity / 10, abs=0.12)
    again = texts(said(found), reader)
    assert all(torch.equal(one, other) for one, other in zip(found[:3], again[:3], strict=True))
    assert inputs.text.shape == found.text.shape


def test_a_text_never_loses_all_words_and_both_parts_of_a_pair_lose_some() -> None:
    reader = tokenizer()
    pair = f"{' '.join(WORDS[:14])}{chr(SEPARATOR)}{' '.join(WORDS[20:34])}"
    sentences = [*["w1"] * 50, pair]
    inputs = texts(sentences, reader)
    found = TokenDrop().fitted(inputs, reader)(inputs, torch.arange(51), 5)
    assert said(found)[:50] == ["w1"] * 50
    parts = said(found)[50].split(chr(SEPARATOR))
    assert [0 < len(part.split()) < 14 for part in parts] == [True, True]
    assert found.kinds[50].max() == 1


def corruptions() -> list[tuple[Corruption, Any]]:
    reader = tokenizer()
    words = texts([" ".join(WORDS[k : k + 20]) for k in range(6)], reader)
    return [
        (Noise(), images()),
        (Blur(), images()),
        (Contrast(), images()),
        (TokenDrop().fitted(words, reader), words),
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_sample_is_spoilt_alike_in_any_batch(number: int) -> None:
    corruption, inputs = corruptions()[number]
    index = torch.tensor([5, 3, 11, 2, 7, 90])
    leaves = list(inputs) if isinstance(inputs, Tokens) else [inputs]
    whole = corruption(inputs, index, 4)
    for row in range(6):
        one = [leaf[row : row + 1] for leaf in leaves]
        alone = corruption(Tokens(*one) if isinstance(inputs, Tokens) else one[0], index[[row]], 4)
        parts = (alone, whole) if isinstance(whole, Tensor) else (alone.ids, whole.ids)
        torch.testing.assert_close(parts[0], parts[1][row : row + 1])


@pytest.mark.parametrize("number", range(4))
def test_inputs_stay_as_they_were_and_grades_differ(number: int) -> None:
    corruption, inputs = corruptions()[number]
    first = inputs.ids if isinstance(inputs, Tokens) else inputs
    before = first.clone()
    found = [corruption(inputs, torch.arange(6), severity) for severity in SEVERITIES]
    assert torch.equal(before, first)
    spoilt = [each.ids if isinstance(each, Tokens) else each for each in found]
    assert all(not torch.equal(a, b) for a, b in zip([first, *spoilt], spoilt, strict=False))


def test_each_says_which_inputs_it_suits() -> None:
    table, words = torch.rand(3, 4), texts(["w1 w2"], tokenizer())
    suited = {
        type(corruption).__name__: [corruption.suits(each) for each in (images(), table, words)]
        for corruption, _ in corruptions()
    }
    assert suited == {
        "Noise": [True, True, False],
        "Blur": [True, False, False],
        "Contrast": [True, False, False],
        "TokenDrop": [False, False, True],
    }
    assert not TokenDrop().suits(words)  # without a tokenizer
