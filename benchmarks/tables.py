"""Boosted trees into a small network, on the tables that come with scikit-learn.

``python benchmarks/tables.py run`` trains, ``report`` writes the page. Three LightGBM classifiers,
or three histogram-gradient-boosting classifiers of scikit-learn, teach an ``Mlp`` with one hidden
layer, with and without MUNGE samples (Bucila et al., Model Compression, KDD 2006). Trees see the
training split only; the network without teachers sees the same rows.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paired import (
    CONTROL,
    DOCS,
    Row,
    append,
    by_setting,
    cells,
    command,
    explained,
    measured,
    rows,
)
from torch import nn

from ensemble_kd.config import compose
from ensemble_kd.data import Arrays, InMemory
from ensemble_kd.export import count_parameters
from ensemble_kd.latency import latency
from ensemble_kd.plan import make_plan
from ensemble_kd.stage import training_code_digest
from ensemble_kd.store import Store
from ensemble_kd.training import assemble

RAW, PAGE, SPEED = DOCS / "tables.csv", DOCS / "tables.md", DOCS / "tables_latency.csv"

SETS = {"breast cancer": "load_breast_cancer", "digits as a table": "load_digits"}
FEWER = f"{CONTROL}, fewer steps"
MEMBERS = 3
ROUNDS = 40
COMMON = (
    *("data=arrays", "student=mlp_small", "teacher.gate=false", "logger=none"),
    "epochs=12",
)
MUNGE = "data.synthesise={_target_: ensemble_kd.data.Munge, copies: 3, p: 0.5, s: 2.0}"
SETTINGS = {
    "from LightGBM, with MUNGE": ("lightgbm", (MUNGE,)),
    "from LightGBM": ("lightgbm", ()),
    "from HistGradientBoosting, with MUNGE": ("sklearn", (MUNGE,)),
}
TEACHERS = {"lightgbm": "three LightGBM together", "sklearn": "three HistGradientBoosting together"}


def written(folder: Path, name: str) -> Path:
    """A data set as a file: columns with mean 0 and standard deviation 1, from which labels nobody
    could tell."""
    from sklearn import datasets

    file = folder / f"{name.replace(' ', '_')}.npz"
    features, labels = getattr(datasets, SETS[name])(return_X_y=True)
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(file, x=scaled.astype(np.float32), y=labels)
    return file


def teachers(kind: str, file: Path, seed: int) -> list[Path]:
    """Boosted trees that have seen the training split of a seed, and differ by seeds of theirs."""
    data = InMemory(Arrays(file), seed=seed)
    recurring = data.recurring("train")
    assert recurring is not None
    held, index = np.load(file), recurring.index.numpy()
    found = []
    for member in range(MEMBERS):
        path = file.with_name(f"{file.stem}-{seed}-{member}{ENDINGS[kind]}")
        if not path.exists():
            MAKERS[kind](held["x"][index], held["y"][index], MEMBERS * seed + member, path)
        found.append(path)
    return found


def lightgbm(features: Any, labels: Any, seed: int, path: Path) -> None:
    from lightgbm import LGBMClassifier

    shares = {"subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.5}
    model = LGBMClassifier(n_estimators=ROUNDS, random_state=seed, n_jobs=1, verbose=-1, **shares)
    model.fit(features, labels).booster_.save_model(path)


def hist(features: Any, labels: Any, seed: int, path: Path) -> None:
    import skops.io
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=ROUNDS, max_features=0.5, random_state=seed)
    skops.io.dump(model.fit(features, labels), path)


MAKERS: Mapping[str, Callable[[Any, Any, int, Path], None]] = {
    "lightgbm": lightgbm,
    "sklearn": hist,
}
ENDINGS = {"lightgbm": ".txt", "sklearn": ".skops"}


def overrides(name: str, setting: str, seed: int, folder: Path) -> list[str]:
    """Of the run of a setting on a data set."""
    kind, own = SETTINGS[setting]
    file = written(folder, name)
    members = ",".join(f"{{{kind}: {path}}}" for path in teachers(kind, file, seed))
    return [
        *COMMON,
        *own,
        f"data.source.path={file}",
        f"teacher.members=[{members}]",
        f"seed={seed}",
    ]


def run(seeds: Sequence[int], folder: Path) -> None:
    """Train whatever has no figure yet."""
    store = Store(folder / "store")
    code = training_code_digest()[:12]
    if older := {row.code for row in rows(RAW)} - {code}:
        raise SystemExit(f"{RAW} holds figures of other code ({', '.join(older)}): move it away")
    for seed in seeds:
        for name in SETS:
            for setting, (kind, own) in SETTINGS.items():
                done = {(row.method, row.seed) for row in rows(RAW)}
                if (f"{name}: {setting}", seed) in done:
                    continue
                control = CONTROL if own else FEWER
                also = {control: "control/no_teacher", TEACHERS[kind]: "ensemble"}
                asked = overrides(name, setting, seed, folder)
                found = measured(setting, asked, also, store)
                fresh = {f"{name}: {key}": value for key, value in found.items()}
                new = [Row(k, seed, v, code) for k, v in fresh.items() if (k, seed) not in done]
                for row in new:
                    print(f"{row.method} seed {seed}: {row.accuracy:.4f}", flush=True)
                append(RAW, new)
    time_them(folder)


def time_them(folder: Path) -> None:
    """How long the teachers together and the student take, in batches of 64."""
    with SPEED.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("data", "who", "milliseconds per 1000 rows", "size"))
        for name in SETS:
            for kind, setting in (("lightgbm", "from LightGBM"), ("sklearn", [*SETTINGS][2])):
                asked = overrides(name, setting, 0, folder)
                plan = make_plan(compose(asked))
                inputs = next(iter(plan.data.test_dataloader())).inputs[:64]
                alone = [per_thousand(each.network, inputs) for each in plan.given.values()]
                size = sum(path.stat().st_size for path in teachers(kind, written(folder, name), 0))
                writer.writerow((name, TEACHERS[kind], f"{sum(alone):.3f}", f"{size} bytes"))
            student = assemble(next(s for s in plan.stages if s.name == "student")).student.eval()
            told = f"{count_parameters(student)} parameters"
            writer.writerow((name, "student", f"{per_thousand(student, inputs):.3f}", told))


def per_thousand(network: nn.Module, inputs: torch.Tensor) -> float:
    """Milliseconds for 1,000 rows."""
    return 1e3 * latency(network, inputs).p50 / len(inputs)


def report() -> None:
    found = by_setting(RAW)
    lines = [
        "# Measured: boosted trees into a small network",
        "",
        "Written by `python benchmarks/tables.py report`; the raw figures are in",
        "[tables.csv](tables.csv) and [tables_latency.csv](tables_latency.csv).",
        "",
        "- Tables that come with scikit-learn: breast cancer (569 rows, 30 columns, 2 classes) and",
        "  digits (1,797 rows, 64 columns, 10 classes), columns standardised; 70% to train with,",
        "  all labelled, 15% for the figures.",
        f"- Teachers: three boosted classifiers of {ROUNDS} rounds, with seeds of their own and",
        "  random halves of the columns; the student is `mlp_small`, 12 epochs.",
        "- MUNGE: three made-up rows for each real one, which the teachers label. Without teachers",
        "  these are of no use; that student sees the real rows again in their place, so that it",
        "  makes as many steps. Without MUNGE there are a quarter as many, for both, and these two",
        "  are compared.",
        "- Times: one thread of a busy processor, batches of 64: no more than orders of magnitude.",
        *explained(len(found[f"{next(iter(SETS))}: {CONTROL}"])),
        "",
    ]
    # Here the test split is drawn with the seed.
    lines = [line for line in lines if "official test images" not in line]
    for name in SETS:
        own = {key.partition(": ")[2]: v for key, v in found.items() if key.startswith(f"{name}: ")}
        mean = {key: 100 * float(np.mean(list(values.values()))) for key, values in own.items()}
        lines += [f"## {name.capitalize()}", "", "| who | accuracy | against no teachers | p |"]
        lines.append("|---|---|---|---|")
        for key in sorted(mean, key=lambda each: -mean[each]):
            reference = FEWER if key in SETTINGS and not SETTINGS[key][1] else CONTROL
            compared = cells(own[key], own[reference]) if key not in (CONTROL, FEWER) else ["", ""]
            shown = key if key in SETTINGS else f"*{key}*"
            lines.append(f"| {' | '.join([shown, f'{mean[key]:.2f}', *compared])} |")
        lines += ["", "| who | milliseconds per 1,000 rows | size |", "|---|---|---|"]
        with SPEED.open(newline="") as file:
            timed = [row for row in csv.DictReader(file) if row["data"] == name]
        lines += [
            f"| {row['who']} | {row['milliseconds per 1000 rows']} | {row['size']} |"
            for row in timed
        ]
        lines.append("")
    PAGE.write_text("\n".join(lines).rstrip() + "\n")
    print(PAGE.read_text())


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    command(__doc__, run, report, ("--folder", "outputs/tables"))


if __name__ == "__main__":
    main()
