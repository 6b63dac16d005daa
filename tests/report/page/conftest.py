"""A run folder made by hand, with names that would break a page that does not escape them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensemble_kd.predictions import Predictions, write_predictions
from ensemble_kd.report.curves import Point, append_points
from ensemble_kd.report.samples import shown_samples, write_samples
from ensemble_kd.types import UNLABELLED, Batch

SCRIPT = "<script>alert(1)</script>"
TERM = "<b onclick=alert(3)>"
CLASSES = (SCRIPT, '"><img src=x onerror=alert(2)>', "a & b", "\u202eevil", "x" * 90, *"fghij")
SKILL = {
    "teacher/0": 3.2,
    "teacher/1": 3.0,
    "teacher/2": 2.6,
    "assistant/0": 3.1,
    "control/no_teacher": 2.0,
    "control/label_smoothing": 2.1,
    "control/pseudo_label": 2.5,
    "control/single_teacher/0": 2.5,
    "control/single_teacher/1": 2.45,
    "control/random_teacher": 1.9,
    "control/shuffled_teacher": 2.1,
    "student": 2.7,
}
TEACHERS = ["teacher/0", "teacher/1", "teacher/2"]
COSTS = {"teacher": 49818, "ensemble": 149454, "assistant": 9114}
SAMPLES = 300


def predictions(seed: int, classes: tuple[str, ...] = CLASSES, n: int = SAMPLES) -> Predictions:
    """Logits that point to the right class the more, the more skill a network has."""
    draw = torch.Generator().manual_seed(seed)
    target = torch.randint(len(classes), (n,), generator=draw)
    hard = 3 * torch.rand((n, 1), generator=draw)
    common = torch.randn((n, len(classes)), generator=draw)
    hot = torch.nn.functional.one_hot(target, len(classes))
    logits = {}
    for name, skill in SKILL.items():
        own = torch.randn((n, len(classes)), generator=draw)
        logits[name] = skill * hot * hard + 0.8 * common + 0.6 * own
        if name == "teacher/2":
            members = [logits[each].softmax(-1) for each in TEACHERS]
            logits["ensemble"] = torch.stack(members).mean(0).log()
    target[:7] = UNLABELLED
    return Predictions(classes, torch.arange(n), target, logits)


def scores(said: Predictions, name: str) -> dict[str, Any]:
    """Some true numbers and some made up ones, which a page has no means to check."""
    known = said.target >= 0
    logits, target = said.logits[name][known], said.target[known]
    right = (logits.argmax(-1) == target).numpy()
    found = [right[(target == k).numpy()] for k in range(len(said.names))]
    accuracy = float(right.mean())
    return {
        "accuracy": accuracy,
        "macro_f1": accuracy - 0.0123,
        "nll": float(torch.nn.functional.cross_entropy(logits, target)),
        "brier": 0.7 - 0.6 * accuracy,
        "ece": 0.0312 + 0.001 * len(name),
        "n": int(known.sum()),
        "recall": [float(own.mean()) if len(own) else None for own in found],
    }


def make_results(said: dict[str, Predictions]) -> dict[str, Any]:
    """The content of ``results.json``."""
    test = said["test"]
    names = list(test.logits)
    predictors: dict[str, Any] = {}
    for place, name in enumerate(names):
        size = COSTS.get(name.partition("/")[0], 678)
        predictors[name] = {
            **{split: scores(own, name) for split, own in said.items()},
            "parameters": size,
            "bytes": 4 * size,
            "multiply_adds": 11 * size,
            "milliseconds_per_1000": size / 2500 + 5,
            "latency": {"p50": size / 1e5 + 0.1 + place / 1000, "p95": size / 9e4 + 0.2},
        }
    ranked = ["ensemble", *(name for name in names if name != "ensemble")]
    pairs = {}
    for place, reference in enumerate(ranked):
        for name in ranked[place + 1 :]:
            same = test.logits[name].argmax(-1) == test.logits[reference].argmax(-1)
            agreement = float(same.double().mean())
            entry = {"agreement": agreement, "kl": 1 - agreement, "probability_loyalty": agreement}
            pairs[f"{name}|{reference}"] = {"val": entry, "test": entry}
    learners = [name for name in names if name.startswith("control") or name == "student"]
    share: dict[str, Any] = {"error_inheritance": 0.41, "positive": 0.62, "positive_n": 37}
    share |= {"negative": 0.33, "negative_n": 9}
    nothing: dict[str, Any] = {"positive": None, "positive_n": 0, "negative": None, "negative_n": 0}
    transfer = {name: dict.fromkeys(("val", "test"), share) for name in learners}
    transfer["control/no_teacher"] = dict.fromkeys(("val", "test"), share | nothing)
    together = {"disagreement": 0.11, "q_statistic": 0.83}
    together |= {"js_divergence": 0.052, "oracle_accuracy": 0.97}
    robustness = [
        {
            "corruption": corruption,
            "severity": severity,
            "n": 200,
            "accuracy": {
                name: entry["test"]["accuracy"] * 0.9**severity
                for name, entry in predictors.items()
                if name != "teacher/2"
            },
        }
        for corruption in ("noise", "blur", "contrast")
        for severity in (1, 3, 5)
    ]
    taught = {"assistant/0": TEACHERS, "student": ["assistant/0"]}
    taught |= {name: TEACHERS for name in learners if "no_teacher" not in name != "student"}
    return {
        "schema": 2,
        "seed": 3,
        "strategy": "assistant",
        "data": {"name": SCRIPT, "digest": "ab" * 32, "inputs": [1, 8, 8], "classes": 10},
        "verdict": "distillation helped: +7.5 points over the same student without teachers, on "
        "293 test samples (one seed: not a significance test)",
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
        "predictors": predictors,
        "pairs": pairs,
        "teachers": {"val": together, "test": together},
        "transfer": transfer,
        "worth": {
            name: {
                "leave_one_out": 0.012 - 0.005 * place,
                "leave_one_out_error": 0.004,
                "shapley": 0.29 - 0.01 * place,
                "shapley_error": 0.007,
            }
            for place, name in enumerate(TEACHERS)
        },
        "robustness": robustness,
        "stages": [
            {
                "name": name,
                "digest": f"{place:02x}" * 32,
                "reused": place < 3,
                "epochs": 40,
                "seconds": 3.25,
                "parameters": predictors[name]["parameters"],
                "teachers": taught.get(name, []),
            }
            for place, name in enumerate(name for name in names if name != "ensemble")
        ],
        "export": {"onnx_max_difference": 1.25e-6},
    }


def write_curves(path: Path, names: list[str], epochs: int = 40) -> None:
    """Loss terms that fall and accuracies that rise."""
    points = []
    for place, name in enumerate(names):
        for epoch in range(epochs):
            left = np.exp(-0.12 * (epoch + 1) / (1 + 0.05 * place))
            points += [
                Point(name, epoch, "student/label", float(2.3 * left)),
                Point(name, epoch, "student/val_accuracy", float(0.95 - 0.6 * left)),
            ]
            if name == "student":
                points.append(Point(name, epoch, f"student/{TERM}", float(1.1 * left)))
    append_points(path, points)


def batches(n: int = SAMPLES) -> list[Batch]:
    """Images with a bright bar, in batches."""
    images = torch.zeros(n, 1, 8, 8)
    images[torch.arange(n), 0, torch.arange(n) % 8] = 1.0
    index = torch.arange(n)
    return [Batch(images[part], index[part], index[part]) for part in index.split(64)]


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with everything in it; copied, never changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    (folder / ".hydra").mkdir(parents=True)
    said = {"val": predictions(1), "test": predictions(2)}
    results = make_results(said)
    (folder / "results.json").write_text(json.dumps(results))
    for split, own in said.items():
        write_predictions(own, folder / "predictions" / f"{split}.safetensors")
    write_curves(folder / "curves.csv", [stage["name"] for stage in results["stages"]])
    write_samples(shown_samples(said["test"], batches()), folder / "samples.json")
    (folder / ".hydra" / "config.yaml").write_text(f"data:\n  name: {SCRIPT}\nseed: 3\n")
    return folder


@pytest.fixture
def make_run(whole_run: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder whose results were changed; returns it."""

    def make(change: Callable[[dict[str, Any]], None] = lambda results: None) -> Path:
        folder = Path(shutil.copytree(whole_run, tmp_path / "run"))
        results = json.loads((folder / "results.json").read_text())
        change(results)
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    return make


