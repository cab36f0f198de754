"""How well a trained model does on a split, or on a file of your own: `transformer-lab evaluate run=RUN_DIR`."""

import json
import re
import sys
from typing import Any, Literal

from transformer_lab.terminal import USUAL_CACHE


def main(
    *,
    run: str,
    split: Literal["train", "validation", "test"] = "test",
    file: str | None = None,
    hardware: Literal["auto", "cpu", "gpu"] = "auto",
    output: str | None = None,
    cache_dir: str = USUAL_CACHE,
    data: dict[str, Any] = {},  # noqa: B006 - never changed
    task: dict[str, Any] = {},  # noqa: B006 - never changed
    extensions: list[str] = [],  # noqa: B006 - never changed
) -> None:
    """Evaluate the best weights of a run and print the metrics as JSON, with the intervals that they surely lie in.

    run: the folder of the run
    split: which split of the run's data
    file: all of this file instead: text, or a table (.csv, .tsv, .jsonl, .parquet) with the columns of the run's data
    hardware: auto takes the GPU if there is one
    output: where tables, the hardest texts and pictures go, such as reports/test: its .md, .json and .png
    cache_dir: where prepared data lie
    data: data.path=… where the run's data are no longer prepared, or were never yours; data.KEY=… how a file is read
    task: task.beam_size=…, task.length_penalty=… and the like: options that the run may have otherwise
    extensions: packages of your own that the run was trained with
    """
    from transformer_lab.finished.loaded_run import evaluate_file, evaluate_run, load_run
    from transformer_lab.folders import place_for
    from transformer_lab.training.evaluation_report import write

    place = None if output is None else place_for(output)
    loaded = load_run(run, extensions, task)
    loaded.config["cache_dir"] = cache_dir  # a stranger's run does not choose where something is written
    found = evaluate_run(loaded, split, hardware, data) if file is None else evaluate_file(loaded, file, hardware, data)
    scores = json.dumps({file or split: found.metrics, "intervals": found.intervals}, indent=2)
    print(re.sub(r"\[\s+(\S+)\s+(\S+)\s+\]", r"[\1 \2]", scores))  # an interval in a line
    if place:
        for written in write(found, place):
            print(f"written: {written}", file=sys.stderr)
