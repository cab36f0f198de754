"""With weights copied in, models compute what the reference library's compute; presets have their published size."""

import random

import pytest
import torch
from torch.nn import functional as F

from tests.conftest import VOCABULARY, settings
from tests.interop.families import CLASSES, NAMES, options_of, task_from
from transformer_lab.composition.build import build_task, task_class
from transformer_lab.interop.families import LANGUAGE_MODELING, MLM_NSP, TRANSLATION
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

    def knows(self, name):
        return False


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


def gradients(pairs, theirs, ours):
    """What the gradients of our parameters are for theirs, of which ours are a linear function."""
    leaf = {id(x): x.detach().clone().requires_grad_() for x in theirs.state_dict(keep_vars=True).values()}
    leaves = {name: leaf[id(x)] for name, x in theirs.state_dict(keep_vars=True).items()}  # tied ones by all names
    found = inward(pairs, leaves)
    assert found.keys() == ours.keys()
    sum((found[name] * parameter.grad).sum() for name, parameter in ours.items()).backward()
    return {name: leaves[name].grad for name, parameter in theirs.named_parameters() if parameter.requires_grad}


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
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    keys = family.inward(Theirs({**config.to_dict(), "architectures": [head.architecture]}, "config.json"), head)
    pairs = family.pairs(keys, head)
    task = task_from(keys, head)
    task.load_state_dict(inward(pairs, theirs.state_dict()))
    task.eval(), theirs.eval()
    lengths = [draw.randint(1, 24) for _ in range(draw.randint(1, 5))]
    tokens, layout = torch.randint(2, VOCABULARY, (sum(lengths),)), Layout.of(lengths)  # none that fills up
    parts = tokens.split(lengths)
    if head.task == TRANSLATION:
        target, others = torch.randint(2, VOCABULARY, (sum(lengths),)), lengths[::-1]
        hidden = task.model(tokens, layout, target, Layout.of(others))
        both = zip(parts, target.split(others), strict=True)
        each = [theirs(input_ids=part[None], decoder_input_ids=other[None]) for part, other in both]
    elif keys.get("model.token_types"):
        types = torch.randint(keys["model.token_types"], (sum(lengths),))
        hidden = task.model(tokens, layout, types)
        both = zip(parts, types.split(lengths), strict=True)
        each = [theirs(part[None], token_type_ids=kinds[None]) for part, kinds in both]
    else:
        hidden, each = task.model(tokens, layout), [theirs(part[None]) for part in parts]
    if head.task in (LANGUAGE_MODELING, TRANSLATION):
        pairs_of_logits = [(task.head(hidden), torch.cat([one.logits[0] for one in each]))]
    elif head.task == MLM_NSP:
        words = "prediction_logits" if task.nsp_head is not None else "logits"
        pairs_of_logits = [(task.head(task.transform(hidden)), torch.cat([one[words][0] for one in each]))]
        if task.nsp_head is not None:
            judged = task.nsp_head(hidden[task.nsp_head.indices(layout)], layout)
            pairs_of_logits.append((judged, torch.cat([one.seq_relationship_logits for one in each])))
    else:
        rows = task.head.indices(layout)
        judged = task.head(hidden if rows is None else hidden[rows], layout)
        pairs_of_logits = [(judged, torch.cat([one.logits for one in each]))]
    for ours, expected in pairs_of_logits:
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
        targets = torch.randint(ours.shape[1], (len(ours),))
        for logits in (ours, expected):
            F.cross_entropy(logits, targets).backward(retain_graph=True)
    grads = gradients(pairs, theirs, dict(task.named_parameters()))
    largest = max(grad.norm() for grad in grads.values())
    for name, parameter in ((name, x) for name, x in theirs.named_parameters() if x.requires_grad):
        assert (grads[name] - parameter.grad).norm() <= 1e-4 * parameter.grad.norm() + 1e-7 * largest, name
