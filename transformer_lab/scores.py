"""What a run has reached, read from its folder."""

import json
from pathlib import Path
from typing import Any

METRICS = "metrics.json"


def metrics_of(folder: Path) -> dict[str, Any]:
    """What `runs.conclude` wrote there; empty for a run that has not ended."""
    file = folder / METRICS
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def scores_of(metrics: dict[str, Any]) -> dict[str, float]:
    """The scores in `metrics`, each by its split and name, such as "validation loss"."""
    return {f"{split} {name}": value for split in ("validation", "test")
            for name, value in metrics.get(split, {}).items()}  # fmt: skip
