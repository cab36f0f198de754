"""With weights copied in, models compute what the reference library's compute; presets have their published size."""

import random

import pytest
import torch
from torch.nn import functional as F

from tests.conftest import VOCABULARY, WORDS, settings
from tests.interop.families import CLASSES, NAMES, options_of, task_from
from transformer_lab.composition.build import build_task, task_class
from transformer_lab.interop.families import LANGUAGE_MODELING, MLM_NSP
from transformer_lab.interop.options import Theirs
from transformer_lab.interop.weights import inward
from transformer_lab.layout import Layout

SHAPES = 20
# Parameters as published by the models' authors.
PUBLISHED = {
    "gpt2": 124_439_808,
    "llama": 6_738_415_616,
    "bert": 110_106_428,
    "modernbert": 149_655_232,
    "t5": 222_903_552,
}


class Words:
    """As much of a tokenizer as a model's size depends on."""

    def __init__(self, vocab_size):
        self.vocab_size, self.ordinary, self.continues = vocab_size, None, None

    def special(self, name):
        return 0


def size_of(preset):
    config = settings(f"experiment={preset}")
    with torch.device("meta"):
        task = build_task(config, Words(config["tokenizer"]["vocab_size"]), task_class(config).stand_in)
    return sum(p.numel() for p in task.parameters())


def test_the_first_transformer_has_the_sizes_of_its_paper():
    """Counted by hand from table 3; the paper's own 65 million leave open how large its vocabulary was exactly."""
    attention, feed_forward, norm = 4 * (512 * 512 + 512), 2 * 512 * 2048 + 2048 + 512, 2 * 512
    encoder, decoder = attention + feed_forward + 2 * norm, 2 * attention + feed_forward + 3 * norm
    assert size_of("transformer") == 6 * (encoder + decoder) + 37_000 * 512


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_preset_has_as_many_parameters_as_the_published_model(preset):
    assert size_of(preset) == PUBLISHED[preset]


def shapes(seed):
    """Random sizes of a small model, and the lengths of its sequences."""
    draw = random.Random(seed)
    heads, kv_heads = draw.choice([(1, 1), (2, 1), (4, 2), (4, 4), (6, 3)])
    sizes = {"dim": heads * draw.choice([4, 8, 16]), "layers": draw.randint(1, 3), "heads": heads, "kv_heads": kv_heads}
    return sizes, [draw.randint(1, 24) for _ in range(draw.randint(1, 5))]


def task_of(words, sizes):
    torch.manual_seed(0)
    size = [f"model.dim={sizes['dim']}", f"model.num_layers={sizes['layers']}", f"model.num_heads={sizes['heads']}"]
    config = settings(*words, *size, "task.context=64", "model.dropout=0")
    return build_task(config, WORDS, {})


def copied(task, theirs, pairs):
    """Give them random weights, and ours the same; returns the pairs (ours, theirs, how theirs are laid out here)."""
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    found = [(ours, other, *(how or [lambda x: x])) for ours, other, *how in pairs]
    with torch.no_grad():
        for ours, other, layout, *_ in found:
            ours.copy_(layout(other))
    task.eval(), theirs.eval()
    return found


def agree(task, ours, expected, found):
    """Logits, and the gradients of all parameters."""
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    targets = torch.randint(ours.shape[1], (len(ours),))
    F.cross_entropy(ours, targets).backward()
    F.cross_entropy(expected, targets).backward()
    sums = {}  # of several parameters of theirs that are one of ours
    for parameter, other, layout, *of_gradient in found:
        grad = (of_gradient or [layout])[0](other.grad)
        sums[parameter] = sums.get(parameter, 0) + grad
    for parameter, grad in sums.items():
        assert (parameter.grad - grad).norm() <= 1e-4 * grad.norm() + 1e-8
    assert {id(parameter) for parameter in sums} == {id(parameter) for parameter in task.parameters()}


def check(task, theirs, lengths, pairs):
    """A language model against theirs, on packed sequences."""
    found = copied(task, theirs, pairs())
    tokens = torch.randint(VOCABULARY, (sum(lengths),))
    ours = task.head(task.model(tokens, Layout.of(lengths)))
    agree(task, ours, torch.cat([theirs(part[None]).logits[0] for part in tokens.split(lengths)]), found)


def both(ours, theirs):
    yield ours.weight, theirs.weight
    yield ours.bias, theirs.bias


def halves(head_dim):
    """Channels i and i + K/2 of a head turn together there; here neighbours do."""
    return lambda x: x.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


