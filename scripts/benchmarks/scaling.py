"""Cost by the size of the corpus: seconds a token, and the memory of a run, from a megabyte to a gigabyte."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.loops import Ours
from benchmarks.measure import resident
from benchmarks.setting import ADAMW, COMMON, config, vocabulary
from transformer_lab.data.sealed import Sealed, seal
from transformer_lab.data.store import Corpus, Ragged

VOCAB, CONTEXT, BYTES_PER_TOKEN, TOKENS_AT_ONCE = 8192, 256, 4, 10_000_000


def corpus(folder: Path, tokens: int, examples: int) -> Corpus:
    """So many random tokens in so many rows, on disk and mapped into memory as a store is."""
    draw = np.random.default_rng(0)
    with (folder / "values").open("wb") as file:
        for begin in range(0, tokens, TOKENS_AT_ONCE):
            file.write(draw.integers(4, VOCAB, min(TOKENS_AT_ONCE, tokens - begin), dtype=np.uint16).tobytes())
    np.linspace(0, tokens, examples + 1).astype(np.int64).tofile(folder / "offsets")
    seal(folder)
    sealed = Sealed(folder)
    column = Ragged(sealed.array("values", "uint16"), sealed.array("offsets", "int64"))
    return Corpus({"tokens": column}, ("tokens",), tokens * BYTES_PER_TOKEN, folder / "train")


def measure(text_bytes: int, examples: int, packing: str) -> tuple[float, float, float]:
    """Microseconds a token, and megabytes at the most, in all and without mapped files; in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.scaling", str(text_bytes), str(examples), packing]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    microseconds, peak, anonymous = map(float, done.stdout.split()[-3:])
    return microseconds, peak, anonymous


def main(text_bytes: int, examples: int, packing: str) -> None:
    made = config(
        "task=language_modeling",
        "model.dim=64",
        "model.num_layers=2",
        "model.num_heads=2",
        "hardware=cpu",
        f"task.context={CONTEXT}",
        f"task.packing={packing}",
        f"tokens_per_step={16 * CONTEXT}",
        *COMMON,
        *ADAMW,
    )
    with tempfile.TemporaryDirectory() as folder:
        data = corpus(Path(folder), text_bytes // BYTES_PER_TOKEN, examples)
        run = Ours("transformer_lab", made, vocabulary(VOCAB), data, {})
        run.run(5)
        paces = sorted((run.run(20) for _ in range(3)), key=lambda pace: pace.rate)
        print(1e6 / paces[1].rate, resident("VmHWM"), resident("RssAnon"))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
