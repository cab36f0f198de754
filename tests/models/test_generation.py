"""Reading token by token with a cache gives what reading everything again would give."""

from contextlib import nullcontext

import pytest
import torch

from tests.conftest import CELLS, POSITIONS, batch_for, small_task
from transformer_lab.layout import Layout
from transformer_lab.models.generation import Beam, Sampling, beam_search, generate
from transformer_lab.models.layers.cache import Cache
from transformer_lab.models.prepacking import prepacked_weights

PROMPTS = {
    "of many lengths": [[1, 2, 3, 4, 5], [6], [7, 8, 9, 10, 11, 12, 13, 14], [15, 16]],
    "of one length": [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]],
}
VARIANTS = {"plain": [], "window": ["model.window=3"], "grouped": ["model.num_kv_heads=1"]}


def written(task, prompts, most, sampling):
    cache = task.model.new_cache(len(prompts))
    limits = [most] * len(prompts)
    found = generate(task.model, task.head, prompts, cache, limits=limits, stop=0, sampling=sampling)
    return [one.tokens for one in found]


@pytest.mark.parametrize("prompts", PROMPTS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("position", POSITIONS)
@torch.no_grad()
def test_cached_steps_equal_the_full_forward_also_after_reordering(position, variant, prompts):
    task = small_task(f"position={position}", *VARIANTS[variant])
    sequences = [list(prompt) for prompt in PROMPTS[prompts]]
    cache = task.model.new_cache(len(sequences))
    layout = Layout.of([len(s) for s in sequences])
    tokens = torch.tensor([token for sequence in sequences for token in sequence])
    for step in range(6):
        last = task.model(tokens, layout, cache)[layout.offsets[1:].long() - 1]
        for row, sequence in enumerate(sequences):
            whole = task.model(torch.tensor(sequence), Layout.of([len(sequence)]))
            torch.testing.assert_close(last[row], whole[-1], atol=1e-5, rtol=0)
        if step == 2:  # as beams are: one row leaves, one is doubled, the order changes
            rows = torch.tensor([2, 0, 0, 1])
            cache.select(rows)
            sequences = [list(sequences[row]) for row in rows]
        new = [40 + step * 7 + row for row in range(len(sequences))]
        sequences = [[*sequence, token] for sequence, token in zip(sequences, new, strict=True)]
        tokens, layout = torch.tensor(new), cache.next()


@pytest.mark.parametrize("cell", ["language_modeling", "translation", "mlm_nsp"])
@torch.inference_mode()
def test_packed_matrices_compute_the_same_and_leave_no_trace(cell):
    task = small_task(*CELLS[cell], "model.bias=true")
    for name, parameter in task.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    batch, hidden = batch_for(task, [9, 30, 14]), torch.randn(7, task.model.dim)
    expected, logits = task(batch).losses, task.head(hidden)
    with prepacked_weights(task, 64):
        assert any("forward" in module.__dict__ for module in task.model.modules())
        torch.testing.assert_close(task(batch).losses, expected)
        torch.testing.assert_close(task.head(hidden), logits)
    assert not any("forward" in module.__dict__ for module in task.modules())


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="products in bf16 need AVX-512")
@pytest.mark.parametrize("cell", ["language_modeling", "translation"])
@torch.inference_mode()
def test_packed_matrices_round_within_autocast_as_it_does(cell):
    task = small_task(*CELLS[cell], "model.bias=true")
    for parameter in task.parameters():  # else all logits are alike
        torch.nn.init.normal_(parameter, std=0.2)
    batch = batch_for(task, [9, 30, 14])

    def logits():
        translates = cell == "translation"
        return task.head(task.hidden(batch) if translates else task.model(batch.tokens, batch.layout)).float()

    exact, errors = logits(), []
    for packing in (nullcontext(), prepacked_weights(task, 64)):
        with torch.autocast("cpu", torch.bfloat16), packing:
            errors.append(float((logits() - exact).norm() / exact.norm()))
    assert 0 < errors[1] < 1.5 * errors[0] < 0.1


@pytest.mark.parametrize("position", POSITIONS)
@torch.no_grad()
def test_greedy_text_is_the_same_with_and_without_the_cache(position):
    for seed in range(10):  # two prompts each: a hundred texts over all positions
        task = small_task(f"position={position}", seed=seed)
        prompts = [[seed, 1, 2][: 1 + seed % 3], [3, seed + 4, 5, 6, 7]]
        fast = written(task, prompts, 12, Sampling(temperature=0))
        for prompt, cached in zip(prompts, fast, strict=True):
            sequence = list(prompt)
            for _ in range(12):
                hidden = task.model(torch.tensor(sequence), Layout.of([len(sequence)]))
                token = int(task.head(hidden[-1]).argmax())
                if token == 0:
                    break
                sequence.append(token)
            assert sequence[len(prompt) :] == cached


def test_a_prompt_is_continued_alike_alone_and_among_others():
    task = small_task()
    prompts = PROMPTS["of many lengths"]
    together = written(task, prompts, 15, Sampling(seed=5))
    alone = written(task, prompts[:1], 15, Sampling(seed=5))
    assert together[0] == alone[0]


def test_of_one_prompt_several_samples_are_several_texts():
    task = small_task()
    samples = written(task, [PROMPTS["of many lengths"][0]] * 5, 15, Sampling(seed=5))
    assert len(set(map(tuple, samples))) == 5


def test_sampling_draws_from_the_distribution_it_states():
    from transformer_lab.models.generation import _choose

    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    draw = torch.Generator().manual_seed(0)

    def shares(sampling):
        drawn = torch.tensor([_choose(logits, sampling, [draw])[0] for _ in range(4000)])
        return torch.bincount(drawn, minlength=4) / 4000

    torch.testing.assert_close(shares(Sampling()), logits[0].softmax(0), atol=0.03, rtol=0)
    torch.testing.assert_close(shares(Sampling(temperature=2.0)), (logits[0] / 2).softmax(0), atol=0.03, rtol=0)
    assert shares(Sampling(top_k=2))[2:].sum() == 0
    # 0.64 + 0.24 reach 0.7 only together, so two tokens stay.
    assert (shares(Sampling(top_p=0.7)) > 0).tolist() == [True, True, False, False]
    assert shares(Sampling(temperature=0)).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_beam_finds_the_same_among_however_many_tokens_that_nothing_is_continued_with(size):
    torch.manual_seed(0)
    table = torch.randn(20, 20)  # how likely each token follows each other one; the first ends a text

    def found(place, vocabulary):
        scores = torch.full((vocabulary, vocabulary), -30.0)
        scores[place[:, None], place] = table

        def read(tokens, layout, cache):
            cache.count(layout)
            return tokens

        prompts, cache = (
            [[int(place[token])] for token in (3, 7, 12)],
            Cache([], [], rows=3, device=torch.device("cpu")),
        )
        limits, beam = [4, 9, 9], Beam(size)
        return beam_search(read, scores.__getitem__, prompts, cache, limits=limits, stop=int(place[0]), beam=beam)

    expected = found(torch.arange(20), 20)
    for vocabulary in (640, 1_291, 2_000):
        last = vocabulary - 1 - torch.arange(10)
        place = torch.cat((torch.randperm(vocabulary - 10)[:10], last))[torch.randperm(20)]
        texts = found(place, vocabulary)
        assert [one.tokens for one in texts] == [place[one.tokens].tolist() for one in expected]
        assert [one.log_p for one in texts] == pytest.approx([one.log_p for one in expected], abs=1e-4)
