"""python benchmarks/memory.py: what teachers take in memory, and answers that lie on disk.

Each figure is the private memory of a process of its own (what it cannot give back by dropping
pages of files), less that of a process that does nothing but import. Answers on disk are read in
random batches of 256, from records of more and more samples.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from timing import publish, table

from ensemble_kd.cache import Float32, Shelf, Writer
from ensemble_kd.networks import Cnn, ResNet
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import Batch, Progress

CLASSES, KEY, READS = 100, "0" * 32, 200
SAMPLES = (50_000, 200_000, 800_000)


def private() -> int:
    """Bytes of this process that are no pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def inside(what: str, number: int, folder: str) -> None:
    """What a process of its own does; prints what it takes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if what == "nothing":
        answer: object = None
    elif what == "reading":
        record = Shelf(Path(folder)).find(KEY)
        if record is None:
            raise SystemExit(f"{folder}: no record")
        for _ in range(READS):
            answer = record.read(torch.randint(number, (256,)), torch.zeros(256, dtype=torch.int64))
    else:
        made = {"cnn": _cnn, "resnet-110": _resnet}[what]
        teachers = Ensemble([Frozen(made()) for _ in range(number)])
        batch = Batch(torch.randn(64, 3, 32, 32), torch.zeros(64).long(), torch.arange(64))
        answer = teachers(batch, Progress(0, 0, 0.0))
    print(json.dumps({"bytes": private(), "kept": answer is not None}))


def _cnn() -> torch.nn.Module:
    return Cnn([3, 32, 32], CLASSES, [64, 128, 256])


def _resnet() -> torch.nn.Module:
    return ResNet([3, 32, 32], CLASSES, 110)


def taken(what: str, number: int = 0, folder: str = "-") -> int:
    command = [sys.executable, __file__, "--inside", what, str(number), folder]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(json.loads(said.stdout.splitlines()[-1])["bytes"])


def record(folder: Path, samples: int) -> int:
    """Write a record of random answers; returns the bytes of its files."""
    shelf, index, format = Shelf(folder), torch.arange(samples), Float32()
    with shelf.locked(KEY):
        writer: Writer = shelf.writing(KEY, {}, index, 1, (CLASSES,), format)
        for view, start, stop in writer.missing(8192):
            rows = index[start:stop]
            said = torch.randn(len(rows), CLASSES)
            writer.write(view, start, format.encode(said, rows, torch.full_like(rows, view)))
        writer.finish()
    return sum(path.stat().st_size for path in shelf.folder(KEY).iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inside", nargs=3, metavar=("WHAT", "NUMBER", "FOLDER"))
    arguments = parser.parse_args()
    if arguments.inside:
        what, number, folder = arguments.inside
        inside(what, int(number), folder)
        return
    nothing = taken("nothing")
    rows = []
    for name, make in (("cnn", _cnn), ("resnet-110", _resnet)):
        weights = sum(tensor.nbytes for tensor in make().state_dict().values())
        one, four = (taken(name, number) - nothing for number in (1, 4))
        each = (four - one) / 3
        rows.append([name, _mib(weights), _mib(one), _mib(each)])
    columns = ("teacher (32 px, batch 64)", "weights", "memory of the first", "of each further one")
    lines = [*table(columns, rows), ""]
    rows = []
    for samples in SAMPLES:
        with tempfile.TemporaryDirectory() as folder:
            size = record(Path(folder), samples)
            used = taken("reading", samples, folder) - nothing
        rows.append([f"{samples:,}", _mib(size), _mib(used), f"{used / samples:.1f}"])
    columns = ("samples on disk, c = 100", "files", "memory to read them", "bytes a sample")
    publish("memory", lines + table(columns, rows))


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"


if __name__ == "__main__":
    main()
