"""Files in the folder of replicas that are none, or not what they say."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from ensemble_kd.strategies.exchange import NEVER, Received
from ensemble_kd.strategies.shared_folder import SharedFolder


def state(value: float) -> dict[str, Tensor]:
    return {"weight": torch.full((3, 2), float(value)), "count": torch.tensor(int(value))}


def joined(folder: Path, replica: int, patience: float) -> SharedFolder:
    medium = SharedFolder(folder, replica, 2, patience)
    medium.open({"burn_in": 2}, [state(0.0)] * 2, 0)
    return medium


def steps(received: Received) -> dict[int, int]:
    return {copy.replica: copy.step for copy in received.copies}


@pytest.mark.parametrize("patience", [0.0, 0.2])
def test_damaged_and_hostile_files_are_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], patience: float
) -> None:
    """The older copy stays what teaches; each bad file is named in one line, once."""

    class Opening:
        def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
            return os.system, (f"touch {tmp_path}/canary",)

    def put(step: int, data: bytes, digest: str | None = None) -> Path:
        digest = digest or hashlib.sha256(data).hexdigest()[:32]
        path = tmp_path / f"replica-1.step-{step:010d}.{digest}.safetensors"
        path.write_bytes(data)
        return path

    one, other = joined(tmp_path, 0, patience), joined(tmp_path, 1, 0.0)
    other.swap(2, state(1.0), [NEVER, NEVER])
    whole = save(state(5.0))
    bad = [
        put(101, whole[:-3], hashlib.sha256(whole).hexdigest()[:32]),  # cut off
        put(102, whole[:-1] + b"\1", hashlib.sha256(whole).hexdigest()[:32]),  # a bit changed
        put(103, pickle.dumps(Opening())),
        put(104, b""),
        put(105, save({"weight": torch.zeros(2, 3), "count": torch.tensor(0)})),
        put(106, save({"weight": torch.zeros(3, 2)})),
        put(107, save({**state(0.0), "count": torch.tensor(0.0)})),
        put(108, save({**state(1.0), "weight": torch.full((3, 2), torch.nan)})),
        put(109, b"\0" * 100_000),
    ]
    link = tmp_path / f"replica-1.step-{110:010d}.{hashlib.sha256(whole).hexdigest()[:32]}"
    link = link.with_name(f"{link.name}.safetensors")
    (tmp_path / "elsewhere").write_bytes(whole)
    link.symlink_to(tmp_path / "elsewhere")
    pipe = tmp_path / f"replica-1.step-{111:010d}.{'0' * 32}.safetensors"
    os.mkfifo(pipe)
    folder = tmp_path / f"replica-1.step-{112:010d}.{'0' * 32}.safetensors"
    folder.mkdir()
    (tmp_path / f"replica-1.step-{113:010d}.{'0' * 32}.pt").write_bytes(whole)
    (tmp_path / f"replica-1.step-{114:010d}.safetensors").write_bytes(whole)

    assert steps(one.swap(7, state(0.0), [NEVER, NEVER])) == {1: 2}
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    ignored = [line for line in said if " is ignored: " in line]
    assert sorted(line.partition(" is ignored")[0] for line in ignored) == sorted(
        map(str, [*bad, link, pipe, folder])
    )
    assert len(said) - len(ignored) == int(patience > 0)  # that it goes on without
    assert one.swap(12, state(0.0), [NEVER, 2]).copies == []
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "canary").exists()
