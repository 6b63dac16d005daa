"""Every way that is quick to prepare, against the network itself."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.networks import Mlp
from ensemble_kd.teachers.runtimes import (
    BnFolded,
    ChannelsLast,
    InPlace,
    Plain,
    Runtime,
    Unavailable,
)
from ensemble_kd.teachers.runtimes.direct import Direct
from ensemble_kd.types import Output

Pair = tuple[Runtime, nn.Module]
OF_IMAGES = [ChannelsLast(), BnFolded(channels_last=True)]


def prepared(pair: Pair, inputs: Tensor) -> Direct:
    way, network = pair
    answer = way.prepare(network, inputs)
    assert isinstance(answer, Direct)
    return answer


def test_says_what_the_network_says_for_batches_of_any_size(pair: Pair, inputs: Tensor) -> None:
    way, network = pair
    answer = prepared(pair, inputs)
    for batch in (inputs, inputs[:1], inputs[:4], torch.cat([inputs] * 3)):
        expected = network(batch)
        said = answer(batch)
        if way.exact:
            assert torch.equal(said, expected)
        torch.testing.assert_close(said, expected, rtol=1e-5, atol=1e-5)


def test_leaves_the_network_the_batch_and_the_random_numbers_as_they_were(
    pair: Pair, inputs: Tensor
) -> None:
    _, network = pair
    before = copy.deepcopy(network)
    batch, random = inputs.clone(), torch.get_rng_state()
    answer = prepared(pair, inputs)
    answer(inputs)
    assert torch.equal(inputs, batch)
    assert torch.equal(torch.get_rng_state(), random)
    assert repr(network) == repr(before)
    for (name, now), (known, then) in zip(
        network.state_dict().items(), before.state_dict().items(), strict=True
    ):
        assert name == known
        assert torch.equal(now, then)
        assert now.stride() == then.stride()


def test_can_be_copied_and_pickled(pair: Pair, inputs: Tensor) -> None:
    answer = prepared(pair, inputs)
    expected = answer(inputs)
    assert torch.equal(copy.deepcopy(answer)(inputs), expected)
    assert torch.equal(pickle.loads(pickle.dumps(answer))(inputs), expected)
    answer(inputs)
    copy.deepcopy(pair[1])


def test_logits_may_enter_a_backward_pass(pair: Pair, inputs: Tensor) -> None:
    said = prepared(pair, inputs)(inputs)
    assert said.dtype == torch.float32
    assert not said.requires_grad
    assert not said.is_inference()
    student = torch.ones(5, requires_grad=True)
    (student * said).sum().backward()
    torch.testing.assert_close(student.grad, said.sum(0))


@pytest.mark.parametrize("way", [InPlace(), BnFolded(), *OF_IMAGES], ids=lambda way: way.name)
@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"x": 1}, "are no tensor but a dict"),
        (torch.zeros(0, 2, 8, 8), "are no batch but of shape"),
    ],
)
def test_needs_a_batch_in_one_tensor(
    way: Runtime, given: object, reason: str, cnns: list[nn.Module]
) -> None:
    with pytest.raises(Unavailable, match=reason):
        way.prepare(cnns[0], given)


@pytest.mark.parametrize("way", OF_IMAGES, ids=lambda way: way.name)
def test_needs_a_network_of_images(
    way: Runtime, inputs: Tensor, freeze: Callable[..., nn.Module]
) -> None:
    with pytest.raises(Unavailable, match=r"Mlp has no convolution of images"):
        way.prepare(freeze(Mlp([2, 8, 8], 5, hidden=[16, 12], dropout=0.3)), inputs)


def test_plain_answers_whatever_the_network_takes_and_says() -> None:
    class Tokens(nn.Module):
        def forward(self, inputs: dict[str, Tensor]) -> Output:
            return Output(inputs["ids"].double().unsqueeze(-1))

    said = Plain().prepare(Tokens(), None)({"ids": torch.arange(3)})
    assert said.dtype == torch.float32
    assert said.tolist() == [[0.0], [1.0], [2.0]]


def test_a_network_that_cannot_be_copied_is_left_alone(inputs: Tensor) -> None:
    class Single(nn.Module):
        def __deepcopy__(self, memo: object) -> Single:
            raise RuntimeError("there is only one")

    with pytest.raises(Unavailable, match="Single cannot be copied: there is only one"):
        InPlace().prepare(Single(), inputs)


def test_channels_last_changes_the_layout_of_the_copy_alone(
    cnns: list[nn.Module], inputs: Tensor
) -> None:
    answer = ChannelsLast().prepare(cnns[0], inputs)
    assert isinstance(answer, Direct)
    wide = [w for w in answer.network.parameters() if w.dim() == 4 and w.shape[1] > 1]
    assert wide
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in wide)
    assert all(w.is_contiguous() for w in cnns[0].parameters())
    with pytest.raises(Unavailable, match="no images but of shape"):
        ChannelsLast().prepare(cnns[0], inputs.flatten(1))
