"""What `plan=true` says against what runs of six configs then take: memory beyond the imports, time and FLOPs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.loops import Ours
from benchmarks.measure import resident
from benchmarks.setting import config

CASES = {
    "language_modeling": ("task=language_modeling",),
    "language_modeling, 6 layers of 256, AdamW": (
        "task=language_modeling",
        "model.dim=256",
        "model.num_layers=6",
        "optimizer=adamw",
        "tokens_per_step=4096",
    ),
    "classification, width 256": ("task=classification", "model.dim=256"),
    "mlm_nsp, width 256": ("task=mlm_nsp", "model.dim=256", "tokens_per_step=4096"),
    "translation": ("task=translation",),
    "language_modeling, width 384, activation checkpointing": (
        "task=language_modeling",
        "model.dim=384",
        "hardware.activation_checkpointing=true",
    ),
}


def table() -> list[dict[str, Any]]:
    """A line for each config: planned, measured and their ratio."""
    lines = []
    for name in CASES:
        words = [sys.executable, "-m", "benchmarks.planning", name]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
        planned, measured = json.loads(done.stdout.splitlines()[-1])
        ratios = {
            what: f"{planned[what]:,.1f} / {measured[what]:,.1f} = {planned[what] / measured[what]:.2f}"
            for what in planned
        }
        lines.append({"config": name, **ratios})
    return lines


def main(name: str) -> None:
    from transformer_lab.composition.build import build, build_optimizer
    from transformer_lab.run.assembly import build_loaders
    from transformer_lab.run.estimate import estimate
    from transformer_lab.run.preparation import prepare_task
    from transformer_lab.training.progress import Progress

    values = config("hardware=cpu", *CASES[name])
    machine, made = build(values["hardware"]), prepare_task(values, weightless=True)
    loaders, budget = build_loaders(values, made.task, made.store, machine, Progress())
    planned = estimate(made.task, build_optimizer(values["optimizer"], made.task), loaders, budget, machine)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # from here on the most is counted
    run = Ours(name, values, made.task.tokenizer, made.store.splits["train"], made.facts)
    if machine.activation_checkpointing:
        run.task.model.checkpoint_activations()
    run.run(3)
    pace = min((run.run(8) for _ in range(2)), key=lambda pace: pace.seconds / pace.items)
    flops = run.module.speed.flops_per_token
    found = {
        "MB": resident("VmHWM") - before,
        "microseconds a token": 1e6 * pace.seconds / pace.items,
        "million FLOPs a token": flops / 1e6,
    }
    counted = planned.flops_per_token * (0.75 if machine.activation_checkpointing else 1)
    said = {
        "MB": planned.memory / 2**20,
        "microseconds a token": 1e6 * planned.step_seconds / planned.tokens_per_step,
        "million FLOPs a token": counted / 1e6,
    }
    print(json.dumps([said, found]))


if __name__ == "__main__":
    main(sys.argv[1])
