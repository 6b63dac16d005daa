"""``python -m ensemble_kd``: compose, check, then run as a Hydra job.

Everything that can be wrong is found before Hydra makes a folder: the configuration is composed and
planned once, outside the job, and a single run is then handed that very plan.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main() -> None:
    """The command line. Exit status 2 for a user's mistake, 130 for Ctrl-C."""
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        from ensemble_kd.command_line import help_text

        print(help_text(arguments))
        return
    if "--version" in arguments:
        from ensemble_kd.version import __version__

        print(f"ensemble_kd {__version__}")
        return
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str]) -> int:
    from ensemble_kd.commands import full_disk
    from ensemble_kd.distributed.ranks import Told, is_first
    from ensemble_kd.errors import UserError
    from ensemble_kd.job import launch

    try:
        launch(arguments)
    except UserError as mistake:
        if not isinstance(mistake, Told):
            print(f"error: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        where = f" in stage {stop}" if str(stop) else ""
        if is_first():
            print(
                f"interrupted{where}: finished stages are kept in the store, and so is "
                "the last checkpoint of this one; the same command goes on from there",
                file=sys.stderr,
            )
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone; without this, Python would complain on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as failure:
        if (said := full_disk(failure)) is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    main()
