"""What a run's folder holds, fit to be shown; nothing of it is built."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer_lab.training import saved


@dataclass(frozen=True)
class Contents:
    checkpoints: list[tuple[int, str, int, str]]  # step, "whole" or what is wrong, bytes, what leads there
    tables: dict[str, dict[str, Any]]
    parameters: dict[str, tuple[int, str]]  # how many numbers, of which type
    config: str


def contents(run: str, link: str) -> Contents:
    """Of a run, and of the checkpoint that `link` (best or last) leads to; of the newest whole one where that is
    damaged.

    Raises ValueError where there is none.
    """
    folder = Path(run) / "checkpoints"
    found = saved.steps(folder)
    if not found:
        raise ValueError(f"run: {run} is not the folder of a run, or it holds no checkpoint yet")
    marks = {path: ", ".join(n for n in ("last", "best") if (folder / n).resolve() == path.resolve()) for path in found}
    wrong = {path: saved.damage(path) for path in found}
    listed = [
        (saved.step_of(path), wrong[path] or "whole", sum(f.stat().st_size for f in path.iterdir()), marks[path])
        for path in reversed(found)
    ]
    chosen = next((path for path in found if link in marks[path].split(", ")), None)
    title = f"{link} checkpoint"
    if chosen is None or wrong[chosen]:
        chosen, title = next((path for path in found if not wrong[path]), None), "newest whole checkpoint"
    if chosen is None:
        states = "; ".join(f"step {step}: {state}" for step, state, *_ in listed)
        raise ValueError(f"run: no checkpoint of {run} is whole ({states})")
    with saved.as_saved(chosen):
        progress = saved.read_progress(chosen)
        best = progress["best"] or {"step": None, "metrics": {}}
        tables = {
            title: {
                "step": progress["step"],
                "tokens": f"{progress['tokens']:,}",
                "seconds": round(progress["seconds"], 1),
                "skipped_steps": progress["skipped"],
            },
            f"best validation, step {best['step']}": dict(best["metrics"]),
        }
        return Contents(listed, tables, saved.sizes(chosen), (chosen / "config.yaml").read_text(encoding="utf-8"))
