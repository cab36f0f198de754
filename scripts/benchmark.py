"""How fast it is: `python scripts/benchmark.py`, side by side with the libraries that people would use instead."""

from pathlib import Path
from typing import Literal

from transformer_lab.composition.problems import unknown
from transformer_lab.composition.script import answer

WORKS = (
    "language_modeling",
    "mlm_nsp",
    "classification",
    "translation",
    "decoding",
    "overhead",
    "loading",
    "storing",
    "starting",
    "answering",
)


def main(
    *,
    work: str = "all",
    peers: str = "all",
    nanogpt: str = "",
    against: str | None = None,
    size: str = "small",
    hardware: str = "cpu",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    rounds: int = 5,
    steps: int = 0,
    scaling: bool = False,
    planning: bool = False,
    output: str = "docs/benchmarks",
) -> None:
    """Measure work of this project and of other libraries in alternating rounds, and write a table of it.

    work: what to measure, separated by commas, or all of it
    peers: parts of the names of other libraries, separated by commas; all that are there (.[benchmark]), or none
    nanogpt: the folder of a clone of nanoGPT (github.com/karpathy/nanoGPT), which is no package
    against: the folder of an older clone of this project, whose own code is measured too, in a process of its own
    size: of the models: small, or a published one (gpt2, 1b, bert, minilm, base)
    hardware: as in train.py: cpu, gpu, auto
    precision: as hardware.precision in train.py
    rounds: rounds in which each contender comes once; ratios are those of the same round
    steps: steps of a round; 0 for as many as take about three seconds
    scaling: measure cost by the size of the corpus too, which takes minutes and a gigabyte of disk
    planning: measure what plan=true says against what runs then take, too
    output: the folder for the table as JSON and Markdown, after each row; all of it takes about an hour
    """
    works = _chosen(work)
    if "nanogpt" in peers.split(",") and not nanogpt:
        raise ValueError("peers: nanogpt is no package; nanogpt=FOLDER names a clone of it")
    for key, folder, file in (("nanogpt", nanogpt, "model.py"), ("against", against, "scripts/benchmarks/measure.py")):
        if folder and not (Path(folder) / file).is_file():
            raise ValueError(f"{key}: {folder} has no {file}; the folder of a clone is wanted")
    from benchmarks.table import measure  # its imports take seconds

    measure(
        works=works,
        peers=peers,
        against=against,
        nanogpt=nanogpt,
        size=size,
        hardware=hardware,
        precision=precision,
        rounds=rounds,
        steps=steps,
        scale=scaling,
        planned=planning,
        output=output,
    )


def _chosen(work: str) -> list[str]:
    names = [name.strip() for name in work.split(",")] if work != "all" else list(WORKS)
    for name in names:
        if name not in WORKS:
            raise ValueError(str(unknown(name, "work", WORKS)))
    return names


if __name__ == "__main__":
    answer(main)
