"""Two teachers that each know one half of the classes, against two that know all, on Fashion-MNIST.

``python benchmarks/label_spaces.py run`` trains, ``report`` writes the page. The student knows all
classes. It learns from labels and teachers, or from the teachers alone: then a label only decides
which of two halves speaks of a sample, and rules out the classes of the other.
"""

from __future__ import annotations

import numpy as np
from paired import COMMON, CONTROL, DOCS, Study, by_setting, cells, command, explained, run

from ensemble_kd.data.fashion_mnist import NAMES

RAW, PAGE = DOCS / "label_spaces.csv", DOCS / "label_spaces.md"

HALVES = (NAMES[0::2], NAMES[1::2])
COARSE = (("T-shirt/top", "Pullover", "Coat", "Shirt"), ("Sandal", "Sneaker", "Ankle boot"))
REST = ("Trouser", "Dress", "Bag")
ALONE = "objective.label_weight=0"


def member(classes: object) -> str:
    """A teacher with classes of its own, as an override has it."""
    return f"{{network: cnn_medium, classes: {classes}}}"


def quoted(classes: tuple[str, ...]) -> str:
    return "[" + ",".join(f"'{name}'" for name in classes) + "]"


def teachers(*members: str) -> str:
    return f"teacher.members=[{','.join(members)}]"


def study() -> Study:
    halves = teachers(*(member(quoted(half)) for half in HALVES))
    whole = teachers("cnn_medium", "cnn_medium")
    groups = "[" + ",".join([*map(quoted, COARSE), *(f"'{name}'" for name in REST)]) + "]"
    settings = {
        "oracle: two teachers of all classes": (whole,),
        "two teachers of one half each": (halves,),
        "one half, the other half, and a coarse one": (
            teachers(*(member(quoted(half)) for half in HALVES), member(groups)),
        ),
        "oracle, from the teachers alone": (whole, ALONE),
        "halves, from the teachers alone": (halves, ALONE),
    }
    common = (*COMMON, "student=cnn_small", "epochs=10")
    return Study(
        RAW,
        {name: (*common, *own) for name, own in settings.items()},
        {CONTROL: "control/no_teacher", "the oracle's teachers together": "ensemble"},
    )


def report() -> None:
    found = by_setting(RAW)
    mean = {name: 100 * float(np.mean(list(values.values()))) for name, values in found.items()}
    oracle = "oracle: two teachers of all classes"
    lines = [
        "# Measured: teachers that know one half of the classes",
        "",
        "Written by `python benchmarks/label_spaces.py report`; the raw figures are in",
        "[label_spaces.csv](label_spaces.csv).",
        "",
        "- Fashion-MNIST, 1,800 labelled training images, 10 epochs, the student `cnn_small`;",
        "  teachers: `cnn_medium`, each trained on the images of its own classes.",
        f"- The halves are {', '.join(HALVES[0])}; and {', '.join(HALVES[1])}.",
        f"- The coarse teacher calls {', '.join(COARSE[0])} one class, and {', '.join(COARSE[1])}.",
        "- From the teachers alone: no term for labels; a label only decides which half speaks,",
        "  and rules out the classes of the other.",
        *explained(len(found[CONTROL])),
        "",
        "| student | accuracy | against no teachers | p | against the oracle | p |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(mean, key=lambda each: -mean[each]):
        row = [name if name in study().settings else f"*{name}*", f"{mean[name]:.2f}"]
        for reference in (CONTROL, oracle):
            compared = name != reference and name in study().settings
            row += cells(found[name], found[reference]) if compared else ["", ""]
        lines.append(f"| {' | '.join(row)} |")
    PAGE.write_text("\n".join(lines) + "\n")
    print(PAGE.read_text())


def main() -> None:
    command(__doc__, lambda seeds, folder: run(study(), seeds, folder), report)


if __name__ == "__main__":
    main()
