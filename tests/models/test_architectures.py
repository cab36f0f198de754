"""Encoder and seq2seq as a reader believes in them: who may see whom, in every position scheme (the decoder's own
tests are in test_attention.py)."""

import pytest
import torch

from tests.conftest import POSITIONS, VOCABULARY, batch_for, small_task
from transformer_lab.layout import Layout
from transformer_lab.models.generation import Beam, beam_search
from transformer_lab.models.layers.kernels import auto, flex, reference, sdpa
from transformer_lab.training.flops import forward_flops

KERNELS = {"auto": auto, "reference": reference, "sdpa": sdpa}
RESIDUALS = ["pre_norm", "post_norm", "sandwich_norm"]
SOURCES, TARGETS = [7, 1, 20, 7, 13], [5, 9, 1, 20, 13]
SEQ2SEQ = ["task=translation"]
ENCODER = ["task=mlm_nsp"]


def random_tokens(lengths, seed=0):
    return torch.randint(VOCABULARY, (sum(lengths),), generator=torch.Generator().manual_seed(seed))


def encoded(task, tokens, lengths):
    return task.model(tokens, Layout.of(lengths))


def translated(task, source, target, sources=SOURCES, targets=TARGETS):
    return task.model(source, Layout.of(sources), target, Layout.of(targets))


def moved(before, after, lengths):
    """Of each sequence, which hidden states changed."""
    return [part.any(-1) for part in (before != after).split(lengths)]


@pytest.mark.parametrize(
    "extra",
    [[], ["model.window=4"], ["model.window=4", "model.global_every=2", "model.global_first=1"], ["model.head_dim=6"]],
    ids=str,
)
@pytest.mark.parametrize("position", POSITIONS)
def test_an_encoder_sees_both_ways_but_never_another_sequence(position, extra):
    task = small_task(*ENCODER, f"position={position}", *extra)
    tokens = random_tokens(SOURCES)
    changed = tokens.clone()
    changed[sum(SOURCES[:2]) + 9] = (changed[sum(SOURCES[:2]) + 9] + 1) % VOCABULARY
    parts = moved(encoded(task, tokens, SOURCES), encoded(task, changed, SOURCES), SOURCES)
    assert parts[2][3:16].all()  # two layers of a window of 4 reach 6 tokens either way
    assert parts[2].all() or extra == ["model.window=4"]
    assert not any(part.any() for place, part in enumerate(parts) if place != 2)


@pytest.mark.parametrize("position", [name for name in POSITIONS if name not in ("learned", "sinusoidal", "none")])
@pytest.mark.parametrize("task", [ENCODER, []], ids=["encoder", "decoder"])
def test_a_relative_scheme_sees_distances_and_not_positions(position, task):
    task = small_task(*task, f"position={position}")
    tokens, layout = random_tokens(SOURCES), Layout.of(SOURCES)
    further = Layout(layout.offsets, layout.longest, layout.positions + 9)
    one, other = task.model(tokens, layout), task.model(tokens, further)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    stretched = Layout(layout.offsets, layout.longest, layout.positions * 2)
    if position.startswith("rotary"):  # the fastest kernel counts positions itself for a bias
        assert (task.model(tokens, stretched) - one).abs().max() > 1e-3


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("position", POSITIONS)
def test_a_pair_sees_its_source_and_its_own_past_alone(position, residual):
    task = small_task(*SEQ2SEQ, f"position={position}", f"residual={residual}")
    source, target = random_tokens(SOURCES), random_tokens(TARGETS, seed=1)
    before = translated(task, source, target)
    other = target.clone()
    other[sum(TARGETS[:3]) + 8] = (other[sum(TARGETS[:3]) + 8] + 1) % VOCABULARY
    parts = moved(before, translated(task, source, other), TARGETS)
    assert parts[3][8:].all() and not parts[3][:8].any()  # the future cannot change the past
    assert not any(part.any() for place, part in enumerate(parts) if place != 3)
    other = source.clone()
    other[sum(SOURCES[:2]) + 19] = (other[sum(SOURCES[:2]) + 19] + 1) % VOCABULARY
    parts = moved(before, translated(task, other, target), TARGETS)
    assert parts[2].all()  # all of a target sees all of its source
    assert not any(part.any() for place, part in enumerate(parts) if place != 2)


