"""What a run has reached: which of two validations is better, and what stands in a run's folder."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

CONFIDENCE = 0.95  # of an interval
METRICS = "metrics.json"
CURVES = "curves.csv"  # of a run: step, name, value
LOSSES = ("loss", "mse", "perplexity", "bits_per_byte")  # metrics whose names end so: the less, the better
EVALUATIONS = "evaluation"  # in a run's folder: what was found of each split, as text, JSON and pictures


def height(metrics: dict[str, float], by: str) -> float:
    """The metric `by`, turned so that more is better; what is not a number is worse than any."""
    value = -metrics[by] if by.endswith(LOSSES) else metrics[by]
    return -math.inf if math.isnan(value) else value


def rank(metrics: dict[str, float], by: str) -> tuple[float, float]:
    """The validation that ranks highest is the best; of those with an equal score, the one with the least loss."""
    return height(metrics, by), height(metrics, "loss")


def metrics_of(folder: Path) -> dict[str, Any]:
    """What `runs.conclude` wrote there; empty for a run that has not ended."""
    file = folder / METRICS
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def interval_of(metrics: dict[str, Any], score: str) -> str:
    """Between which values a score such as "test loss" surely lies, in brackets; "" where none is known."""
    split, _, name = score.partition(" ")
    interval = metrics.get("intervals", {}).get(split, {}).get(name)
    return f" ({between(*interval)})" if interval else ""


def between(low: float, high: float) -> str:
    return f"{low:.4g} to {high:.4g}"


def middle(values: np.ndarray) -> tuple[float, float]:
    """Between what and what the middle of the values lies, `CONFIDENCE` of them; what is no number is left out."""
    low, high = np.nanquantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def scores_of(metrics: dict[str, Any]) -> dict[str, float]:
    """The scores in `metrics`, each by its split and name, such as "validation loss"."""
    return {
        f"{split} {name}": value for split in ("validation", "test") for name, value in metrics.get(split, {}).items()
    }
