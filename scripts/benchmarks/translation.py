"""A step of translation on pairs as long as those of Multi30k, 64 at a time."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.loops import HFTrainer, Loop, Ours, three_ways
from benchmarks.measure import Contender
from benchmarks.setting import ADAMW, COMMON, Setting, config, rows, vocabulary
from transformer_lab.data.store import Corpus, Ragged

TITLE = "translation"
UNIT = "tokens"
# layers of either side, width, heads, longest text, pairs of a step, vocabulary
SIZES = {"small": (3, 256, 4, 64, 64, 8192), "base": (6, 512, 8, 128, 256, 37_000)}
CASES = ("dropout 0", "dropout 0.1")
EXAMPLES = 6000


def lengths(longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Median 14 and 15 tokens, which go up and down together, as in Multi30k (Elliott et al., 2016) with 8k pieces."""
    draw = np.random.default_rng(0)
    source = draw.lognormal(np.log(14), 0.28, EXAMPLES)
    target = source * 15 / 14 * draw.lognormal(0, 0.15, EXAMPLES)
    return tuple(np.clip(side.astype(np.int64), 4, longest) for side in (source, target))  # type: ignore[return-value]


def ours(setting: Setting, name: str, *words: str, differs: str = "") -> Ours:
    layers, dim, heads, longest, batch, vocab_size = SIZES[setting.size]
    source, target = lengths(longest)
    made = config(
        "task=translation",
        f"model.num_layers={layers}",
        f"model.dim={dim}",
        f"model.num_heads={heads}",
        f"model.dropout={setting.dropout}",
        "task.label_smoothing=0.1",
        f"task.context={longest}",
        *setting.words,
        f"tokens_per_step={round(batch * (source + target).mean())}",
        *COMMON,
        *words,
    )
    text = Ragged(np.zeros(EXAMPLES, dtype=np.uint8), np.arange(EXAMPLES + 1, dtype=np.int64))
    columns = {"source": rows(source - 1, vocab_size), "target": rows(target - 1, vocab_size, 1), "reference": text}
    corpus = Corpus(columns, ("source", "target"), 1)
    return Ours(name, made, vocabulary(vocab_size), corpus, {}, differs)


# Vaswani's model as Marian has it: sinusoids, post-norm, biases, one embedding for all.
MARIAN = (
    "norm=layer",
    "feed_forward=relu",
    "residual=post_norm",
    "position=sinusoidal",
    "model.bias=true",
    "model.qk_norm=false",
    "model.residual_init=plain",
    "model.scale_embedding=true",
)


def contenders(setting: Setting) -> Iterator[tuple[str, Callable[[], Contender]]]:
    """By name, so that a library that is not there is found out only when it is asked for."""
    layers, dim, heads, longest, batch, vocab_size = SIZES[setting.size]
    dropout = setting.dropout
    yield from three_ways(
        partial(ours, setting),
        (*MARIAN, *ADAMW),
        "rotary positions, pre-norm, RMSNorm, squared ReLU, query/key norm, no biases, Muon",
    )

    sides = [rows(side, vocab_size, seed) for seed, side in enumerate(lengths(longest))]
    examples = [
        {
            "source": torch.from_numpy(sides[0][i].astype(np.int64)),
            "target": torch.from_numpy(sides[1][i].astype(np.int64)),
        }
        for i in range(EXAMPLES)
    ]

    def collate(chosen: list[dict[str, Any]]) -> dict[str, Tensor]:
        source, target = (
            nn.utils.rnn.pad_sequence([row[side] for row in chosen], batch_first=True, padding_value=0)
            for side in ("source", "target")
        )
        read = torch.cat((torch.ones_like(target[:, :1]), target[:, :-1]), dim=1)  # token 0 never occurs but as padding
        return {
            "input_ids": source,
            "attention_mask": (source != 0).long(),
            "decoder_input_ids": read,
            "labels": target.masked_fill(target == 0, -100),
        }

    def useful(made: dict[str, Tensor]) -> int:
        return int(made["attention_mask"].sum()) + int((made["labels"] != -100).sum())

    def batches() -> Iterator[tuple[dict[str, Tensor], int]]:
        for begin in range(0, EXAMPLES - batch + 1, batch):
            made = collate(examples[begin : begin + batch])
            yield made, useful(made)

    def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), label_smoothing=0.1)

    def marian_loss(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
        return smoothed(model(**{k: v for k, v in given.items() if k != "labels"}).logits, given["labels"])

    def torch_loss(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
        logits = model(given["input_ids"], given["decoder_input_ids"], given["attention_mask"] == 0)
        return smoothed(logits, given["labels"])

    def trainer() -> Contender:
        return HFTrainer(
            "transformers Marian, Trainer",
            marian(setting),
            examples,
            collate,
            batch,
            setting.machine,
            useful,
            "label smoothing by the Trainer",
            label_smoothing_factor=0.1,
            remove_unused_columns=False,
        )

    yield (
        "transformers Marian",
        lambda: Loop("transformers Marian", marian(setting), marian_loss, batches, setting.machine),
    )
    yield "transformers Marian, Trainer", trainer

    def torch_model() -> Contender:
        model = PlainTorch(layers, dim, heads, longest, vocab_size, dropout)
        return Loop("torch.nn.Transformer", model, torch_loss, batches, setting.machine, "learned positions")

    yield "torch.nn.Transformer", torch_model


def marian(setting: Setting) -> Any:
    """Hugging Face's; the last token of its vocabulary is padding."""
    from transformers import MarianConfig, MarianMTModel

    layers, dim, heads, longest, _, vocab_size = SIZES[setting.size]
    return MarianMTModel(
        MarianConfig(
            encoder_layers=layers,
            decoder_layers=layers,
            d_model=dim,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=4 * dim,
            decoder_ffn_dim=4 * dim,
            vocab_size=vocab_size,
            max_position_embeddings=longest,
            dropout=setting.dropout,
            attention_dropout=0.0,
            activation_dropout=0.0,
            activation_function="relu",
            scale_embedding=True,
            pad_token_id=vocab_size - 1,
            eos_token_id=0,
            bos_token_id=0,
            decoder_start_token_id=0,
            forced_eos_token_id=0,
        )
    )


class PlainTorch(nn.Module):
    """PyTorch's own nn.Transformer with the embeddings it leaves out."""

    def __init__(self, layers: int, dim: int, heads: int, longest: int, vocab_size: int, dropout: float) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, dim), nn.Embedding(longest, dim)
        self.model = nn.Transformer(dim, heads, layers, layers, 4 * dim, dropout, batch_first=True)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, source: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
        source, target = (self.tokens(side) + self.positions.weight[: side.shape[1]] for side in (source, target))
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], device=target.device)
        x = self.model(
            source,
            target,
            tgt_mask=mask,
            src_key_padding_mask=hidden,
            memory_key_padding_mask=hidden,
            tgt_is_causal=True,
        )
        return F.linear(x, self.tokens.weight)
