"""Progress of a run: speed and waiting time, shown in one live line or in plain lines."""

from __future__ import annotations

import contextlib
import datetime
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from rich import console, progress

from jdet.train.output import Lenient


class Stopwatch:
    """Measures the time of training steps, without evaluations, saving and compilation.

    The clock runs between ``resume`` and ``pause``; compilation, evaluation and saving happen while
    it is paused. Besides the whole it keeps the stretch since the last ``lap``.
    """

    def __init__(self):
        self.steps, self.seconds, self.waited = 0, 0.0, 0.0
        self._lap = (0, 0.0, 0.0)
        self._since: float | None = None

    def resume(self) -> None:
        """Starts the clock."""
        if self._since is None:
            self._since = time.perf_counter()

    def pause(self) -> None:
        """Stops the clock."""
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    @contextlib.contextmanager
    def paused(self):
        """Stops the clock for a while, if it runs."""
        running = self._since is not None
        self.pause()
        try:
            yield
        finally:
            if running:
                self.resume()

    @contextlib.contextmanager
    def waiting(self):
        """Counts the time inside as waiting for input, if the clock runs."""
        begin = time.perf_counter()
        yield
        if self._since is not None:
            self.waited += time.perf_counter() - begin

    def step(self) -> None:
        """Counts a step, if the clock runs."""
        self.steps += self._since is not None

    def rates(self, batch_size: int) -> tuple[float, float]:
        """Images per second and share of the time spent waiting for input, of the whole run."""
        seconds = self._seconds()
        if not self.steps or not seconds:
            return 0.0, 0.0
        return self.steps * batch_size / seconds, self.waited / seconds

    def lap(self, batch_size: int) -> tuple[float, float]:
        """As ``rates``, since the last lap; starts a new one."""
        now = self.steps, self._seconds(), self.waited
        steps, seconds, waited = (a - b for a, b in zip(now, self._lap, strict=True))
        self._lap = now
        if not steps or not seconds:
            return 0.0, 0.0
        return steps * batch_size / seconds, waited / seconds

    def seconds_per_step(self) -> float:
        """Mean over the whole run; 0 before the first step."""
        return self._seconds() / self.steps if self.steps else 0.0

    def _seconds(self) -> float:
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self.seconds + running


class Outlook(NamedTuple):
    """What a run is a part of.

    Attributes:
        label: of the run, such as "phase 1/2 pretrain".
        behind: work that is done before it, in steps of this run.
        ahead: work that follows it, likewise.
    """

    label: str
    behind: float
    ahead: float


class Progress:
    """Step, loss, speed, data-wait share and time left.

    On a terminal they are one line that stays in place; elsewhere a line is printed whenever numbers
    are logged. Messages appear above the live line.
    """

    def __init__(
        self,
        steps: int,
        *,
        enabled: bool = True,
        file: Any = None,
        outlook: Outlook | None = None,
    ):
        """Shows nothing until the first ``advance`` or ``say``.

        Args:
            steps: of the run.
            enabled: False on all processes but one.
            file: stream to write to; None: standard output.
            outlook: what the run is a part of; the time left is then that of all of it.
        """
        self._steps, self._outlook = steps, outlook
        self._enabled = enabled
        stream = sys.stdout if file is None else file
        out: Any = stream
        if not isinstance(stream, Lenient):
            out = Lenient(stream, "standard output", sys.stderr)
        self._console = console.Console(file=out, highlight=False)
        self._live: progress.Progress | None = None
        if enabled and self._console.is_terminal and not self._console.is_jupyter:
            self._live = progress.Progress(
                progress.TextColumn(
                    f"{outlook.label + '  ' if outlook else ''}"
                    "step {task.completed:.0f}/{task.total:.0f}"
                ),
                progress.BarColumn(),
                progress.TextColumn("{task.fields[text]}"),
                console=self._console,
                transient=True,
            )
            self._task = self._live.add_task("", total=steps, text="compiling")

    def say(self, text: str) -> None:
        """Prints a message."""
        if self._enabled:
            self._console.print(text, markup=False, soft_wrap=True)

    def advance(self, step: int, loss: float, watch: Stopwatch, batch_size: int) -> None:
        """Moves the live line to ``step``; does nothing without one."""
        if self._live is not None:
            pace = self._pace(step, *watch.rates(batch_size), watch)
            self._live.start()
            self._live.update(self._task, completed=step, text=f"loss {loss:.4g}{pace}")

    def log(
        self, step: int, values: Mapping[str, float], speed: float, wait: float, watch: Stopwatch
    ) -> None:
        """Prints the numbers of a step if there is no live line; ``lap`` gives speed and waiting time."""
        if self._live is None:
            parts = ", ".join(
                f"{name.removeprefix('loss/')} {value:.4g}"
                for name, value in values.items()
                if name.startswith("loss/")
            )
            label = f"{self._outlook.label}  " if self._outlook else ""
            self.say(
                f"{label}step {step}/{self._steps}  loss {values['loss']:.4g} ({parts})  "
                f"lr {values['lr']:.4g}{self._pace(step, speed, wait, watch)}"
            )

    def _pace(self, step: int, speed: float, wait: float, watch: Stopwatch) -> str:
        if not speed:
            return ""
        behind, ahead = (self._outlook.behind, self._outlook.ahead) if self._outlook else (0, 0)
        steps = self._steps - step + ahead
        left = datetime.timedelta(seconds=round(steps * watch.seconds_per_step()))
        whole = behind + self._steps + ahead
        share = f"  {(behind + step) / whole:.0%} of all phases" if self._outlook else ""
        return f"  {speed:.1f} img/s  data wait {wait:.0%}{share}  ETA {left}"

    def close(self) -> None:
        """Removes the live line."""
        if self._live is not None:
            self._live.stop()
