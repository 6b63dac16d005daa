from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ensemble_kd.cache import Shelf, verify


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


CHILD = """
    import sys
    from pathlib import Path
    import torch
    from ensemble_kd.cache import Float32, Shelf

    def fill(root, key):
        shelf = Shelf(root, 50_000)
        form, index = Float32(), torch.arange(3000)
        with shelf.locked(key):
            writer = shelf.writing(key, {}, index, 4, (300,), form)
            for view, start, stop in writer.missing(64):
                rows = index[start:stop]
                said = torch.sin(rows[:, None] * 0.7 + torch.arange(300) + view)
                writer.write(view, start, form.encode(said, rows, rows))
                print(view, start, stop, flush=True)
            writer.finish()

    fill(Path(sys.argv[1]), sys.argv[2])
"""


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    script = textwrap.dedent(CHILD)
    written: list[str] = []
    for lives in (20, 45):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(killed), key], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        written += [process.stdout.readline() for _ in range(lives)]
        process.send_signal(signal.SIGKILL)
        written += process.communicate()[0].splitlines(keepends=True)
        assert process.returncode == -signal.SIGKILL
        assert Shelf(killed).find(key) is None
        # As cruel as it gets: half a line of a piece that is half there.
        for journal in (killed / ".unfinished" / key[:32] / "journals").iterdir():
            with journal.open("ab") as file:
                file.write(b"3 64 12")
    # The second process did not begin anew, and lost at most what the first one did not report.
    assert len(set(written)) == len(written) >= 65
    for root in (killed, whole):
        monkeypatch.setattr(sys, "argv", ["", str(root), key])
        exec(compile(script, "child", "exec"), {})
        verify(root / key[:32])
    assert content(killed / key[:32]) == content(whole / key[:32])
