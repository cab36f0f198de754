"""From the command to the first token of an answer, of a published model that lies on the disk: a Llama of SmolLM2's
size, with weights as they are drawn."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import tokenizers
import torch

from benchmarks.measure import Contender
from benchmarks.setting import Setting, config
from benchmarks.starting import ROOT, Process
from transformer_lab.composition.build import build_task
from transformer_lab.data.tokenizers import SPECIAL_TOKENS, Tokenizer
from transformer_lab.interop.writing import held, write

TITLE = "start to the first answer of a published model"
UNIT = "answers"
CASES = ("",)
SIZES = {"small": (30, 576, 9, 3, 1536, 49_152)}  # layers, width, heads, those of keys, hidden width, vocabulary
PIPELINE = (
    "from transformers import pipeline; "
    "print(pipeline('text-generation', model={!r})('Once upon', max_new_tokens=1, do_sample=False))"
)


def of_bytes(size: int) -> Tokenizer:
    """As many tokens, of which only bytes are ever made."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = [*SPECIAL_TOKENS, *letters]
    words += [f"word{number}" for number in range(size - len(words))]
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({word: number for number, word in enumerate(words)}, []))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.add_special_tokens(list(SPECIAL_TOKENS))
    return Tokenizer(inner)


def contenders(setting: Setting) -> Iterator[tuple[str, Callable[[], Contender]]]:
    layers, dim, heads, kv_heads, hidden, vocab_size = SIZES["small"]
    made = config(
        "task=language_modeling",
        "feed_forward=swiglu",
        "model.qk_norm=false",
        f"model.num_layers={layers}",
        f"model.dim={dim}",
        f"model.num_heads={heads}",
        f"model.num_kv_heads={kv_heads}",
        f"feed_forward.hidden_dim={hidden}",
    )
    torch.manual_seed(0)
    task = build_task(made, of_bytes(vocab_size), {})
    scratch = tempfile.TemporaryDirectory()
    folder = Path(scratch.name) / "model"
    write(folder, held(made, task), task)
    asked = [str(ROOT / "scripts/predict.py"), f"run={folder}", "prompt=Once upon", "temperature=0"]

    def ours() -> Contender:
        process = Process("transformer_lab", [*asked, "max_new_tokens=1"], by_clock=True)
        process.folder = scratch  # stays for as long as it is read
        return process

    name = "transformers, pipeline"
    yield "transformer_lab", ours
    yield name, lambda: Process(name, ["-c", PIPELINE.format(str(folder))], by_clock=True)
