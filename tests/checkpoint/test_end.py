"""What is trained to its end is not trained again, however far the artefact had come."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from ensemble_kd.artefact import write_artefact
from ensemble_kd.checkpoint import checkpointing
from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.errors import UserError
from ensemble_kd.files import file_digest
from ensemble_kd.module import DistillationModule
from ensemble_kd.plan import make_plan
from ensemble_kd.store import Store

SHORT = (
    *("epochs=2", "batch_size=16", "+trainer.limit_train_batches=3", "controls=[]"),
    *("+trainer.limit_val_batches=1", "strategy=mutual", "strategy.taught=false", "teacher=none"),
    "select=best",
)


def digests(store: Store) -> dict[str, str]:
    (folder,) = [path for path in store.root.iterdir() if len(path.name) == 32]
    assert not (folder / "checkpoint").exists()
    files = [path for path in folder.iterdir() if path.name != "provenance.json"]
    return {path.name: file_digest(path) for path in files}


@pytest.mark.filterwarnings("ignore:.*limit_val_batches")
def test_a_cut_between_training_and_the_artefact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpointing, "SPARE", 0.0)
    plan = make_plan(compose([*SHORT]))

    def products(store: Store) -> None:
        Engine(plan, store, tmp_path, False).products()

    whole, cut = Store(tmp_path / "whole"), Store(tmp_path / "cut")
    products(whole)

    # The disk is full as soon as the weights are there.
    with monkeypatch.context() as patch:

        def full(folder: Path, *arguments: Any) -> None:
            write_artefact(folder, *arguments)
            (folder / "provenance.json").write_text('{"schema"')
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr("ensemble_kd.engine.write_artefact", full)
        with pytest.raises(UserError, match=r"^stage student: .* No space left on device; what"):
            products(cut)

    def never(module: DistillationModule, *arguments: Any) -> None:
        raise AssertionError("it was trained to its end")

    monkeypatch.setattr(DistillationModule, "training_step", never)
    # Then somebody pulls the plug between the last checkpoint's end and the artefact's name.
    with monkeypatch.context() as patch:

        def pulled(folder: Path, **settings: Any) -> None:
            for path in folder.iterdir():
                path.unlink()
            raise KeyboardInterrupt

        patch.setattr("ensemble_kd.engine.shutil.rmtree", pulled)
        with pytest.raises(KeyboardInterrupt):
            products(cut)
    assert "[1/1] student  continues after its last epoch\n" in capsys.readouterr().out
    products(cut)
    assert "[1/1] student  reused" in capsys.readouterr().out
    assert digests(cut) == digests(whole)
