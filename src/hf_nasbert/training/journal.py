"""What a run says while it runs: a progress bar, a log of records, and a tracker. Only the main process speaks."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from hf_nasbert import records

if TYPE_CHECKING:
    from accelerate import Accelerator

LOG = "train_log.jsonl"


class Journal:
    """Tells people, the log and the tracker how a run goes.

    Args:
        accelerator: Knows the main process and the tracker.
        output_dir: Where the log lies.
        max_steps: Steps of the whole run.
        initial_step: Steps that were made before.
        description: Words before the progress bar.
        show_progress: Whether there is a progress bar.
    """

    def __init__(
        self,
        accelerator: "Accelerator",
        output_dir: str | Path,
        *,
        max_steps: int,
        initial_step: int,
        description: str,
        show_progress: bool,
    ) -> None:
        self.accelerator = accelerator
        self.path = Path(output_dir) / LOG
        self.bar = tqdm(
            total=max_steps,
            initial=initial_step,
            desc=description,
            unit="step",
            dynamic_ncols=True,
            # Into a file, where every refresh is a line, no more than two a minute.
            mininterval=0.1 if sys.stderr.isatty() else 30,
            disable=not (show_progress and accelerator.is_main_process),
        )
        self._since = time.perf_counter()
        self._paused = 0.0
        self._num_tokens = 0

    def record(self, event: str, **content: Any) -> None:
        """Append one record to the log."""
        if self.accelerator.is_main_process:
            records.append(self.path, {"event": event, **content})

    def advance(self, num_tokens: int, **shown: Any) -> None:
        """One optimizer step was made, on so many tokens."""
        self._num_tokens += num_tokens
        self.bar.set_postfix({**shown, "tok/s": f"{self.tokens_per_second():,.0f}"}, refresh=False)
        self.bar.update()

    def tokens_per_second(self) -> float:
        """Speed of training since the last measurement, pauses not counted."""
        return self._num_tokens / max(time.perf_counter() - self._since - self._paused, 1e-9)

    def measure(self, step: int, measurements: Mapping[str, float], **content: Any) -> dict[str, float]:
        """Write one line of measurements to log and tracker, and measure the speed anew; returns them all."""
        measurements = {**measurements, "tokens_per_second": round(self.tokens_per_second(), 1)}
        self.record("train", step=step, **measurements, **content)
        self.track(step, measurements)
        self._since, self._paused, self._num_tokens = time.perf_counter(), 0.0, 0
        return measurements

    def track(self, step: int, measurements: Mapping[str, float]) -> None:
        """Send numbers to the tracker, if there is one."""
        self.accelerator.log(dict(measurements), step=step)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time in here does not count as training."""
        began = time.perf_counter()
        yield
        self._paused += time.perf_counter() - began

    def say(self, text: str) -> None:
        """One line above the progress bar."""
        if self.accelerator.is_main_process and not self.bar.disable:
            self.bar.write(text)

    def close(self) -> None:
        """End the progress bar and the trackers; unlike `Accelerator.end_training`, not the process group."""
        self.bar.close()
        for tracker in self.accelerator.trackers:
            tracker.finish()


@dataclass
class Window:
    """Sums over the steps since the last line of the log. Part of a checkpoint, so that a resumed log is the same."""

    num_steps: int = 0
    loss: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)
    grad_norm: float | None = None
    learning_rate: float = 0.0

    def add(self, loss: float, terms: Mapping[str, float], grad_norm: float | None, learning_rate: float) -> None:
        """Count one step."""
        self.num_steps += 1
        self.loss += loss
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value
        if grad_norm is not None and math.isfinite(grad_norm):  # fp16 passes over steps where it is not
            self.grad_norm = (self.grad_norm or 0.0) + grad_norm
        self.learning_rate = learning_rate

    def means(self) -> dict[str, float]:
        """Means over the window, and the last learning rate."""
        sums = {"loss": self.loss, **self.terms, "grad_norm": self.grad_norm}
        means = {name: total / self.num_steps for name, total in sums.items() if total is not None}
        return {**means, "learning_rate": self.learning_rate}


def read_log(output_dir: str | Path) -> list[dict[str, Any]]:
    """The log of a run without what was undone: steps after the checkpoint that a killed run went on from.

    The log itself is append-only, so those steps stand in it twice.

    Raises:
        FileNotFoundError: If there is no log.
        ValueError: If a record of it is no event of a training run.
    """
    kept: list[dict[str, Any]] = []
    path = Path(output_dir) / LOG
    for number, record in enumerate(records.read(path), start=1):
        if not isinstance(record.get("event"), str) or not _is_step(record.get("step", 0)):
            raise ValueError(f"{path}, record {number} is no event of a training run: its event or step is none")
        if record["event"] == "start":
            kept = []
        elif record["event"] == "resume":
            kept = [earlier for earlier in kept if earlier.get("step", 0) <= record.get("step", 0)]
        kept.append(record)
    return kept


def _is_step(value: Any) -> bool:
    return type(value) is int and value >= 0


def trackable(settings: Mapping[str, Any]) -> dict[str, int | float | str | bool]:
    """Settings in the types that every tracker takes."""
    plain = (int, float, str, bool)
    return {key: value if isinstance(value, plain) else str(value) for key, value in settings.items()}


def shortened(text: str, limit: int = 32) -> str:
    """An architecture in few characters, for the progress bar."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
