"""A step of BERT's pre-training on texts of very different length: up to 128 tokens, 60 % of that in the mean."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.loops import HFTrainer, Loop, Ours, three_ways
from benchmarks.measure import Contender
from benchmarks.setting import ADAMW, COMMON, Setting, config, rows, vocabulary
from transformer_lab.data.packing import Packs
from transformer_lab.data.segments import PAIR
from transformer_lab.data.store import Corpus
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.tasks.mlm_nsp import MLMNSP

TITLE = "BERT pre-training (MLM and NSP)"
UNIT = "tokens"
# layers, width, heads, longest text, texts of a step, vocabulary
SIZES = {"small": (4, 256, 4, 128, 32, 30_522), "bert": (12, 768, 12, 512, 64, 30_522)}
CASES = ("dropout 0", "dropout 0.1")
EXAMPLES = 4000


def lengths(longest: int) -> np.ndarray:
    """From a fifth of the longest to the longest, all equally likely."""
    return np.random.default_rng(0).integers(longest // 5, longest + 1, EXAMPLES)


class Drawn(MLMNSP):
    """The task on pairs of drawn lengths instead of sentences that fill a budget."""

    def packing(self, corpus: Corpus) -> Packs:
        sizes = lengths(self.context)

        def pairs(corpus: Corpus, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, int]:
            first = (sizes - 3) // 2
            second = sizes - 3 - first
            starts = np.arange(len(sizes)) * self.context
            wrong = np.random.default_rng(1).integers(0, 2, len(sizes))
            pieces = np.rec.fromarrays((starts, first, starts + first, second, wrong, 0 * wrong), dtype=PAIR)
            return pieces, sizes, 0

        return Packs(corpus=corpus, capacity=self.capacity, layout=PAIR, pieces=pairs, cache_key="drawn")


def ours(setting: Setting, name: str, *words: str, differs: str = "") -> Ours:
    layers, dim, heads, longest, batch, vocab_size = SIZES[setting.size]
    made = config(
        "task=mlm_nsp",
        f"model.num_layers={layers}",
        f"model.dim={dim}",
        f"model.num_heads={heads}",
        f"model.dropout={setting.dropout}",
        "model.token_types=2",
        f"task.context={longest}",
        f"tokens_per_step={round(batch * lengths(longest).mean() / longest) * longest}",
        *setting.words,
        *COMMON,
        *words,
    )
    made["task"]["_target_"] = f"{Drawn.__module__}.{Drawn.__name__}"
    # One row; the pairs say where in it they begin.
    corpus = Corpus({"tokens": rows(np.full(EXAMPLES, longest), vocab_size)}, ("tokens",), 1)
    return Ours(name, made, vocabulary(vocab_size), corpus, {}, differs)


BERT = (
    "norm=layer",
    "feed_forward=gelu",
    "residual=post_norm",
    "position=learned",
    "model.bias=true",
    "model.embedding_norm=true",
    "model.qk_norm=false",
    "model.residual_init=plain",
)


def contenders(setting: Setting) -> Iterator[tuple[str, Callable[[], Contender]]]:
    """By name, so that a library that is not there is found out only when it is asked for."""
    layers, dim, heads, longest, batch, vocab_size = SIZES[setting.size]
    dropout = setting.dropout
    yield from three_ways(
        partial(ours, setting),
        (*BERT, *ADAMW),
        "rotary positions, pre-norm, RMSNorm, squared ReLU, query/key norm, no biases, Muon",
    )

    words = vocabulary(vocab_size)
    sizes = lengths(longest)
    values = rows(sizes, vocab_size)
    examples = [{"ids": torch.from_numpy(values[i].astype(np.int64)), "wrong": i % 2} for i in range(len(sizes))]
    collate = Padded(words)

    def bert() -> nn.Module:
        from transformers import BertConfig, BertForPreTraining

        return BertForPreTraining(
            BertConfig(
                num_hidden_layers=layers,
                hidden_size=dim,
                num_attention_heads=heads,
                intermediate_size=4 * dim,
                vocab_size=vocab_size,
                max_position_embeddings=longest,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=0.0,
            )
        )

    def batches() -> Iterator[tuple[dict[str, Tensor], int]]:
        for begin in range(0, len(examples) - batch + 1, batch):
            made = collate(examples[begin : begin + batch])
            yield made, int(made["attention_mask"].sum())

    def loss(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
        found: Tensor = model(**given).loss
        return found

    yield "transformers BERT", lambda: Loop("transformers BERT", bert(), loss, batches, setting.machine)

    def trainer(name: str, compiled: bool) -> Contender:
        return HFTrainer(
            name,
            bert(),
            examples,
            collate,
            batch,
            setting.machine,
            lambda made: int(made["attention_mask"].sum()),
            compiled=compiled,
            remove_unused_columns=False,
        )

    name = "transformers BERT, Trainer"
    yield name, lambda: trainer(name, compiled=True)
    if setting.machine.compile:
        yield f"{name}, not compiled", lambda: trainer(f"{name}, not compiled", compiled=False)


class Padded:
    """Texts padded to the longest of a batch, 15 % of their tokens hidden: what Hugging Face's collators make."""

    def __init__(self, words: Tokenizer) -> None:
        self.mask, self.draw = words.special("<mask>"), torch.Generator().manual_seed(0)

    def __call__(self, chosen: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids = nn.utils.rnn.pad_sequence([row["ids"] for row in chosen], batch_first=True)
        sizes = torch.tensor([len(row["ids"]) for row in chosen])
        positions = torch.arange(ids.shape[1])
        real = positions < sizes[:, None]
        hidden = real & (torch.rand(ids.shape, generator=self.draw) < 0.15)
        return {
            "input_ids": ids.masked_fill(hidden, self.mask),
            "attention_mask": real.long(),
            "token_type_ids": (real & (positions >= sizes[:, None] // 2)).long(),
            "labels": ids.masked_fill(~hidden, -100),
            "next_sentence_label": torch.tensor([row["wrong"] for row in chosen]),
        }