@pytest.mark.parametrize("position", POSITIONS)
def test_no_gradient_flows_between_pairs_nor_from_past_to_future(position):
    task = small_task(*SEQ2SEQ, f"position={position}")
    seen = []
    task.model.embedding.register_forward_hook(lambda _, __, out: seen.append(out.retain_grad() or out))
    hidden = translated(task, random_tokens(SOURCES), random_tokens(TARGETS, seed=1))
    hidden[sum(TARGETS[:3]) + 8].sum().backward()
    sources, targets = (
        x.grad.ne(0).any(-1).split(lengths) for x, lengths in zip(seen, (SOURCES, TARGETS), strict=True)
    )
    assert sources[3].all() and not any(part.any() for place, part in enumerate(sources) if place != 3)
    assert targets[3][:9].all() and not targets[3][9:].any()
    assert not any(part.any() for place, part in enumerate(targets) if place != 3)


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("words", [ENCODER, []], ids=["encoder", "decoder"])
def test_states_asked_for_by_index_are_those_of_all_tokens_and_learn_the_same(words, residual):
    task = small_task(*words, f"residual={residual}")
    tokens, layout, indices = random_tokens(SOURCES), Layout.of(SOURCES), torch.tensor([0, 7, 30, 31, 47, 8])
    every, some = task.model(tokens, layout)[indices], task.model(tokens, layout, indices=indices)
    torch.testing.assert_close(some, every, atol=1e-5, rtol=0)
    weights = list(task.model.parameters())
    down = torch.randn(every.shape, generator=torch.Generator().manual_seed(1))
    one, other = (torch.autograd.grad(states, weights, down) for states in (every, some))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


@pytest.mark.parametrize("pooling", ["first", "pooler", "last"])
def test_the_last_feed_forward_layer_spares_tokens_that_nobody_reads(pooling):
    """A matrix of D x 4 D up and one down, two FLOPs each, for every token that no class depends on."""
    mean = small_task("task=classification", "feed_forward=gelu")
    one = small_task("task=classification", "feed_forward=gelu", f"task.pooling={pooling}")
    batch = batch_for(mean, SOURCES)
    spared = (batch.num_tokens - len(SOURCES)) * 2 * 2 * 4 * mean.model.dim**2
    pooler = len(SOURCES) * 2 * mean.model.dim**2 if pooling == "pooler" else 0
    assert forward_flops(mean, batch) - forward_flops(one, batch) == spared - pooler


