"""With weights copied in, a decoder computes what the reference libraries' models compute; presets are full size."""

import random

import pytest
import torch
from torch.nn import functional as F

from tests.conftest import settings
from transformer_lab.build import build_task, recipe
from transformer_lab.data.tokenizers import Bytes
from transformer_lab.layout import Layout

SHAPES = 20


def shapes(seed):
    """Random sizes of a small model, and the lengths of its sequences."""
    draw = random.Random(seed)
    heads, kv_heads = draw.choice([(1, 1), (2, 1), (4, 2), (4, 4), (6, 3)])
    sizes = {"dim": heads * draw.choice([4, 8, 16]), "layers": draw.randint(1, 3), "heads": heads, "kv_heads": kv_heads}
    return sizes, [draw.randint(1, 24) for _ in range(draw.randint(1, 5))]


def compare(task, theirs, lengths, pairs):
    """Logits of all sequences, and the gradients of the parameter pairs (ours, theirs as ours would be laid out)."""
    tokens = torch.randint(257, (sum(lengths),))
    ours = task.logits(task.model(tokens, Layout.of(lengths)))
    expected = torch.cat([theirs(part[None]).logits[0] for part in tokens.split(lengths)])
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    targets = torch.randint(257, (sum(lengths),))
    F.cross_entropy(ours, targets).backward()
    F.cross_entropy(expected, targets).backward()
    for parameter, grad in pairs():
        assert (parameter.grad - grad).norm() <= 1e-4 * grad.norm() + 1e-8


def task_of(words, sizes):
    torch.manual_seed(0)
    size = [f"model.dim={sizes['dim']}", f"model.num_layers={sizes['layers']}", f"model.num_heads={sizes['heads']}"]
    config = settings(*words, *size, "task.context=64", "model.dropout=0")
    return build_task(config, Bytes().train([], specials=["<eos>"]))


@pytest.mark.parametrize("seed", range(SHAPES))
def test_gpt2(seed):
    transformers = pytest.importorskip("transformers")
    sizes, lengths = shapes(seed)
    task = task_of(["experiment=gpt2", "position.max_length=64"], sizes)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=257, n_positions=64, n_embd=sizes["dim"], n_layer=sizes["layers"], n_head=sizes["heads"],
            resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        )
    )  # fmt: skip

    def pairs():
        """Ours, and theirs: a matrix there is the transpose, and query, key and value are one."""
        theirs_t, model = theirs.transformer, task.model
        yield model.embedding.weight, theirs_t.wte.weight
        yield model.position.table.weight, theirs_t.wpe.weight
        yield from both(model.norm, theirs_t.ln_f)
        for block, other in zip(model.blocks, theirs_t.h, strict=True):
            yield from both(block.attention_norm, other.ln_1)
            yield from both(block.feed_forward_norm, other.ln_2)
            attention = block.attention
            for index, part in enumerate((attention.query, attention.key, attention.value)):
                dim = sizes["dim"]
                rows = slice(index * dim, (index + 1) * dim)
                yield part.weight, other.attn.c_attn.weight, lambda x, rows=rows: x.T[rows]
                yield part.bias, other.attn.c_attn.bias, lambda x, rows=rows: x[rows]
            feed_forward = block.feed_forward
            for part, conv in ((attention.out, other.attn.c_proj), (feed_forward.up, other.mlp.c_fc),
                               (feed_forward.down, other.mlp.c_proj)):  # fmt: skip
                yield part.weight, conv.weight, lambda x: x.T
                yield part.bias, conv.bias

    check(task, theirs, lengths, pairs)


@pytest.mark.parametrize("seed", range(SHAPES))
def test_llama(seed):
    transformers = pytest.importorskip("transformers")
    sizes, lengths = shapes(seed)
    hidden, head_dim = 3 * sizes["dim"], sizes["dim"] // sizes["heads"]
    words = ["experiment=llama", f"feed_forward.hidden_dim={hidden}", f"model.num_kv_heads={sizes['kv_heads']}"]
    task = task_of(words, sizes)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=257, hidden_size=sizes["dim"], intermediate_size=hidden, num_hidden_layers=sizes["layers"],
            num_attention_heads=sizes["heads"], num_key_value_heads=sizes["kv_heads"], max_position_embeddings=64,
        )
    )  # fmt: skip

    def interleaved(x):
        """Channels i and i + K/2 of a head turn together there; here neighbours do."""
        return x.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)

    def pairs():
        yield task.model.embedding.weight, theirs.model.embed_tokens.weight
        yield task.head.weight, theirs.lm_head.weight
        yield task.model.norm.weight, theirs.model.norm.weight
        for block, other in zip(task.model.blocks, theirs.model.layers, strict=True):
            yield block.attention_norm.weight, other.input_layernorm.weight
            yield block.feed_forward_norm.weight, other.post_attention_layernorm.weight
            yield block.attention.query.weight, other.self_attn.q_proj.weight, interleaved
            yield block.attention.key.weight, other.self_attn.k_proj.weight, interleaved
            yield block.attention.value.weight, other.self_attn.v_proj.weight
            yield block.attention.out.weight, other.self_attn.o_proj.weight
            for name in ("gate", "up", "down"):
                yield getattr(block.feed_forward, name).weight, getattr(other.mlp, f"{name}_proj").weight

    check(task, theirs, lengths, pairs)


def both(ours, theirs):
    yield ours.weight, theirs.weight
    yield ours.bias, theirs.bias


def check(task, theirs, lengths, pairs):
    """Copy their weights, at random, into ours; then compare logits and gradients. A pair may say how to lay out."""
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    found = [(ours, other, *(how or [lambda x: x])) for ours, other, *how in pairs()]
    with torch.no_grad():
        for ours, other, layout in found:
            ours.copy_(layout(other))
    task.eval(), theirs.eval()
    compare(task, theirs, lengths, lambda: [(ours, layout(other.grad)) for ours, other, layout in found])
    assert {id(ours) for ours, *_ in found} == {id(parameter) for parameter in task.parameters()}


@pytest.mark.parametrize("preset, parameters", [("gpt2", 124_439_808), ("llama", 6_738_415_616)])
def test_a_preset_has_as_many_parameters_as_the_published_model(preset, parameters):
    config = settings(f"experiment={preset}")
    parts = {part: recipe(config[part]) for part in ("position", "norm", "feed_forward", "attention")}
    vocab_size = config["tokenizer"]["vocab_size"]
    with torch.device("meta"):
        model = recipe(config["model"])(vocab_size=vocab_size, **parts)
    untied = 0 if config["task"].get("tie_embeddings") else vocab_size * config["model"]["dim"]
    assert sum(p.numel() for p in model.parameters()) + untied == parameters
