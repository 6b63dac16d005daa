"""Replicas as the processes of one group."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ensemble_kd.errors import UserError
from ensemble_kd.strategies.rank_exchange import Ranks, flattened, unflattened

PROCESS = """
import json, os, sys
from pathlib import Path
import torch
from torch import distributed
from ensemble_kd.errors import UserError
from ensemble_kd.strategies.rank_exchange import Ranks

folder = Path(sys.argv[1])
other = os.fork()  # only now: the imports take longer than all the rest
rank = 0 if other else 1
os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="-", MASTER_PORT="0")
distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)

def state(replica, value):
    weight = torch.full((2 + replica, 3), float(value)).t()  # not of one piece
    return {"ok": torch.tensor(value % 2 == 0), "weight": weight, "count": torch.tensor(value)}

medium, said = Ranks(2), []
assert medium.own() == rank
medium.open({"seed": 0}, [state(0, 0), state(1, 0)], 0)
# The second was taken up again four exchanges behind the first.
for step in range(10, 30, 5) if rank == 0 else range(10, 50, 5):
    received = medium.swap(step, state(rank, 100 * rank + step), [-1, -1])
    (copy,) = received.copies
    assert copy.replica == 1 - rank
    assert copy.state["weight"].shape == (3, 2 + copy.replica)
    assert int(copy.state["count"]) == 100 * copy.replica + copy.step
    assert bool(copy.state["ok"]) == (copy.step % 2 == 0)
    said.append([copy.step, received.sent, received.got])
received = medium.close(60, state(rank, 100 * rank + 60))
said.append([received.copies[0].step, received.sent, received.got])
try:
    medium.open({"seed": rank}, [state(0, 0), state(1, 0)], 0)
except UserError as failure:
    said.append(str(failure))
(folder / f"said{rank}").write_text(json.dumps(said))
distributed.destroy_process_group()
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


def test_all_hear_all_until_all_are_done(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PROCESS, str(tmp_path)], check=True)
    first, second = (json.loads((tmp_path / f"said{rank}").read_text()) for rank in (0, 1))
    small, large = 1 + 6 * 4 + 8, 1 + 9 * 4 + 8
    assert first[:4] == [[step, small, large] for step in (10, 15, 20, 25)]
    assert second[:8] == [[step, large, small] for step in (10, 15, 20, 25, 60, 60, 60, 60)]
    assert first[4] == [60, 5 * small, 5 * large]  # it goes on to take part
    assert second[8] == [60, large, small]
    assert first[5] == second[9]
    assert "strategy.across: replica 1 is of another set-up: seed is 1 there and 0" in first[5]


def test_without_a_group_it_is_refused() -> None:
    with pytest.raises(UserError, match=r"strategy.across: expected one process for each of the 3"):
        Ranks(3)


def test_bytes_become_tensors_again() -> None:
    state = {
        "flag": torch.tensor([True, False, True]),
        "half": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).bfloat16(),
        "double": torch.arange(4.0, dtype=torch.float64).reshape(2, 2).t(),
        "count": torch.tensor(2**40),
        "empty": torch.zeros(0, 3),
    }
    flat = flattened(state)
    assert flat.dtype == torch.uint8
    assert flat.numel() == 3 + 30 + 32 + 8
    for name, value in unflattened(flat, state).items():
        assert value.dtype == state[name].dtype
        assert torch.equal(value, state[name])
