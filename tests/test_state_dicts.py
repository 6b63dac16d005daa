"""Reading weights, and filling networks with them."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import is_pickle
from ensemble_kd.state_dicts import fill, read_weights


class Net(nn.Module):
    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.last = nn.Linear(3, 3)
        if tied:
            self.last.weight = self.first.weight


def line(call: Any) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".bin"])
def test_both_formats(ending: str, tmp_path: Path) -> None:
    state = Net().state_dict()
    file = tmp_path / f"w{ending}"
    save_file(state, file) if ending == ".safetensors" else torch.save(state, file)
    found = read_weights(file)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    other = Net()
    fill(other, found, "here")
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())


def test_key_and_prefix(tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in Net().state_dict().items()}
    file = tmp_path / "w.pt"
    torch.save({"model": {"state_dict": {**state, "other": torch.ones(1)}}, "epoch": 1}, file)
    found = read_weights(file, "model.state_dict", "module.")
    assert found.keys() == Net().state_dict().keys()
    assert "is it key: model?" in line(lambda: read_weights(file))
    assert "nothing under key 'weights'; there is epoch, model" in line(
        lambda: read_weights(file, "weights")
    )
    assert "no name begins with prefix 'net.'" in line(
        lambda: read_weights(file, "model.state_dict", "net.")
    )
    held = read_weights(file, "model.state_dict")
    said = line(lambda: fill(Net(), held, "here"))
    assert "is it prefix: 'module.'?" in said


def test_many_names_are_shortened() -> None:
    network = nn.Sequential(*[nn.Linear(2, 2) for _ in range(20)])
    held = {f"extra.{number}": torch.zeros(1) for number in range(9)}
    said = line(lambda: fill(network, {**network.state_dict(), **held}, "here"))
    assert said.endswith("9 unexpected: extra.0, extra.1, extra.2, extra.3, extra.4 and 4 more")
    missing = line(lambda: fill(network, {"0.weight": torch.zeros(3, 2)}, "here"))
    assert "39 missing: 0.bias, 1.bias" in missing
    assert "and 34 more; 1 wrong shapes: 0.weight (3, 2) in place of (2, 2)" in missing


def test_nothing_is_filled_when_something_does_not_fit() -> None:
    network = Net()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    held = {name: torch.zeros_like(value) for name, value in before.items()}
    held["last.weight"] = torch.zeros(2, 2)
    line(lambda: fill(network, held, "here"))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_tied_weights_need_one_of_their_names() -> None:
    held: dict[str, Tensor] = dict(Net(tied=True).state_dict())
    del held["last.weight"]
    network = Net(tied=True)
    fill(network, held, "here")
    assert torch.equal(network.last.weight, held["first.weight"])
    assert "1 missing: last.weight" in line(lambda: fill(Net(), held, "here"))


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (Path(self.file),))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"w": torch.ones(1), "evil": Evil(str(trace))}, tmp_path / "objects.pt")
    assert "nothing is unpickled" in line(lambda: read_weights(tmp_path / "objects.pt"))
    torch.save(Net(), tmp_path / "network.pt")
    assert "save network.state_dict()" in line(lambda: read_weights(tmp_path / "network.pt"))
    (tmp_path / "bare.bin").write_bytes(pickle.dumps(Evil(str(trace))))
    assert "nothing is unpickled" in line(lambda: read_weights(tmp_path / "bare.bin"))
    (tmp_path / "bare.bin").rename(tmp_path / "bare.pkl")
    assert "got a pickle" in line(lambda: read_weights(tmp_path / "bare.pkl"))
    assert not trace.exists()


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_missing_empty_and_truncated(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"w{ending}"
    assert "found no such file" in line(lambda: read_weights(file))
    file.touch()
    assert "got an empty file" in line(lambda: read_weights(file))
    state = Net().state_dict()
    save_file(state, file) if ending == ".safetensors" else torch.save(state, file)
    whole = file.read_bytes()
    for share in (0.1, 0.5, 0.95):
        file.write_bytes(whole[: int(share * len(whole))])
        assert "damaged" in line(lambda: read_weights(file))
    assert "got a folder" in line(lambda: read_weights(tmp_path))


@pytest.mark.parametrize("size", [640, 896, 1152, 1408])
def test_safetensors_may_begin_as_pickles_do(size: int, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(size)
    file.write_bytes(struct.pack("<Q", size) + header + struct.pack("<f", 1.5))
    assert is_pickle(file)
    assert read_weights(file)["w"].tolist() == [1.5]


def test_tensors_as_torch_wrote_them_once(tmp_path: Path) -> None:
    state = Net().state_dict()
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    found = read_weights(tmp_path / "w.pth")
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_layers_that_have_no_shape_yet() -> None:
    network = nn.Sequential(nn.LazyLinear(2))
    said = line(lambda: fill(network, {"0.weight": torch.ones(2, 3)}, "here"))
    assert "here: the weights do not fit Sequential: 0.bias, 0.weight get their shape" in said


def test_something_else_than_a_state_dict(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    assert "expected a state dict, names with tensors, got list" in line(
        lambda: read_weights(tmp_path / "list.pt")
    )
    torch.save({}, tmp_path / "empty.pt")
    assert "got dict" in line(lambda: read_weights(tmp_path / "empty.pt"))
