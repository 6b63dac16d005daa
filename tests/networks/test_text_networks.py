"""What holds for every network that reads texts."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ensemble_kd.export import constructor_of
from ensemble_kd.fingerprint import module_digest
from ensemble_kd.networks import Bert, BiLstm, MobileBert, check_cut, cut
from ensemble_kd.networks.taps import listen
from ensemble_kd.types import Tokens

VOCABULARY, LENGTH, CLASSES = 30, 9, 3
Made = Callable[..., nn.Sequential]


def bert(per_token: bool = False, dropout: float = 0.1) -> Bert:
    return Bert(VOCABULARY, [LENGTH], CLASSES, per_token, 3, 8, 2, 12, dropout)


def mobilebert(per_token: bool = False, dropout: float = 0.1) -> MobileBert:
    return MobileBert(
        VOCABULARY, [LENGTH], CLASSES, per_token, 2, 8, 4, 2, 6, 2, 5, dropout=dropout
    )


def ib_bert(per_token: bool = False, dropout: float = 0.1) -> MobileBert:
    sizes = (2, 8, 16, 2, 20, 1, 5)
    return MobileBert(
        VOCABULARY, [LENGTH], CLASSES, per_token, *sizes, "layer_norm", "gelu", dropout
    )


def bilstm(per_token: bool = False, dropout: float = 0.1) -> BiLstm:
    return BiLstm(VOCABULARY, [LENGTH], CLASSES, per_token, 5, 4, 7, dropout)


NETWORKS: dict[str, Made] = {
    "bert": bert,
    "mobilebert": mobilebert,
    "ib_bert": ib_bert,
    "bilstm": bilstm,
}
every = pytest.mark.parametrize("name", NETWORKS)
both = pytest.mark.parametrize("per_token", [False, True], ids=["text", "tokens"])


def texts(lengths: list[int], seed: int = 0) -> Tokens:
    """Texts of some lengths; what stands at padding is random as well."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), LENGTH)
    ids = torch.randint(VOCABULARY, shape, generator=generator)
    kinds = torch.randint(2, shape, generator=generator)
    mask = torch.arange(LENGTH) < torch.tensor(lengths)[:, None]
    return Tokens(ids, mask, kinds, torch.zeros(len(lengths), 4, dtype=torch.uint8))


def shown(logits: Tensor, inputs: Tokens, per_token: bool) -> Tensor:
    """The logits that mean something."""
    return logits[inputs.mask] if per_token else logits


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@every
@both
def test_texts_become_logits(name: str, per_token: bool) -> None:
    network = NETWORKS[name](per_token, dropout=0.0)
    inputs = texts([9, 4, 1])
    logits = network(inputs)
    assert logits.shape == ((3, LENGTH, CLASSES) if per_token else (3, CLASSES))
    assert logits.dtype == torch.float32
    shown(logits, inputs, per_token).square().sum().backward()
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path
        if not path.endswith("self.key.bias"):  # the softmax does not see it
            assert (parameter.grad != 0).any(), path


@every
@both
def test_what_stands_at_padding_does_not_matter(name: str, per_token: bool) -> None:
    network = NETWORKS[name](per_token).eval()
    inputs = texts([9, 4, 1, 7])
    ids = torch.where(inputs.mask, inputs.ids, (inputs.ids + 1) % VOCABULARY)
    other = inputs._replace(ids=ids, kinds=torch.where(inputs.mask, inputs.kinds, 1))
    assert not torch.equal(other.ids, inputs.ids)
    with torch.no_grad():
        expected = shown(network(inputs), inputs, per_token)
        assert torch.equal(shown(network(other), inputs, per_token), expected)
        changed = inputs._replace(ids=inputs.ids.index_fill(1, torch.tensor([0]), 5))
        assert not torch.allclose(shown(network(changed), inputs, per_token), expected)


@every
@both
def test_more_padding_does_not_matter(name: str, per_token: bool) -> None:
    network = NETWORKS[name](per_token).double().eval()
    inputs = texts([4, 3, 1])  # the first one fills the shorter length
    shorter = Tokens(*(part[:, :4] for part in inputs))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
        found = shown(network(shorter), shorter, per_token)
        expected = shown(network(inputs), inputs, per_token)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@every
@both
def test_a_single_text_can_be_classified(name: str, per_token: bool) -> None:
    network = NETWORKS[name](per_token).eval()
    inputs = texts([9, 4, 1])
    with torch.no_grad():
        alone = [network(Tokens(*(part[row : row + 1] for part in inputs))) for row in range(3)]
        torch.testing.assert_close(torch.cat(alone), network(inputs))


@every
def test_a_text_without_tokens_gives_finite_logits(name: str) -> None:
    with torch.no_grad():
        assert torch.isfinite(NETWORKS[name]().eval()(texts([0, 9]))).all()


@every
@both
def test_it_can_be_cut_behind_its_body(name: str, per_token: bool) -> None:
    network = NETWORKS[name](per_token).eval()
    inputs = texts([9, 4])
    names = [child for child, _ in network.named_children()]
    assert (names[0], names[-1]) == ("body", "classifier")
    for at in names[1:]:
        check_cut(network, at, inputs)
        halves = cut(network, at)
        with torch.no_grad():
            assert torch.equal(halves.head(halves.trunk(inputs)), network(inputs))


