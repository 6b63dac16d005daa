"""How long until something answers: ``--help`` and ``import ensemble_kd`` against ``import hydra``.

Run it as ``python benchmarks/startup.py [ROUNDS]``. Each round starts one fresh process of every
kind, so that a slow moment of the machine meets all of them; the medians are compared.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from timing import publish, table

BASELINE = "import hydra"
COMMANDS = {
    "python": ["-c", ""],
    BASELINE: ["-c", "import hydra"],
    "import ensemble_kd": ["-c", "import ensemble_kd"],
    "ensemble_kd --help": ["-m", "ensemble_kd", "--help"],
}


def measure(rounds: int) -> dict[str, float]:
    """Median seconds from start to end of a process, for each of ``COMMANDS``."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            if number:  # the first round fills the caches of the file system
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    medians = measure(rounds)
    rows = [
        [f"`{name}`", f"{1000 * median:.0f} ms", f"{median / medians[BASELINE]:.2f}"]
        for name, median in medians.items()
    ]
    columns = ("process", f"median of {rounds}", f"wall, to `{BASELINE}`")
    publish("startup", table(columns, rows))


if __name__ == "__main__":
    main()
