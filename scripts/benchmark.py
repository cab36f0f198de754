"""How fast it is: `python scripts/benchmark.py`, side by side with the libraries that people would use instead."""

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
)


def main(
    *,
    work: str = "all",
    peers: str = "all",
    against: str | None = None,
    size: str = "small",
    hardware: str = "cpu",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    rounds: int = 5,
    steps: int = 0,
    memory: bool = True,
    scaling: bool = False,
    planning: bool = False,
    output: str = "docs/benchmarks",
) -> None:
    """Measure work of this project and of other libraries in alternating rounds, and write a table of it.

    work: what to measure, separated by commas, or all of it
    peers: parts of the names of other libraries, separated by commas; all that are installed (.[benchmark]), or none
    against: the folder of an older clone of this project, whose own code is measured too, in a process of its own
    size: of the models: small, or a published one (gpt2, 1b, bert, base)
    hardware: as in train.py: cpu, gpu, auto
    precision: as hardware.precision in train.py
    rounds: rounds in which each contender comes once; ratios are those of the same round
    steps: steps of a round; 0 for as many as take about three seconds
    memory: measure the peak memory of each contender too, in a process of its own
    scaling: measure cost by the size of the corpus too, which takes minutes and a gigabyte of disk
    planning: measure what plan=true says against what runs then take, too
    output: the folder for the table as JSON and Markdown, after each row; all of it takes about an hour
    """
    works = _chosen(work)
    from benchmarks.table import measure  # its imports take seconds

    measure(
        works=works,
        peers=peers,
        against=against,
        size=size,
        hardware=hardware,
        precision=precision,
        rounds=rounds,
        steps=steps,
        memory=memory,
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
