from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.export import export_onnx
from ensemble_kd.networks import Bert, Cnn, Mlp
from ensemble_kd.types import Output, Tokens


class Told(nn.Module):
    """Returns features beside its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Output:
        return Output(self.layer(inputs), {"inputs": inputs})


class Growing(nn.Module):
    """Says something else each time it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        said: Tensor = self.layer(inputs) + self.calls
        return said


class Deciding(nn.Module):
    """Its path depends on the values of its inputs."""

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.sum().item() > 0:
            return inputs
        return -inputs


NETWORKS = {
    "cnn": (Cnn([1, 8, 8], 10, [4, 8]), (1, 8, 8)),
    "mlp": (Mlp([6], 3, [5]), (6,)),
    "told": (Told(), (4,)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [1, 3])
def test_it_says_what_the_network_says_for_any_batch_size(
    name: str, size: int, own_folder: Path
) -> None:
    network, shape = NETWORKS[name]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.train()
    report = export_onnx(network, torch.randn(size, *shape), own_folder / "student.onnx")
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert report.max_difference < 1e-4
    session = onnxruntime.InferenceSession(str(report.path))
    inputs = torch.randn(7, *shape)
    (said,) = session.run(["logits"], {"inputs": inputs.numpy()})
    expected = network.eval()(inputs)
    logits = expected.logits if isinstance(expected, Output) else expected
    torch.testing.assert_close(torch.from_numpy(said), logits, atol=1e-4, rtol=1e-4)


def test_the_file_is_one_and_names_no_path_of_this_machine(own_folder: Path) -> None:
    network, shape = NETWORKS["cnn"]
    report = export_onnx(network, torch.randn(2, *shape), own_folder / "student.onnx")
    assert [path.name for path in own_folder.iterdir()] == ["student.onnx"]
    onnx.checker.check_model(onnx.load(report.path))
    content = report.path.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b".py" not in content


@pytest.mark.parametrize(
    ("network", "words"),
    [(Deciding(), "cannot be exported"), (Growing(), "not the same")],
    ids=["deciding", "growing"],
)
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    network: nn.Module, words: str, own_folder: Path
) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        export_onnx(network, torch.randn(2, 4), own_folder / "student.onnx")
    assert "\n" not in str(refusal.value)
    assert list(own_folder.iterdir()) == []


@pytest.mark.parametrize("inputs", [torch.zeros(0, 4), torch.tensor(1.0), [1.0]])
def test_without_a_batch_it_cannot_be_tried(inputs: Tensor, own_folder: Path) -> None:
    with pytest.raises(UserError, match="a batch of example inputs"):
        export_onnx(Told(), inputs, own_folder / "student.onnx")


@pytest.mark.parametrize("per_token", [False, True])
def test_a_network_for_texts_takes_ids_and_masks(per_token: bool, own_folder: Path) -> None:
    network = Bert(50, [12], 3, per_token, layers=1, width=16, heads=2, inner=32).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 50, (5, 12), generator=generator)
    mask = torch.arange(12) < torch.tensor([12, 3, 7, 1, 5])[:, None]
    kinds = torch.arange(12).ge(6).long().expand(5, 12)
    texts = Tokens(ids, mask, kinds, torch.zeros(5, 4, dtype=torch.uint8))

    report = export_onnx(network, texts, own_folder / "student.onnx")

    assert report.batch_sizes == (5, 1, 6)
    session = onnxruntime.InferenceSession(str(report.path))
    taken = {each.name: each.shape for each in session.get_inputs()}
    assert taken == {
        "input_ids": ["batch", 12],
        "attention_mask": ["batch", 12],
        "token_type_ids": ["batch", 12],
    }
    fed = {"input_ids": ids, "attention_mask": mask.long(), "token_type_ids": kinds}
    said = session.run(["logits"], {name: part[:2].numpy() for name, part in fed.items()})[0]
    with torch.no_grad():
        expected = network(texts)[:2]
    assert torch.allclose(torch.from_numpy(said), expected, atol=1e-5)


class Hasty(nn.Module):
    """Knows that it cannot be exported."""

    unexportable = "it is in a hurry"

    def forward(self, inputs: Tensor) -> Tensor:
        raise AssertionError("it must not be tried")


def test_what_knows_that_it_cannot_be_exported_is_not_tried(own_folder: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be exported to ONNX: it is in a hurry$"):
        export_onnx(nn.Sequential(Hasty()), torch.randn(2, 4), own_folder / "student.onnx")
    assert list(own_folder.iterdir()) == []