@pytest.mark.parametrize("position", POSITIONS)
def test_a_sequence_alone_is_the_sequence_in_any_pack(position):
    encoder, seq2seq = small_task(*ENCODER, f"position={position}"), small_task(*SEQ2SEQ, f"position={position}")
    source, target = random_tokens(SOURCES), random_tokens(TARGETS, seed=1)
    packed = encoded(encoder, source, SOURCES).split(SOURCES), translated(seq2seq, source, target).split(TARGETS)
    for own, other, alone, pair in zip(source.split(SOURCES), target.split(TARGETS), *packed, strict=True):
        torch.testing.assert_close(encoded(encoder, own, [len(own)]), alone, atol=1e-5, rtol=0)
        found = translated(seq2seq, own, other, [len(own)], [len(other)])
        torch.testing.assert_close(found, pair, atol=1e-5, rtol=0)


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("position", POSITIONS)
def test_kernels_agree_in_value_and_gradient(position, residual):
    source, target = random_tokens(SOURCES), random_tokens(TARGETS, seed=1)
    results = []
    for kernel in KERNELS:
        words = [f"position={position}", f"attention={kernel}", f"residual={residual}"]
        encoder, seq2seq = small_task(*ENCODER, *words), small_task(*SEQ2SEQ, *words)
        outs = encoded(encoder, source, SOURCES), translated(seq2seq, source, target)
        sum(out.sin().sum() for out in outs).backward()
        blocks = encoder.model.blocks[0].attention, seq2seq.model.decoder.blocks[0].cross_attention
        results.append([*outs, *(block.layer.key.weight.grad for block in blocks)])
    for *outs, one, other in results[1:]:
        torch.testing.assert_close(outs, results[0][:2], atol=1e-5, rtol=0)
        torch.testing.assert_close([one, other], results[0][2:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("position", POSITIONS)
@torch.no_grad()
def test_flex_agrees_with_the_reference(position):
    """PyTorch runs it on a CPU without gradients only."""
    task = small_task(*SEQ2SEQ, f"position={position}")
    source, target = random_tokens(SOURCES), random_tokens(TARGETS, seed=1)
    expected = translated(task, source, target)
    for block in (*task.model.encoder.blocks, *task.model.decoder.blocks):
        for part in block.residuals[:-1]:
            part.layer.kernel = flex.attend
    torch.testing.assert_close(translated(task, source, target), expected, atol=1e-5, rtol=0)


def reader(task, source, lengths):
    """What `beam_search` reads target tokens with, of these sources."""
    memory = task.model.encode(source, Layout.of(lengths))
    return lambda tokens, layout, cache: task.model.decode(tokens, layout, None if cache.filled else memory, cache)


@pytest.mark.parametrize("extra", [[], ["model.num_kv_heads=1"], ["model.cross_position=true"]], ids=str)
@pytest.mark.parametrize("position", POSITIONS)
@torch.no_grad()
def test_cached_decoding_equals_the_full_forward_also_after_beams_are_reordered(position, extra):
    if "model.cross_position=true" in extra and not position.startswith("rotary"):
        with pytest.raises(ValueError, match=r"model\.cross_position: "):
            small_task(*SEQ2SEQ, f"position={position}", *extra)
        return
    task = small_task(*SEQ2SEQ, f"position={position}", *extra)
    source = random_tokens(SOURCES)
    read, cache = reader(task, source, SOURCES), task.model.new_cache(len(SOURCES))
    texts, owner = [[0] for _ in SOURCES], list(range(len(SOURCES)))
    tokens, layout = torch.tensor([0] * len(texts)), Layout.of([1] * len(texts))
    parts = source.split(SOURCES)
    for step in range(5):
        last = read(tokens, layout, cache)
        for row, text in enumerate(texts):
            own = parts[owner[row]]
            whole = translated(task, own, torch.tensor(text), [len(own)], [len(text)])
            torch.testing.assert_close(last[row], whole[-1], atol=1e-5, rtol=0)
        if step == 1:  # three beams of each
            rows, beams = [row for row in range(len(texts)) for _ in range(3)], 3
        elif step == 2:  # the second and the fourth sequence leave, the beams of the others change places
            rows, beams = [2, 0, 0, 8, 6, 7, 12, 14, 13], 3
        elif step == 3:  # beams change places, and no sequence leaves
            rows, beams = [1, 2, 0, 4, 4, 3, 6, 8, 8], 3
        else:
            rows, beams = list(range(len(texts))), len(texts) // len(set(owner))
        cache.select(torch.tensor(rows), beams=beams)
        texts, owner = [list(texts[row]) for row in rows], [owner[row] for row in rows]
        new = [40 + step * 17 + row for row in range(len(texts))]
        texts = [[*text, token] for text, token in zip(texts, new, strict=True)]
        tokens, layout = torch.tensor(new), cache.next()


def search(task, source, lengths, beam, most=10):
    cache = task.model.new_cache(len(lengths))
    found = beam_search(
        reader(task, source, lengths),
        task.head,
        [[0]] * len(lengths),
        cache,
        limits=[most] * len(lengths),
        stop=0,
        beam=beam,
    )
    return [one.tokens for one in found]


def log_p(task, source, text, ends):
    """Of a whole text, read at once."""
    tokens = torch.tensor([0, *text])
    hidden = translated(task, source, tokens, [len(source)], [len(tokens)])
    wanted = torch.tensor([*text, 0] if ends else text)
    return task.head(hidden)[: len(wanted)].log_softmax(-1)[torch.arange(len(wanted)), wanted].sum().item()


@torch.no_grad()
def test_greedy_search_takes_the_likeliest_token_each_time():
    for seed in range(20):  # five texts each: a hundred
        task = small_task(*SEQ2SEQ, seed=seed)
        source = random_tokens(SOURCES, seed)
        for own, found in zip(source.split(SOURCES), search(task, source, SOURCES, Beam(1)), strict=True):
            text: list[int] = []
            while len(text) < 10:
                hidden = translated(task, own, torch.tensor([0, *text]), [len(own)], [len(text) + 1])
                token = int(task.head(hidden[-1]).argmax())
                if token == 0:
                    break
                text.append(token)
            assert found == text


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@torch.no_grad()
def test_a_wider_beam_finds_what_scores_no_worse_and_a_text_alone_what_it_finds_among_others(penalty):
    better = worse = 0
    for seed in range(10):
        task = small_task(*SEQ2SEQ, seed=seed)
        source = random_tokens(SOURCES, seed)
        found = {size: search(task, source, SOURCES, Beam(size, penalty)) for size in (1, 5)}
        for row, own in enumerate(source.split(SOURCES)):
            assert search(task, own, [len(own)], Beam(5, penalty)) == [found[5][row]]
            scores = []
            for size in (1, 5):
                text = found[size][row]
                ends = len(text) < 10
                scores.append(Beam(size, penalty).score(log_p(task, own, text, ends), len(text) + ends))
            better, worse = better + (scores[1] > scores[0] + 1e-4), worse + (scores[1] < scores[0] - 1e-4)
    assert better > 5 * worse  # a beam may lose the greedy text on the way, but seldom does


def test_a_length_penalty_divides_as_in_its_paper_and_so_favours_longer_texts():
    """log p / ((5 + length) / 6) ** penalty (Wu et al., 2016, arXiv:1609.08144, equation 14)."""
    assert Beam(length_penalty=0.0).score(-3.0, 13) == -3.0
    assert Beam(length_penalty=1.0).score(-6.0, 13) == pytest.approx(-6.0 / 3)
    for penalty in (0.6, 1.0, 2.0):
        assert Beam(length_penalty=penalty).score(-4.0, 20) > Beam(length_penalty=penalty).score(-4.0, 10)
