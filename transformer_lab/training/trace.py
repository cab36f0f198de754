"""What the time of a step is spent on: `hardware.profile=trace`."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch.profiler import ProfilerActivity, profile

log = logging.getLogger(__name__)
SHOWN = 10  # operators, the longest first


class Trace(Callback):
    """Every operator of some steps, in `profile/steps-FIRST-LAST.json.gz` of the run's folder; the longest in its log.

    The file is in Chrome's trace format: https://ui.perfetto.dev or chrome://tracing shows it. The first steps are left
    out, as they also allocate and compile; a step that is traced takes longer than others.
    """

    def __init__(self, *, folder: Path, skip: int = 3, count: int = 3) -> None:
        self.folder, self.skip, self.count = folder / "profile", skip, count
        self.seen = 0
        self.running: profile | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if self.seen == self.skip:
            cuda = [ProfilerActivity.CUDA] if pl_module.device.type == "cuda" else []
            self.running = profile(activities=[ProfilerActivity.CPU, *cuda])
            self.running.start()
        self.seen += 1

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if self.running and self.seen == self.skip + self.count:
            self._write(pl_module.progress.step)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self.running:  # the run was shorter
            self._write(pl_module.progress.step)
        elif self.seen <= self.skip:
            log.warning(
                "hardware.profile: no step was traced; the first %s are left out, and the run has had %s",
                self.skip,
                self.seen,
            )

    def _write(self, step: int) -> None:
        running, self.running = self.running, None
        assert running
        running.stop()
        traced = self.seen - self.skip
        self.folder.mkdir(exist_ok=True)
        file = self.folder / f"steps-{step - traced + 1}-{step}.json.gz"
        running.export_chrome_trace(str(file))
        found = running.key_averages()
        on_device = any(one.self_device_time_total for one in found)
        times = {one.key: one.self_device_time_total if on_device else one.self_cpu_time_total for one in found}
        whole = sum(times.values()) or 1.0
        longest = sorted(times, key=times.__getitem__, reverse=True)[:SHOWN]
        log.info(
            "Steps %s to %s are traced in %s (https://ui.perfetto.dev shows it); the time on the %s went to %s",
            step - traced + 1,
            step,
            file,
            "device" if on_device else "CPU",
            ", ".join(f"{key} {times[key] / whole:.0%}" for key in longest),
        )
