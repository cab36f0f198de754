"""A step of causal language modelling: whole blocks of one length, so nobody has padding to lose."""

import importlib
import sys
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
from transformer_lab.data.store import Corpus

TITLE = "causal language modelling"
UNIT = "tokens"
# layers, width, heads, context, sequences of a step, vocabulary
SIZES = {
    "small": (6, 256, 4, 256, 16, 8192),
    "gpt2": (12, 768, 12, 1024, 32, 50_304),
    "1b": (24, 2048, 16, 2048, 8, 50_304),
}
CASES = ("",)


def ours(setting: Setting, name: str, *words: str, differs: str = "") -> Ours:
    layers, dim, heads, context, batch, vocab_size = SIZES[setting.size]
    made = config(
        "task=language_modeling",
        f"model.num_layers={layers}",
        f"model.dim={dim}",
        f"model.num_heads={heads}",
        f"model.dropout={setting.dropout}",
        f"task.context={context}",
        f"tokens_per_step={batch * context}",
        *setting.words,
        *COMMON,
        *words,
    )
    corpus = Corpus({"tokens": rows(np.full(2000, context), vocab_size)}, ("tokens",), 1)
    return Ours(name, made, vocabulary(vocab_size), corpus, {}, differs)


# The block of GPT-NeoX, which litgpt's and x-transformers' options can build as well.
NEOX = ("norm=layer", "feed_forward=gelu", "model.bias=true", "model.qk_norm=false", "model.residual_init=scaled")


def gpt2(size: tuple[int, ...], activation: str, dropout: float) -> nn.Module:
    """Hugging Face's, of one of the `SIZES`."""
    from transformers import GPT2Config, GPT2LMHeadModel

    layers, dim, heads, context, _, vocab_size = size
    return GPT2LMHeadModel(
        GPT2Config(
            n_layer=layers,
            n_embd=dim,
            n_head=heads,
            n_positions=context,
            vocab_size=vocab_size,
            activation_function=activation,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=0.0,
            use_cache=False,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def contenders(setting: Setting) -> Iterator[tuple[str, Callable[[], Contender]]]:
    """By name, so that a library that is not there is found out only when it is asked for."""
    layers, dim, heads, context, batch, vocab_size = SIZES[setting.size]
    dropout = setting.dropout
    yield from three_ways(
        partial(ours, setting),
        (*NEOX, *ADAMW),
        "RMSNorm, squared ReLU, query/key norm, no biases, Muon",
    )

    tokens = torch.from_numpy(rows(np.full(400, context), vocab_size).values[:].astype(np.int64)).view(400, context)

    def batches() -> Iterator[tuple[dict[str, Tensor], int]]:
        for begin in range(0, len(tokens) - batch + 1, batch):
            yield {"tokens": tokens[begin : begin + batch]}, batch * context

    def next_token(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
        logits = model(given["tokens"])
        return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), given["tokens"][:, 1:].flatten())

    def loop(name: str, model: nn.Module, loss: Any = next_token, differs: str = "") -> Loop:
        return Loop(name, model, loss, batches, setting.machine, differs)

    def litgpt() -> Contender:
        from litgpt.config import Config
        from litgpt.model import GPT

        model = GPT(
            Config(
                n_layer=layers,
                n_embd=dim,
                n_head=heads,
                block_size=context,
                vocab_size=vocab_size,
                padded_vocab_size=vocab_size,
                rotary_percentage=1.0,
                parallel_residual=False,
                bias=True,
                norm_class_name="LayerNorm",
                mlp_class_name="GptNeoxMLP",
                lm_head_bias=False,
            )
        )
        model.lm_head.weight = model.transformer.wte.weight
        return loop("litgpt", model)

    def x_transformers() -> Contender:
        from x_transformers import Decoder, TransformerWrapper

        model = TransformerWrapper(
            num_tokens=vocab_size,
            max_seq_len=context,
            tie_embedding=True,
            use_abs_pos_emb=False,
            emb_dropout=dropout,
            attn_layers=Decoder(
                dim=dim,
                depth=layers,
                heads=heads,
                attn_dim_head=dim // heads,
                rotary_pos_emb=True,
                attn_flash=True,
                ff_dropout=dropout,
            ),
        )
        return loop("x-transformers", model)

    def torch_encoder() -> Contender:
        model = PlainTorch(layers, dim, heads, context, vocab_size, dropout)
        return loop("torch.nn.TransformerEncoder", model, differs="learned positions")

    def hf_loss(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
        loss: Tensor = model(input_ids=given["tokens"], labels=given["tokens"]).loss
        return loss

    def raw(name: str, activation: str, differs: str) -> Contender:
        return loop(name, gpt2(SIZES[setting.size], activation, dropout), hf_loss, differs)

    def trainer(name: str, activation: str, differs: str, compiled: bool = True) -> Contender:
        examples = [{"input_ids": row, "labels": row} for row in tokens]

        def collate(chosen: list[dict[str, Tensor]]) -> dict[str, Tensor]:
            return {name: torch.stack([row[name] for row in chosen]) for name in ("input_ids", "labels")}

        return HFTrainer(
            name,
            gpt2(SIZES[setting.size], activation, dropout),
            examples,
            collate,
            batch,
            setting.machine,
            lambda given: given["input_ids"].numel(),
            differs,
            compiled,
        )

    def nanogpt() -> Contender:
        sys.path.append(setting.nanogpt)
        theirs: Any = importlib.import_module("model")
        sizes = {"n_layer": layers, "n_head": heads, "n_embd": dim, "block_size": context, "vocab_size": vocab_size}
        model = theirs.GPT(theirs.GPTConfig(**sizes, dropout=dropout, bias=True))

        def own_loss(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
            following = F.pad(given["tokens"][:, 1:], (0, 1), value=-1)  # which it leaves out
            loss: Tensor = model(given["tokens"], following)[1]
            return loss

        return loop("nanoGPT", model, own_loss, differs="learned positions")

    if setting.nanogpt:
        yield "nanoGPT", nanogpt
    yield "litgpt", litgpt
    yield "x-transformers", x_transformers
    yield "torch.nn.TransformerEncoder", torch_encoder
    if setting.machine.compile:
        name = "transformers GPT-2, Trainer, not compiled"
        yield name, partial(trainer, name, "gelu_new", "learned positions, GELU by tanh", compiled=False)
    # Which GELU it is matters where it is not fused with what is around it.
    for kind, activation in (("", "gelu_new"), (", erf-GELU", "gelu"))[: 1 if setting.machine.compile else 2]:
        differs = f"learned positions{', GELU by tanh (its default)' if not kind else ''}"
        for name, make in (("transformers GPT-2", raw), ("transformers GPT-2, Trainer", trainer)):
            yield name + kind, partial(make, name + kind, activation, differs)


class PlainTorch(nn.Module):
    """A GPT made of PyTorch's own encoder layer."""

    def __init__(self, layers: int, dim: int, heads: int, context: int, vocab_size: int, dropout: float) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, dim), nn.Embedding(context, dim)
        layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context))
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight
        return F.linear(self.blocks(x, mask=self.mask, is_causal=True), self.tokens.weight)
