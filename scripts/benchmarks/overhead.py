"""What the framework adds to a step: a model so small that little else is left of the time."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.language_modeling import gpt2
from benchmarks.loops import HFTrainer, Loop, OurLoop, Ours
from benchmarks.measure import Contender
from benchmarks.setting import ADAMW, COMMON, Setting, config, rows, vocabulary
from transformer_lab.data.store import Corpus

TITLE = "overhead of a step"
UNIT = "tokens"
SIZES = {"small": (2, 32, 2, 32, 4, 512)}
CASES = ("",)


def contenders(setting: Setting) -> Iterator[tuple[str, Callable[[], Contender]]]:
    layers, dim, heads, context, batch, vocab_size = SIZES["small"]
    same: list[Ours] = []

    def first() -> Contender:
        made = config(
            "task=language_modeling",
            f"model.num_layers={layers}",
            f"model.dim={dim}",
            f"model.num_heads={heads}",
            f"task.context={context}",
            f"tokens_per_step={batch * context}",
            *setting.words,
            *COMMON,
            *ADAMW,
        )
        corpus = Corpus({"tokens": rows(np.full(20_000, context), vocab_size)}, ("tokens",), 1)
        same.append(Ours("transformer_lab", made, vocabulary(vocab_size), corpus, {}))
        return same[0]

    yield "transformer_lab", first
    yield "transformer_lab, in a plain loop", lambda: OurLoop(same[0])

    tokens = torch.from_numpy(rows(np.full(20_000, context), vocab_size).values[:].astype(np.int64)).view(-1, context)

    def batches() -> Iterator[tuple[dict[str, Tensor], int]]:
        for begin in range(0, len(tokens) - batch + 1, batch):
            chosen = tokens[begin : begin + batch]
            yield {"input_ids": chosen, "labels": chosen}, chosen.numel()

    def trainer() -> Contender:
        examples = [{"input_ids": row, "labels": row} for row in tokens]

        def collate(chosen: list[dict[str, Tensor]]) -> dict[str, Tensor]:
            return {name: torch.stack([row[name] for row in chosen]) for name in ("input_ids", "labels")}

        return HFTrainer(
            "transformers GPT-2, Trainer",
            gpt2(SIZES["small"], "gelu", 0.0),
            examples,
            collate,
            batch,
            setting.machine,
            lambda given: given["input_ids"].numel(),
            "another model",
        )

    name = "transformers GPT-2"
    yield (
        name,
        lambda: Loop(
            name,
            gpt2(SIZES["small"], "gelu", 0.0),
            lambda model, given: model(**given).loss,
            batches,
            setting.machine,
            "another model",
        ),
    )
    yield f"{name}, Trainer", trainer