@pytest.fixture
def run_folder(make_run: Callable[..., Path]) -> Path:
    """A run with everything that a page can show."""
    return make_run()


SETTINGS = ("strategy=parallel", f"strategy={SCRIPT}", "strategy=mutual, weighting=entropy")
VERDICTS = ("HELPS", "DOES NOT HELP", "INCONCLUSIVE")


def spread(mean: float, std: float | None = 0.011, n: int = 6) -> dict[str, Any]:
    """Mean and standard deviation, as ``sweep.json`` has them."""
    return {"mean": mean, "std": std, "n": n}


def against(mean: float, verdict: str) -> dict[str, Any]:
    """A comparison with a control."""
    found: dict[str, Any] = {
        "n": 6,
        "mean": mean,
        "std": 0.012,
        "low": mean - 0.013,
        "high": mean + 0.011,
    }
    found |= {"effect_size": 1.37, "p": 0.03125, "p_below": 0.21, "exact": True, "family": 3}
    found |= {"p_holm": 0.09375, "p_below_holm": 0.42, "verdict": verdict}
    return found | {"sentence": f"{100 * mean:+.1f} points <i>over</i> control/no_teacher"}


def make_summary() -> dict[str, Any]:
    """The content of ``sweep.json``: three settings by six seeds, and a job that failed."""
    groups, jobs = [], []
    for place, (label, verdict) in enumerate(zip(SETTINGS, VERDICTS, strict=True)):
        gain = (0.034, -0.004, 0.011)[place]
        student = {"val": spread(0.93 + gain), "test": spread(0.91 + gain)}
        metrics = {"accuracy": spread(0.91 + gain), "nll": spread(0.3 - gain)}
        groups.append(
            {
                "label": label,
                "settings": {"strategy": label.partition("=")[2]},
                "n": 6,
                "seeds": list(range(6)),
                "student": student,
                "gain": {"val": spread(gain), "test": spread(gain)},
                "predictors": {"student": {"val": metrics, "test": metrics}},
                "against": {
                    "control/no_teacher": against(gain, verdict),
                    "control/pseudo_label": against(gain / 2, "INCONCLUSIVE"),
                },
                "churn": {
                    "student": {"mean": 0.08 + gain, "pairs": 15, "samples": 270.0},
                    "control/no_teacher": {"mean": 0.13, "pairs": 15, "samples": 270.0},
                },
                "singles": {
                    split: {"mean": spread(0.92), "best": spread(0.93)} for split in student
                }
                if place < 2
                else None,
            }
        )
        for seed in range(6):
            gains = {"val": gain, "test": gain + 0.006 * (seed - 2.5)}
            jobs.append(
                {
                    "folder": f"{6 * place + seed} & co",
                    "group": label,
                    "settings": {"strategy": label},
                    "seed": seed,
                    "student": {"val": 0.93 + gain, "test": 0.91 + gains["test"]},
                    "gain": {"control/no_teacher": gains},
                }
            )
    between = [
        {
            "one": SETTINGS[i],
            "other": SETTINGS[j],
            "n": 6,
            "mean": 0.02 * (j - i) - 0.01,
            "std": 0.01,
            "low": -0.01,
            "high": 0.04,
            "effect_size": 0.8,
            "p": 0.03,
            "exact": True,
            "p_holm": 0.0009 if j == 2 else 0.06,
            "better": SETTINGS[i] if j == 2 else None,
        }
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    metric: dict[str, Any] = {
        "name": "accuracy",
        "unit": "points of accuracy",
        "factor": 100.0,
        "digits": 1,
    }
    return {
        "schema": 2,
        "metric": {**metric, "higher_is_better": True},
        "margin": 0.005,
        "alpha": 0.05,
        "reference": "control/no_teacher",
        "settings": ["strategy"],
        "groups": groups,
        "between": between,
        "jobs": jobs,
        "missing": [{"folder": "18", "settings": {"a": SCRIPT}, "reason": "it <b>failed</b>"}],
    }


@pytest.fixture
def make_sweep(whole_run: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder of a sweep, three of its jobs with results and one with a page."""

    def make(change: Callable[[dict[str, Any]], None] = lambda summary: None) -> Path:
        folder = tmp_path / "sweep"
        summary = make_summary()
        results = json.loads((whole_run / "results.json").read_text())
        for place, job in enumerate(summary["jobs"][::6]):
            own = folder / job["folder"]
            own.mkdir(parents=True)
            results["predictors"]["student"]["latency"] = {"p50": 0.1 + 0.1 * place, "p95": 0.5}
            (own / "results.json").write_text(json.dumps(results))
        (folder / summary["jobs"][0]["folder"] / "report.html").write_text("a page")
        change(summary)
        (folder / "sweep.json").write_text(json.dumps(summary))
        return folder

    return make