@pytest.mark.parametrize("seed", range(SHAPES))
@pytest.mark.parametrize(("family", "head"), CLASSES, ids=NAMES)
def test_a_published_model_computes_the_same_logits_and_gradients(family, head, seed):
    """Its config.json and its tensors are read by the tables that users' folders are read with."""
    transformers = pytest.importorskip("transformers")
    draw = random.Random(seed)
    options = options_of(family, head, draw)
    options = {"bos_token_id": 0, "eos_token_id": 0, **options, "vocab_size": VOCABULARY}
    config = transformers.AutoConfig.for_model(family.model_type, **options)
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    theirs = getattr(transformers, head.architecture)(config)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    keys = family.inward(Theirs({**config.to_dict(), "architectures": [head.architecture]}, "config.json"), head)
    pairs = family.pairs(keys, head)
    task = task_from(keys, head)
    task.load_state_dict(inward(pairs, theirs.state_dict()))
    task.eval(), theirs.eval()
    lengths = [draw.randint(1, 24) for _ in range(draw.randint(1, 5))]
    tokens, layout = torch.randint(VOCABULARY, (sum(lengths),)), Layout.of(lengths)
    parts = tokens.split(lengths)
    if keys.get("model.token_types"):
        types = torch.randint(keys["model.token_types"], (sum(lengths),))
        hidden = task.model(tokens, layout, types)
        each = [
            theirs(part[None], token_type_ids=kinds[None])
            for part, kinds in zip(parts, types.split(lengths), strict=True)
        ]
    else:
        hidden, each = task.model(tokens, layout), [theirs(part[None]) for part in parts]
    if head.task == LANGUAGE_MODELING:
        pairs_of_logits = [(task.head(hidden), torch.cat([one.logits[0] for one in each]))]
    elif head.task == MLM_NSP:
        words = "prediction_logits" if task.nsp_head is not None else "logits"
        pairs_of_logits = [(task.head(task.transform(hidden)), torch.cat([one[words][0] for one in each]))]
        if task.nsp_head is not None:
            judged = task.nsp_head(hidden[task.nsp_head.indices(layout)], layout)
            pairs_of_logits.append((judged, torch.cat([one.seq_relationship_logits for one in each])))
    else:
        judged = task.head(hidden[task.head.indices(layout)], layout)
        pairs_of_logits = [(judged, torch.cat([one.logits for one in each]))]
    for ours, expected in pairs_of_logits:
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
        targets = torch.randint(ours.shape[1], (len(ours),))
        for logits in (ours, expected):
            F.cross_entropy(logits, targets).backward(retain_graph=True)
    grads = inward(pairs, {name: parameter.grad for name, parameter in theirs.named_parameters()})
    found = dict(task.named_parameters())
    assert grads.keys() == found.keys()
    largest = max(grad.norm() for grad in grads.values())
    for name, grad in grads.items():
        assert (found[name].grad - grad).norm() <= 1e-4 * grad.norm() + 1e-7 * largest, name


@pytest.mark.parametrize("seed", range(SHAPES))
def test_t5(seed):
    transformers = pytest.importorskip("transformers")
    sizes, lengths = shapes(seed)
    head_dim = sizes["dim"] // sizes["heads"]
    task = task_of(["experiment=t5"], sizes)
    theirs = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=VOCABULARY,
            d_model=sizes["dim"],
            d_kv=head_dim,
            d_ff=4 * sizes["dim"],
            num_layers=sizes["layers"],
            num_heads=sizes["heads"],
            dropout_rate=0.0,
            decoder_start_token_id=0,
        )
    )

    def scaled(factor):  # theirs times a constant is ours, so the gradients are related by its inverse
        return lambda x: x * factor, lambda grad: grad / factor

    def attention(ours, other):
        yield ours.query.weight, other.q.weight, *scaled(head_dim**0.5)  # T5 does not divide scores by the root of K
        for name in ("key", "value", "out"):
            yield getattr(ours, name).weight, getattr(other, name[0]).weight

    def pairs():
        yield task.model.embedding.weight, theirs.shared.weight, *scaled(sizes["dim"] ** -0.5)
        for own, other in ((task.model.encoder, theirs.encoder), (task.model.decoder, theirs.decoder)):
            yield own.position.table.weight, other.block[0].layer[0].SelfAttention.relative_attention_bias.weight
            yield own.norm.weight, other.final_layer_norm.weight
            for block, layer in zip(own.blocks, other.block, strict=True):
                for part, one in zip(block.residuals, layer.layer, strict=True):
                    yield part.norm.weight, one.layer_norm.weight
                yield from attention(block.attention.layer, layer.layer[0].SelfAttention)
                if block.cross_attention is not None:
                    yield from attention(block.cross_attention.layer, layer.layer[1].EncDecAttention)
                yield block.feed_forward.layer.up.weight, layer.layer[-1].DenseReluDense.wi.weight
                yield block.feed_forward.layer.down.weight, layer.layer[-1].DenseReluDense.wo.weight

    found = copied(task, theirs, pairs())
    source, target = torch.randint(VOCABULARY, (2, sum(lengths)))
    others = lengths[::-1]
    ours = task.head(task.model(source, Layout.of(lengths), target, Layout.of(others)))
    each = [
        theirs(input_ids=one[None], decoder_input_ids=other[None]).logits[0]
        for one, other in zip(source.split(lengths), target.split(others), strict=True)
    ]
    agree(task, ours, torch.cat(each), found)
