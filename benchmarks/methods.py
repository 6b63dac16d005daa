"""Every strategy and every weighting on Fashion-MNIST: same student, same budget, paired seeds.

``python benchmarks/methods.py run`` trains, ``python benchmarks/methods.py report`` writes the
page. Each method is held against the same student without teachers, and against plain distillation
from the uniform mean of the teachers. Nothing is tuned: every method has the defaults of its
configuration, every network the same optimiser and number of epochs.
"""

from __future__ import annotations

import numpy as np
from paired import (
    COMMON,
    CONTROL,
    DOCS,
    Study,
    by_setting,
    cells,
    command,
    explained,
    plot,
    run,
)

from ensemble_kd.groups import options
from ensemble_kd.paths import conf_dir

RAW, PAGE, PLOT = DOCS / "measured.csv", DOCS / "measured.md", DOCS / "measured.png"
NETWORKS = (
    "student=cnn_tiny",
    "teacher.members=[cnn_medium,cnn_medium,cnn_medium]",
    "epochs=10",
)
ELSEWHERE = {
    "multi_task": "it needs data of several tasks",
    "self_distillation": "it needs texts, see [text.md](text.md)",
}
"""Strategies that cannot be run on this data, and why."""
WEIGHTS = {"fixed": ("weighting.weights=[3,2,1]",)}
"""What an option cannot do without."""
UNIFORM = "strategy=parallel"


def study() -> Study:
    """Every method, with the defaults of its configuration."""
    groups = options([conf_dir()])
    named: dict[str, tuple[str, ...]] = {
        f"strategy={name}": (f"strategy={name}",)
        for name in groups["strategy"]
        if name not in ELSEWHERE
    }
    named["strategy=assistant strategy.dense=true"] = (
        "strategy=assistant",
        "strategy.assistants=[cnn_medium,cnn_small]",
        "strategy.dense=true",
    )
    for name in groups["weighting"]:
        if name != "uniform":
            named[f"weighting={name}"] = (f"weighting={name}", *WEIGHTS.get(name, ()))
    settings = {name: (*COMMON, *NETWORKS, *own) for name, own in named.items()}
    return Study(
        RAW, settings, {CONTROL: "control/no_teacher", "the three teachers' mean": "ensemble"}
    )


def report() -> None:
    found = by_setting(RAW)
    seeds = len(found[CONTROL])
    mean = {name: 100 * float(np.mean(list(values.values()))) for name, values in found.items()}
    lines = [
        "# Measured: every method on Fashion-MNIST",
        "",
        "Written by `python benchmarks/methods.py report`; the raw figures are in",
        "[measured.csv](measured.csv).",
        "",
        "- 1,800 labelled training images, 10 epochs, the student `cnn_tiny` (678 parameters);",
        "  teachers: three `cnn_medium`, trained on the same images for as many epochs.",
        "- Nothing is tuned: defaults of each configuration. Methods that train several networks",
        "  use more computation than the control; those without teachers use none.",
        *explained(seeds),
        *(f"- `strategy={name}` is left out: {why}." for name, why in ELSEWHERE.items()),
        "",
        "![Difference to the same student without teachers, by method](measured.png)",
        "",
        "| method | accuracy | against no teachers | p | against the uniform mean | p |",
        "|---|---|---|---|---|---|",
    ]
    ranked = sorted(mean, key=lambda name: -mean[name])
    for name in ranked:
        row = [f"`{name}`" if "=" in name else f"*{name}*", f"{mean[name]:.2f}"]
        for reference in (CONTROL, UNIFORM):
            compared = name != reference and "=" in name
            row += cells(found[name], found[reference]) if compared else ["", ""]
        lines.append(f"| {' | '.join(row)} |")
    PAGE.write_text("\n".join(lines) + "\n")
    plot(PLOT, found, [name for name in ranked if "=" in name], CONTROL)
    print(PAGE.read_text())


def main() -> None:
    command(__doc__, lambda seeds, folder: run(study(), seeds, folder), report)


if __name__ == "__main__":
    main()
