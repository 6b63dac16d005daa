"""What the terminal shows while the stages of a run are trained."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from lightning_fabric.utilities import rank_zero_only
from pytorch_lightning import Callback, LightningModule, Trainer

from ensemble_kd.report.console import open_console

METRIC = "student/val_accuracy"
INTERVAL = 0.1  # seconds between two updates of the bar, at least


class StageProgress(Callback):
    """One line for each stage, and a bar above it while it is trained if somebody can watch.

    On a terminal the bar shows stage, epoch and time left and makes way for the line at the end.
    Elsewhere nothing moves: the line is begun when the training starts and completed when it ends.

    Args:
        number: of the stage, from 1.
        total: number of stages.
        name: of the stage.
        epochs: how many it has.
        file: where to; standard output, as it is when something is written, unless given.
    """

    def __init__(
        self, number: int, total: int, name: str, epochs: int, file: TextIO | None = None
    ) -> None:
        self.place = f"[{number:>{len(str(total))}}/{total}] {name}"
        self.epochs = epochs
        self._file = file
        self._bar: _Bar | None = None
        self._open = False
        self._started = 0.0
        self._where = ""
        self._notes: list[str] = []

    def reused(self, digest: str) -> None:
        """Say that the stage was found in the store.

        Args:
            digest: key of its artefact.
        """
        self._say(f"{self.place}  reused (digest {digest[:8]})\n")

    def waiting(self) -> None:
        """Say that another run is at work on this stage, and that this one waits for it."""
        self._say(f"{self.place}  waits for another run that is at work on it\n")

    @contextmanager
    def answering(
        self, teachers: Sequence[str], views: int, samples: int
    ) -> Iterator[Callable[[float], None]]:
        """Show how far teachers have come that answer once for all, and say when they are done.

        Args:
            teachers: their names.
            views: inputs of each sample.
            samples: how many there are.

        Yields:
            What to call with the share that is done, in [0, 1].
        """
        started = time.perf_counter()
        of = f"{views} views of {samples:,}" if views > 1 else f"{samples:,}"
        doing = f"{self.place}  {', '.join(teachers)} {{}} once: {of} samples"
        bar = _Bar.on_terminal(self._file, doing.format("answering"), 1.0)
        try:
            yield (lambda share: None) if bar is None else (lambda share: bar.move(share, ""))
        finally:
            if bar is not None:
                bar.stop()
        took = _duration(time.perf_counter() - started)
        self._say(f"{doing.format('answered')}  {took}\n")
        self._say_notes()

    def announced(self, text: str) -> None:
        """Keep a line until the stage has ended.

        Args:
            text: one line.
        """
        self._notes.append(text)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the bar, or begin the line."""
        self._started = time.perf_counter()
        self._where = _where(trainer)
        if not trainer.is_global_zero:
            return
        self._bar = _Bar.on_terminal(
            self._file, self.place, self.epochs * trainer.num_training_batches
        )
        if self._bar is None:
            self._say(self._beginning())
            self._open = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        if self._bar is not None:
            done = trainer.current_epoch * trainer.num_training_batches + batch_idx + 1
            self._bar.move(done, f"epoch {trainer.current_epoch + 1}/{self.epochs}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complete the line."""
        seconds = time.perf_counter() - self._started
        value = trainer.callback_metrics.get(METRIC)
        accuracy = "" if value is None else f"  val accuracy {float(value):.3f}"
        self._complete(f"{accuracy}  {_duration(seconds)}")
        self._say_notes()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so where an earlier attempt had trained the stage to its end."""
        if not self._started:
            self._say(f"{self.place}  continues after its last epoch\n")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal fit for whoever prints next."""
        if self._bar is not None or self._open:
            self._complete(f"  stopped in epoch {trainer.current_epoch + 1}")

    def _say_notes(self) -> None:
        notes, self._notes = self._notes, []
        for note in notes:
            self._say(f"{self.place}  teachers: {note}\n")

    def _beginning(self) -> str:
        epochs = f"{self.epochs} epoch{'s' if self.epochs != 1 else ''}"
        return f"{self.place}  {self._where or epochs} ..."

    def _complete(self, end: str) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._say(self._beginning())
        self._say(end + "\n")
        self._bar, self._open = None, False

    @rank_zero_only
    def _say(self, text: str) -> None:
        file = self._file or sys.stdout
        file.write(text)
        file.flush()


class _Bar:
    """A bar on a terminal, drawn anew at most once in ``INTERVAL`` and by no thread of its own."""

    def __init__(self, console: Any, doing: str, total: float) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[where]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        known = total if total != float("inf") else None
        self._task = self._progress.add_task(doing, total=known, where="")
        self._drawn = time.monotonic()
        self._progress.start()

    @classmethod
    def on_terminal(cls, file: TextIO | None, doing: str, total: float) -> _Bar | None:
        """A bar, unless there is no terminal to draw it on."""
        console = open_console(file)
        return cls(console, doing, total) if console.is_terminal else None

    def move(self, done: float, where: str) -> None:
        """Say how much is done; often no more than one comparison."""
        now = time.monotonic()
        if now - self._drawn >= INTERVAL:
            self._drawn = now
            self._progress.update(self._task, completed=done, where=where, refresh=True)

    def stop(self) -> None:
        """Remove the bar."""
        self._progress.stop()


def _where(trainer: Trainer) -> str:
    """Where a training goes on that was cut off; nothing for one that begins."""
    epoch = trainer.current_epoch
    batch = trainer.fit_loop.epoch_loop.batch_progress.current.completed
    if not (epoch or batch):
        return ""
    return f"continues from epoch {epoch + 1}, batch {batch + 1}"


def _duration(seconds: float) -> str:
    """3.1 s, or 2 min 05 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
