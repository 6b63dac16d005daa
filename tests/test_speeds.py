"""What a student that is left early gains and loses: counted by hand, and on the command line."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ensemble_kd import speeds
from ensemble_kd.errors import UserError
from ensemble_kd.networks import EarlyExit
from ensemble_kd.types import Batch, Tokens

LAYERS, CLASSES = 3, 3


def network() -> EarlyExit:
    torch.manual_seed(4)
    made = EarlyExit(30, [6], CLASSES, LAYERS, 16, 2, 24, exit_width=8, speed=0.25).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter))
    return made


def batch(count: int, labelled: bool) -> Batch:
    generator = torch.Generator().manual_seed(count)
    ids = torch.randint(30, (count, 6), generator=generator)
    mask = torch.arange(6) < torch.randint(2, 7, (count, 1), generator=generator)
    texts = Tokens(ids, mask, torch.zeros_like(ids), torch.zeros(count, 1).byte())
    target = torch.randint(CLASSES, (count,), generator=generator)
    known = None if labelled else torch.arange(count) % 3 > 0
    return Batch(texts, target, torch.arange(count), known)


def test_accuracy_is_of_the_labelled_texts_and_blocks_are_of_all() -> None:
    made, batches = network(), [batch(17, True), batch(8, False), batch(1, True)]
    for point in speeds.trade_off(made, batches, (0.0, 0.4, 0.6, 1.0)):
        made.speed = point.speed
        right, blocks = [], []
        for each in batches:
            for row in range(len(each.index)):
                said = made.early(Tokens(*(part[row : row + 1] for part in each.inputs)))
                blocks.append(int(said.layers))
                if each.mask is None or each.mask[row]:
                    right.append(bool(said.logits.argmax() == each.target[row]))
        assert point.accuracy == pytest.approx(sum(right) / len(right))
        assert point.layers == pytest.approx(sum(blocks) / len(blocks))


def test_the_ends_are_all_blocks_and_one_block() -> None:
    found = speeds.trade_off(network(), [batch(20, True)], (0.0, 0.5, 1.0))
    assert [found[0].layers, found[-1].layers] == [LAYERS, 1]
    assert 1 < found[1].layers < LAYERS


def test_the_speed_of_the_network_is_left_as_it_was() -> None:
    made = network()
    speeds.trade_off(made, [batch(3, True)], (1.0,))
    assert made.speed == 0.25


@pytest.fixture
def run(text_root: Path, command: Callable[..., int]) -> Callable[..., Path]:
    """Carries out a run of some batches on tiny files; its folder."""

    def carry_out(*overrides: str) -> Path:
        sizes = ("source.limit=null", "tokenizer.size=60", "length=12", "labelled=30")
        small = (*(f"data.{size}" for size in sizes), f"paths.data={text_root}", "batch_size=4")
        quick = ("epochs=2", "teacher.epochs=1", "controls=[]", "+trainer.limit_train_batches=2")
        quiet = ("logger=none", "report.plots=false", "report.onnx=false", "hydra.run.dir=run")
        assert command(*overrides, *small, *quick, *quiet) == 0
        return Path("run")

    return carry_out


def test_the_command_line_shows_each_speed(
    run: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run("experiment=sst2_fastbert")
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["speeds", str(folder), "--speeds", "0", "1"])
    assert speeds.main() == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = [row for row in table if len(row) == 3 and row[0] in ("0", "1")]
    assert len(rows) == 2
    assert [row[2] for row in rows] == ["4.00", "1.00"]


def test_mistakes_are_one_line(
    run: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run("experiment=sst2", "teacher.members=[bert_tiny]")
    for arguments, words in (
        (["nowhere"], "error: nowhere: expected the folder of a run, found no "),
        ([str(folder)], "error: run: expected a student that texts can leave early"),
    ):
        monkeypatch.setattr(sys, "argv", ["speeds", *arguments])
        assert speeds.main() == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1", "not readable: while parsing"),
        (b"a: \xff\xfe\xff", "not readable: "),
        (b"a: 1", "expected the configuration of a run, got no data"),
        (b"data: {a: 1}", "expected the configuration of a run, got no allow"),
        (b"data: ${nothing}", "not readable: Interpolation key 'nothing' not found"),
        (b"[1, 2]", "expected a configuration, got a list"),
        (b"", "expected the configuration of a run, got no data"),
        (b"7", "not readable: "),
    ],
)
def test_a_damaged_configuration_is_one_line(content: bytes, words: str, own_folder: Path) -> None:
    path = own_folder / ".hydra" / "config.yaml"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UserError) as refusal:
        speeds.show(own_folder)
    assert str(refusal.value).startswith(f"{path}: {words}")
    assert "\n" not in str(refusal.value)


def test_other_data_are_refused(run: Callable[..., Path], text_root: Path) -> None:
    folder = run("experiment=sst2_fastbert")
    file = text_root / "sst2" / "train.tsv.gz"
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()) + b"a new film\t1\n"))
    with pytest.raises(UserError, match=r"expected the data of the run, .* \w{12}, got"):
        speeds.show(folder)


def test_exits_that_never_learned_are_refused(run: Callable[..., Path]) -> None:
    folder = run("experiment=sst2", "student=fastbert", "teacher.members=[bert_tiny]")
    with pytest.raises(UserError, match="expected a student whose earlier classifiers have learn"):
        speeds.show(folder)


def test_a_speed_out_of_range_is_refused() -> None:
    with pytest.raises(UserError, match=r"speeds must be in \[0, 1\], got 2"):
        speeds.show(Path("run"), [2])