@every
@both
def test_it_keeps_its_arguments(name: str, per_token: bool) -> None:
    network = NETWORKS[name](per_token, dropout=0.3)
    node = constructor_of(network)
    assert node is not None
    again = type(network)(**{key: value for key, value in node.items() if key != "_target_"})
    for argument in inspect.signature(type(network)).parameters:
        assert vars(again)[argument] == vars(network)[argument]
    again.load_state_dict(network.state_dict())
    inputs = texts([9, 4])
    assert torch.equal(again.eval()(inputs), network.eval()(inputs))
    shares = {part.p for part in network.modules() if isinstance(part, nn.Dropout)}
    assert shares == {0.3}


@every
def test_a_copy_is_the_same_and_has_the_same_digest(name: str) -> None:
    network = NETWORKS[name]().eval()
    again = copy.deepcopy(network)
    assert torch.equal(again(texts([9, 4])), network(texts([9, 4])))
    assert module_digest(again) == module_digest(network)
    with torch.no_grad():
        next(again.parameters()).add_(1.0)
    assert module_digest(again) != module_digest(network)


@every
def test_the_seed_decides_the_initial_weights(name: str) -> None:
    def state(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return NETWORKS[name]().state_dict()

    one, again, other = state(1), state(1), state(2)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@every
@both
def test_mixed_precision(name: str, per_token: bool) -> None:
    network = NETWORKS[name](per_token, dropout=0.0)
    inputs = texts([9, 4, 1])
    expected = shown(network(inputs), inputs, per_token)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(inputs)
    assert torch.isfinite(logits).all()
    found = shown(logits, inputs, per_token).float()
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@every
@both
@pytest.mark.filterwarnings("ignore:The tensor attributes? .* assigned during export")
def test_it_can_be_exported_with_a_free_batch_size(name: str, per_token: bool) -> None:
    network = NETWORKS[name](per_token).eval()
    free = Tokens(*[{0: torch.export.Dim("batch")}] * 4)  # type: ignore[arg-type]
    exported = torch.export.export(network, (texts([9, 4]),), dynamic_shapes=(free,))
    inputs = texts([3, 9, 1, 0, 5], seed=4)
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(inputs), network(inputs))


def test_the_parts_of_a_transformer_can_be_tapped() -> None:
    inputs = texts([9, 4])
    for network in (bert(), mobilebert(per_token=True), ib_bert()):
        inside = getattr(network, "inside", network.width)
        taps = {
            "body": (2, LENGTH, 8),
            "body.embeddings": (2, LENGTH, 8),
            "body.encoder.layer.1": (2, LENGTH, 8),
            "body.encoder.layer.0.attention.self.query": (2, LENGTH, inside),
            "body.encoder.layer.0.attention.self.key": (2, LENGTH, inside),
            "body.encoder.layer.1.attention.self.value": (2, LENGTH, inside),
            "body.encoder.layer.1.first": (2, 8),
            "body.encoder.layer.1.pooled": (2, 8),
        }
        features = listen(network, inputs, list(taps)).features
        assert {name: tuple(feature.shape) for name, feature in features.items()} == taps


def theirs(network: Bert | MobileBert, kind: str) -> nn.Module:
    """The package's own classifier with the weights of a network."""
    config = copy.deepcopy(network.body.encoder.layer[0].attention.self.config)
    config.num_labels = CLASSES
    made: nn.Module = getattr(transformers, kind)(config)
    prefix = made.base_model_prefix
    names = {
        "body.": f"{prefix}.",
        "pooler.dense.": f"{prefix}.pooler.dense.",
        "classifier.": "classifier.",
    }
    state = {}
    for name, value in network.state_dict().items():
        (start,) = (start for start in names if name.startswith(start))
        state[names[start] + name.removeprefix(start)] = value
    made.load_state_dict(state)
    return made.eval()


@pytest.mark.parametrize("name", ["bert", "mobilebert", "ib_bert"])
@both
def test_it_is_the_network_of_the_package(name: str, per_token: bool) -> None:
    network = NETWORKS[name](per_token).eval()
    task = "TokenClassification" if per_token else "SequenceClassification"
    family = "Bert" if name == "bert" else "MobileBert"
    assert isinstance(network, Bert | MobileBert)
    reference = theirs(network, f"{family}For{task}")
    inputs = texts([9, 4, 1, 7])
    words = reference.base_model.embeddings.word_embeddings(inputs.ids)  # type: ignore
    # The row of a padding token is zero in the package, too, as long as nothing else is loaded.
    embedded = words * inputs.mask[:, :, None]
    with torch.no_grad():
        expected = reference(
            inputs_embeds=embedded, attention_mask=inputs.mask.long(), token_type_ids=inputs.kinds
        ).logits
        found = network(inputs)
    torch.testing.assert_close(
        shown(found, inputs, per_token), shown(expected, inputs, per_token), rtol=1e-5, atol=1e-6
    )


@both
def test_the_lstms_begin_at_the_ends_of_each_text(per_token: bool) -> None:
    network = bilstm(per_token).eval()
    lengths = [9, 4, 1, 7]
    inputs = texts(lengths)
    reference = nn.LSTM(5, 4, batch_first=True, bidirectional=True)
    for way, end in ((network.body.rightward, ""), (network.body.leftward, "_reverse")):
        reference.load_state_dict(
            {f"{name}{end}": value for name, value in way.state_dict().items()}, strict=False
        )
    with torch.no_grad():
        packed = pack_padded_sequence(
            network.body.embedding(inputs.ids), torch.tensor(lengths), True, enforce_sorted=False
        )
        states, (last, _) = reference(packed)
        body = network.body(inputs)
    if per_token:
        expected, _ = pad_packed_sequence(states, batch_first=True, total_length=LENGTH)
        torch.testing.assert_close(body[inputs.mask], expected[inputs.mask])
    else:
        torch.testing.assert_close(body, torch.cat([last[0], last[1]], dim=1))
