"""Tokenizing and storing a corpus, against the `tokenizers` library alone on the same text; and the memory it takes."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Contender, Pace, resident
from benchmarks.setting import Setting
from transformer_lab.data.sources.text import Text
from transformer_lab.data.store import CHARACTERS_AT_ONCE, prepare
from transformer_lab.data.tokenizers import ByteBPE, Tokenizer
from transformer_lab.tasks.language_modeling import DocumentEncoding

TITLE = "tokenizing and storing"
UNIT = "bytes"
CASES = ("",)
BYTES = 10_000_000  # of text in a round


def write_text(file: Path, size: int) -> None:
    """The sources of Python's standard library, again and again, as documents apart."""
    files = sorted(Path(tempfile.__file__).parent.rglob("*.py"))[:2000]
    sources = [path.read_text(encoding="utf-8", errors="ignore") for path in files]
    with file.open("w", encoding="utf-8") as out:
        written = number = 0
        while written < size:
            text = f"{sources[number % len(sources)]}\n# {number}\n\n"
            written, number = written + out.write(text), number + 1


class Alone:
    name = "tokenizers alone"
    differs = "keeps nothing, seeks no examples that splits share"

    def __init__(self, file: Path, words: Tokenizer) -> None:
        self.file, self.words = file, words

    def run(self, steps: int) -> Pace:
        text = self.file.read_text(encoding="utf-8")
        pieces = [text[i : i + 20_000] for i in range(0, len(text), 20_000)]
        at_once = CHARACTERS_AT_ONCE // 20_000
        started = time.perf_counter()
        for begin in range(0, len(pieces), at_once):
            self.words.encode_batch(pieces[begin : begin + at_once])
        return Pace(self.file.stat().st_size, time.perf_counter() - started)


class OurStore:
    name, differs = "transformer_lab", ""

    def __init__(self, file: Path, words: Tokenizer) -> None:
        self.file, self.words = file, words

    def run(self, steps: int) -> Pace:
        source = Text(path=str(self.file), validation=0.05, test=0.0)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as cache:
            prepare(source, self.words, DocumentEncoding(self.words.special("<eos>")), cache_dir=Path(cache))
            return Pace(self.file.stat().st_size, time.perf_counter() - started)


def contenders(setting: Setting) -> Iterator[tuple[str, Callable[[], Contender]]]:
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name) / "text.txt"
    write_text(file, BYTES)
    words = trained(file)

    def kept(contender: Any) -> Contender:
        contender.folder = folder  # stays for as long as it is read
        return contender

    yield OurStore.name, lambda: kept(OurStore(file, words))
    yield Alone.name, lambda: kept(Alone(file, words))


def trained(file: Path) -> Tokenizer:
    with file.open(encoding="utf-8") as lines:
        text = lines.read(2_000_000)
    return ByteBPE(vocab_size=8192).train([text], special_tokens=("<eos>",))


def memory(size: int) -> tuple[float, float]:
    """Megabytes at the most, of a process that stores so many bytes of text; and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        write_text(Path(folder) / "text.txt", size)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.storing", folder],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[1],
        )
        megabytes, seconds = map(float, done.stdout.split()[-2:])
        return megabytes, seconds


if __name__ == "__main__":
    file = Path(sys.argv[1]) / "text.txt"
    pace = OurStore(file, trained(file)).run(1)
    print(resident("VmHWM"), pace.seconds)
