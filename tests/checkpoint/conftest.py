"""A stage that is cut off again and again, beside one that is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ensemble_kd.checkpoint import Checkpointing
from ensemble_kd.engine import Engine, Product
from ensemble_kd.module import DistillationModule
from ensemble_kd.plan import Plan
from ensemble_kd.store import Store
from ensemble_kd.teachers import Keeping


class Cut(Exception):  # noqa: N818  # nothing is wrong
    """Stands for the end of the process."""


@contextmanager
def cut_off(after: int) -> Iterator[None]:
    """Cut a training off within the step after some others."""
    taken = 0
    step = DistillationModule.training_step

    def counted(module: DistillationModule, *arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken > after:
            raise Cut
        return step(module, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillationModule, "training_step", counted)
        yield


def content(product: Product) -> dict[str, Any]:
    """The bytes of an artefact's files, but for how long the training took."""
    files: dict[str, Any] = {
        path.name: path.read_bytes() for path in product.artefact.folder.iterdir()
    }
    said = json.loads(files.pop("provenance.json"))
    assert said.pop("seconds") >= 0
    return {**files, "provenance.json": said}


@pytest.fixture
def goes_on(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Holds a plan whose stages are cut off after every few steps against one that is not."""
    shared = tmp_path_factory.getbasetemp() / "teachers"  # trained once for all tests

    def hold(
        made: Plan | Callable[[], Plan],
        after: int = 4,
        every_n_steps: int | None = 1,
        keeping: Keeping | None = None,
    ) -> None:
        def products(store: Store, every_n_steps: int | None) -> dict[str, Product]:
            plan = made if isinstance(made, Plan) else made()
            engine = Engine(plan, store, Path("run"), False, keeping, every_n_steps)
            return engine.products()

        whole = products(Store(shared), None)
        store = Store(tmp_path / "cut")
        for name, product in whole.items():
            if name.startswith("teacher/"):
                shutil.copytree(product.artefact.folder, store.root / product.artefact.folder.name)
        loaded: list[int] = []
        load = Checkpointing.on_load_checkpoint

        def told(self: Checkpointing, trainer: Any, module: Any, checkpoint: Any) -> None:
            loaded.append(checkpoint["ensemble_kd"]["batch"])
            load(self, trainer, module, checkpoint)

        monkeypatch.setattr(Checkpointing, "on_load_checkpoint", told)
        for _ in range(99):
            try:
                with cut_off(after):
                    resumed = products(store, every_n_steps)
                break
            except Cut:
                continue
        else:
            raise AssertionError("it never came to an end")
        # At least once it went on from within an epoch, if there is anything to go on from.
        assert any(loaded) or every_n_steps is None
        assert loaded
        assert list(resumed) == list(whole)
        for name, product in whole.items():
            expected, got = content(product), content(resumed[name])
            assert got.keys() == expected.keys()
            assert got["curves.csv"].decode() == expected["curves.csv"].decode()
            assert [file for file in expected if got[file] != expected[file]] == []
        assert not list(store.root.rglob("checkpoint"))

    return hold
