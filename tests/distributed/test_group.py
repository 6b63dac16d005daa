"""Two processes: however they fail, one says so; and they validate one network."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PROCESS = """
import json, os, socket, sys, time
from pathlib import Path
from types import SimpleNamespace
import torch
from torch import distributed
from ensemble_kd.distributed import ranks
from ensemble_kd.errors import UserError
from ensemble_kd.fitting import _Company

free = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
ports = [each.getsockname()[1] for each in free]
for each in free:
    each.close()
other = os.fork()  # only now: the imports take longer than all the rest
rank = 0 if other else 1
os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank))

def both():
    time.sleep(0.3 * rank)  # the first, which keeps the store, is there before the second
    raise UserError("a mistake that each of them finds")

def second():
    if rank == 1:
        raise UserError("a mistake of the second")
    distributed.all_reduce(torch.ones(1))

def dies():
    if rank == 1:
        os._exit(0)
    distributed.all_reduce(torch.ones(1))

said = []

def validated():
    network = torch.nn.BatchNorm1d(1)
    network.running_mean.fill_(rank + 1)
    together = SimpleNamespace(world_size=2, predictors=lambda: {"student": network})
    _Company().on_validation_start(together, together)
    said.append(float(network.running_mean))

for fails, port in zip((validated, both, second, dies), ports):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        with ranks.group():
            fails()
    except UserError as failure:
        said.append("" if isinstance(failure, ranks.Told) else str(failure))
        Path(sys.argv[1], f"said{rank}").write_text(json.dumps(said))
if other:
    os.waitpid(other, 0)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], list[Any]]:
    """What each of the two processes noted."""
    folder = tmp_path_factory.mktemp("group")
    subprocess.run([sys.executable, "-c", PROCESS, str(folder)], check=True)
    first, second = (json.loads((folder / f"said{rank}").read_text()) for rank in (0, 1))
    return first, second


def test_one_says_why_they_fail(said: tuple[list[Any], list[Any]]) -> None:
    first, second = said
    assert sorted([first[1], second[1]]) == ["", "a mistake that each of them finds"]
    assert [first[2], second[2]] == ["", "a mistake of the second"]
    assert first[3].startswith("one of the 2 processes of this run ended before the others")
    assert len(second) == 3


def test_all_validate_the_network_of_the_first(said: tuple[list[Any], list[Any]]) -> None:
    assert [each[0] for each in said] == [1.0, 1.0]
