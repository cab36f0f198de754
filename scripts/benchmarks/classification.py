"""A step of classification on texts as long as those of AG News, in batches of 32."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.loops import HFTrainer, Ours, three_ways
from benchmarks.measure import Contender
from benchmarks.mlm_nsp import BERT
from benchmarks.setting import ADAMW, COMMON, Setting, config, rows, vocabulary
from transformer_lab.data.store import Corpus, Ragged

TITLE = "classification"
UNIT = "tokens"
# layers, width, heads, longest text, texts of a step, vocabulary
SIZES = {
    "small": (4, 256, 4, 256, 32, 30_522),
    "minilm": (6, 384, 12, 256, 32, 30_522),
    "bert": (12, 768, 12, 512, 64, 30_522),
}
CASES = ("dropout 0", "dropout 0.1")
EXAMPLES, CLASSES = 4000, 4


def lengths(longest: int) -> np.ndarray:
    """Median 48, mean 51 and deviation 17 tokens, as AG News (Zhang et al., 2015) has them in BERT's tokens."""
    drawn = np.random.default_rng(0).lognormal(np.log(48), 0.33, EXAMPLES)
    return np.clip(drawn.astype(np.int64), 8, longest)


def ours(setting: Setting, name: str, *words: str, differs: str = "") -> Ours:
    layers, dim, heads, longest, batch, vocab_size = SIZES[setting.size]
    sizes = lengths(longest)
    made = config(
        "task=classification",
        f"model.num_layers={layers}",
        f"model.dim={dim}",
        f"model.num_heads={heads}",
        f"model.dropout={setting.dropout}",
        f"task.dropout={setting.dropout}",
        f"task.context={longest}",
        f"tokens_per_step={round(batch * sizes.mean() / longest) * longest}",
        *setting.words,
        *COMMON,
        *words,
    )
    classes = Ragged(np.arange(len(sizes), dtype=np.int32) % CLASSES, np.arange(len(sizes) + 1, dtype=np.int64))
    corpus = Corpus({"tokens": rows(sizes - 2, vocab_size), "classes": classes}, ("tokens",), 1)
    facts = {"labels": {str(number): len(sizes) // CLASSES for number in range(CLASSES)}}
    return Ours(name, made, vocabulary(vocab_size), corpus, facts, differs)


def contenders(setting: Setting) -> Iterator[tuple[str, Callable[[], Contender]]]:
    """By name, so that a library that is not there is found out only when it is asked for."""
    layers, dim, heads, longest, batch, vocab_size = SIZES[setting.size]
    dropout = setting.dropout
    yield from three_ways(
        partial(ours, setting),
        (*BERT, "task.pooling=pooler", *ADAMW),
        "rotary positions, pre-norm, RMSNorm, squared ReLU, query/key norm, mean pooling, no biases, Muon",
    )

    sizes = lengths(longest)
    values = rows(sizes, vocab_size)
    texts = [torch.from_numpy(values[i].astype(np.int64)) for i in range(len(sizes))]
    examples = [{"input_ids": text, "labels": i % CLASSES, "length": len(text)} for i, text in enumerate(texts)]

    def collate(chosen: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids = nn.utils.rnn.pad_sequence([row["input_ids"] for row in chosen], batch_first=True)
        real = torch.arange(ids.shape[1]) < torch.tensor([row["length"] for row in chosen])[:, None]
        labels = torch.tensor([row["labels"] for row in chosen])
        return {"input_ids": ids, "attention_mask": real.long(), "labels": labels}

    def trainer(name: str, differs: str = "", **more: Any) -> Contender:
        from transformers import BertConfig, BertForSequenceClassification

        model = BertForSequenceClassification(
            BertConfig(
                num_hidden_layers=layers,
                hidden_size=dim,
                num_attention_heads=heads,
                intermediate_size=4 * dim,
                vocab_size=vocab_size,
                max_position_embeddings=longest,
                num_labels=CLASSES,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=0.0,
            )
        )
        return HFTrainer(
            name,
            model,
            examples,
            collate,
            batch,
            setting.machine,
            lambda made: int(made["attention_mask"].sum()),
            differs,
            remove_unused_columns=False,
            **more,
        )

    name = "transformers BERT, Trainer"
    yield name, lambda: trainer(name)

    def grouped() -> Contender:
        made: Any = trainer(
            f"{name}, grouped by length", train_sampling_strategy="group_by_length", length_column_name="length"
        )
        made.cycle = 50  # batches from the longest texts to the shortest
        return made

    yield f"{name}, grouped by length", grouped
