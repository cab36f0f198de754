"""How far a run has come and when it ends: what a checkpoint keeps besides weights and optimizer."""

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Best:
    """The validation that scored best so far: its step and everything it reported."""

    step: int
    metrics: dict[str, float]


@dataclass
class Window:
    """What happened since the last point of the training curves."""

    losses: dict[str, float] = field(default_factory=dict)  # each summed over its targets
    num_targets: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0

    def means(self) -> dict[str, float]:
        """Each loss per target."""
        return {name: loss / self.num_targets[name] for name, loss in self.losses.items() if self.num_targets[name]}


@dataclass
class Progress:
    """Counters of a run, over all its resumptions."""

    step: int = 0  # optimizer steps done
    tokens: int = 0  # tokens they held, over all devices
    seconds: float = 0.0  # spent in training steps, without validation
    skipped: int = 0  # steps whose loss or gradient was not finite
    skipped_in_a_row: int = 0
    validation_due: bool = False  # the step is done, the validation that follows it is not
    stopped: bool = False  # by a callback, before the limits of the run
    window: Window = field(default_factory=Window)
    best: Best | None = None

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        inner = {"window": Window(**state["window"]), "best": Best(**state["best"]) if state["best"] else None}
        for name, value in (state | inner).items():
            setattr(self, name, value)


class Budget:
    """The end of a run: the first limit reached. `total_steps` is None if only time limits it.

    Raises ValueError where there is no limit, or one that leaves no step.
    """

    def __init__(
        self,
        *,
        steps_per_epoch: int,
        tokens_per_epoch: int,
        max_steps: int | None,
        max_epochs: int | None,
        max_tokens: int | None,
        max_minutes: float | None,
    ) -> None:
        limits = {
            "max_steps": max_steps,
            "max_epochs": None if max_epochs is None else max_epochs * steps_per_epoch,
            "max_tokens": None if max_tokens is None else max_tokens * steps_per_epoch // tokens_per_epoch,
        }
        steps = {name: limit for name, limit in limits.items() if limit is not None}
        if not steps and max_minutes is None:
            raise ValueError("max_steps: no limit is set; give max_steps, max_epochs, max_tokens or max_minutes")
        for name, limit in steps.items():
            if limit < 1:
                each = round(tokens_per_epoch / steps_per_epoch)
                raise ValueError(f"{name}: too small for a single step, which holds {each:,} tokens")
        self.tokens_per_step = tokens_per_epoch / steps_per_epoch
        self.total_steps: int | None = min(steps.values()) if steps else None
        self.seconds = math.inf if max_minutes is None else 60 * max_minutes
        self.started = time.monotonic()

    def out_of_steps(self, progress: Progress) -> bool:
        return self.total_steps is not None and progress.step >= self.total_steps

    def out_of_time(self) -> bool:
        """Minutes are those of this process."""
        return time.monotonic() - self.started > self.seconds
