"""What is counted: against the loaders, the files, the optimisers and DDP themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ensemble_kd.artefact import WEIGHTS, write_artefact
from ensemble_kd.cache import Shelf, format_named
from ensemble_kd.data import Batches, Table
from ensemble_kd.data.orders import Place, Shuffled
from ensemble_kd.forecast import sizes
from ensemble_kd.forecast.assessed import described_as
from ensemble_kd.forecast.stopwatch import state_bytes
from ensemble_kd.networks import Cnn, ResNet


@pytest.mark.parametrize("samples", [5, 64, 100, 257])
@pytest.mark.parametrize("batch_size", [4, 32])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("accumulated", [1, 3])
@pytest.mark.parametrize("drop_last", [True, False])
def test_batches_are_those_that_the_loader_serves(
    samples: int, batch_size: int, ranks: int, accumulated: int, drop_last: bool
) -> None:
    table = Table(torch.zeros(samples, 1), torch.zeros(samples, dtype=torch.int64))
    order = Shuffled(torch.arange(samples), batch_size, seed=0, drop_last=drop_last)
    loader = Batches(table, order, lambda: Place(0, 0, ranks, accumulated))
    found = sizes.batches(samples, batch_size, ranks, accumulated, drop_last)
    assert found == sum(1 for _ in loader)
    whole = len([None for number in range(found) if number % accumulated == 0])
    assert sizes.steps(found, accumulated) == whole


def test_the_trainer_takes_a_number_or_a_share_of_the_batches() -> None:
    assert [sizes.limited(10, limit) for limit in (None, 3, 20, 0.25, 1.0)] == [10, 3, 10, 2, 10]


@pytest.mark.parametrize("name", ["float32", "float16", "topk-3", "topk-50", "sampled-5-seed-0"])
@pytest.mark.parametrize(("samples", "views", "classes"), [(7, 1, 10), (130, 3, 23)])
def test_a_record_is_as_large_as_its_files(
    name: str, samples: int, views: int, classes: int, tmp_path: Path
) -> None:
    shelf, format, key = Shelf(tmp_path, shard_bytes=512), format_named(name), "0" * 32
    index = torch.arange(samples) * 3
    with shelf.locked(key):
        writer = shelf.writing(key, {}, index, views, (classes,), format)
        for view in range(views):
            said = torch.randn(samples, classes)
            writer.write(view, 0, format.encode(said, index, torch.full_like(index, view)))
        writer.finish()
    row = format.row_bytes(classes)
    files = {path.name: path.stat().st_size for path in shelf.folder(key).iterdir()}
    manifest = files.pop("manifest.json")
    assert sizes.record(samples, views, row) == sum(files.values())
    assert sizes.manifest(samples, views, row, 512) == pytest.approx(manifest, rel=0.35, abs=2000)


@pytest.mark.parametrize(
    "network",
    [Cnn([1, 8, 8], 10, [4, 8]), ResNet([3, 16, 16], 7, 8), nn.Sequential(nn.Linear(3, 2))],
)
def test_an_artefact_is_as_large_as_its_file(network: nn.Module, tmp_path: Path) -> None:
    write_artefact(tmp_path, network, None, {})
    assert described_as(network) == (tmp_path / WEIGHTS).stat().st_size


def test_weights_that_are_shared_are_written_once(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(50, 50), nn.Linear(50, 50))
    network[1].weight = network[0].weight
    write_artefact(tmp_path, network, None, {})
    # The file says in its header which of two names it left out.
    assert described_as(network) == pytest.approx((tmp_path / WEIGHTS).stat().st_size, abs=80)


def test_the_state_of_optimisers_is_weighed() -> None:
    network = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))
    numbers = 7 * 5 + 5 + 5 * 3 + 3
    for make, expected in (
        (lambda p: torch.optim.AdamW(p), 2 * 4 * numbers + 4 * 4),  # and a count for each of four
        (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), 4 * numbers),
        (lambda p: torch.optim.SGD(p, 0.1), 0),
    ):
        optimizer = make(network.parameters())
        network(torch.randn(2, 7)).sum().backward()
        optimizer.step()
        assert state_bytes(optimizer) == expected


def reference_ring(chunks: list[int]) -> int:
    """Bytes that the first of R processes sends in a ring, chunk by chunk of what is summed."""
    ranks, sent = len(chunks), 0
    for turn in range(ranks - 1):  # sums travel round
        sent += chunks[(0 - turn) % ranks]
    for turn in range(ranks - 1):  # and then the totals
        sent += chunks[(1 - turn) % ranks]
    return sent


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_a_gradient_goes_round_the_ring_twice(ranks: int) -> None:
    assert sizes.reduced(120 * ranks, ranks) == reference_ring([120] * ranks)


def test_replicas_exchange_what_the_schedule_says() -> None:
    copies = [step for step in range(100) if step >= 20 and (step - 20) % 15 == 0]
    received = sum(3 * 2 * 1000 for _ in copies)  # each of three receives two others
    assert sizes.exchanged(1000, 3, 100, 20, 15) == received
    assert sizes.exchanged(1000, 3, 10, 20, 15) == 0


PROCESSES = """
import json, os, sys
import torch
from torch import distributed, nn

torch.set_num_threads(1)
other = os.fork()  # only now: the import takes longer than all the rest
rank = 0 if other else 1
meeting = f"file://{sys.argv[1]}/meeting"
distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
widths = json.loads(sys.argv[2])
layers = [nn.Linear(*each) for each in zip(widths, widths[1:])]
network = nn.Sequential(*layers[:1], nn.BatchNorm1d(widths[1]), *layers[1:])
whole = nn.parallel.DistributedDataParallel(network)
seen = []


def hook(state, bucket):
    seen.append(bucket.buffer().nbytes)
    summing = distributed.all_reduce(bucket.buffer(), async_op=True)
    return summing.get_future().then(lambda done: done.value()[0])


whole.register_comm_hook(None, hook)
for _ in range(3):  # the first step makes its pieces anew
    seen.clear()
    whole(torch.randn(4, widths[0])).sum().backward()
distributed.destroy_process_group()
if other:
    print(json.dumps([sum(seen), len(seen), [p.nbytes for p in network.parameters()]]))
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


@pytest.mark.parametrize("widths", [[400, 800, 10], [10, 3000, 2500, 1000, 20]])
def test_ddp_sums_the_whole_gradient_in_each_step(widths: list[int], tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESSES, str(tmp_path), json.dumps(widths)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    summed, pieces, gradients = json.loads(done.stdout)
    assert summed == sum(gradients)
    assert sizes.buckets(gradients) == pieces
    # Of two processes each sends half of it to be summed, and half of the sum.
    assert sizes.reduced(sum(gradients), 2) == sum(gradients)
