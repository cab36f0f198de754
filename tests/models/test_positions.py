"""Position schemes: the properties their papers promise, and the reference library's numbers."""

from functools import partial

import pytest
import torch

from tests.conftest import POSITIONS, settings
from transformer_lab.composition.build import factory
from transformer_lab.models.layers.positions.alibi import Alibi
from transformer_lab.models.layers.positions.base import Position
from transformer_lab.models.layers.positions.learned import Learned
from transformer_lab.models.layers.positions.relative import RelativeBuckets
from transformer_lab.models.layers.positions.rotary import Rotary
from transformer_lab.models.layers.positions.rotary_linear import RotaryLinear
from transformer_lab.models.layers.positions.rotary_llama3 import RotaryLlama3
from transformer_lab.models.layers.positions.rotary_ntk import RotaryNTK
from transformer_lab.models.layers.positions.rotary_yarn import RotaryYaRN
from transformer_lab.models.layers.positions.sinusoidal import Sinusoidal

SIZES = {"dim": 64, "num_heads": 4, "causal": True}
WIDTH = 16
LONGER = {
    "linear": partial(RotaryLinear, **SIZES),
    "llama3": partial(RotaryLlama3, trained_length=1024, **SIZES),
    "ntk": partial(RotaryNTK, **SIZES),
    "yarn": partial(RotaryYaRN, trained_length=1024, **SIZES),
}
ROTARY = {"rotary": partial(Rotary, **SIZES), **{name: partial(make, factor=4.0) for name, make in LONGER.items()}}


def shipped(name, **sizes):
    return factory(settings(f"position={name}")["position"])(**{**SIZES, **sizes})


def speeds(rotary, base=10_000.0, width=WIDTH):
    """How far each pair of channels turns from one place to the next."""
    return rotary.frequencies(width, base)


def scores(rotary, q, k, query_positions, key_positions):
    """What each pair of a query and a key would score, if q and k stood there: (P, H)."""
    turned = [
        rotary.rotate(x.expand(len(positions), -1, -1), positions)
        for x, positions in ((q, query_positions), (k, key_positions))
    ]
    return (turned[0] * turned[1]).sum(-1)


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("causal", [True, False])
def test_every_scheme_keeps_the_contract(name, causal):
    position = shipped(name, causal=causal)
    x, positions = torch.randn(5, 64), torch.arange(5)
    assert position.embed(x, positions).shape == x.shape
    for heads in (4, 2):  # queries, and fewer keys
        assert position.rotate(torch.randn(5, heads, WIDTH), positions).shape == (5, heads, WIDTH)
    bias = position.bias(positions[:2], positions)
    assert bias is None or bias.shape == (4, 2, 5)
    assert position.local() is position
    assert position.refusal and "\n" not in position.refusal
    assert position.crosses == name.startswith("rotary")


@pytest.mark.parametrize("name", POSITIONS)
def test_every_scheme_can_be_built_without_memory(name):
    with torch.device("meta"):
        position, positions = shipped(name), torch.arange(5)
        x = position.embed(torch.randn(5, 64), positions)
        turned, bias = position.rotate(torch.randn(5, 4, WIDTH), positions), position.bias(positions, positions)
    assert all(tensor is None or tensor.is_meta for tensor in (x, turned, bias, *position.state_dict().values()))
    assert all(buffer.is_meta for buffer in position.buffers())


@pytest.mark.parametrize("name", POSITIONS)
def test_only_what_is_trained_is_saved(name):
    position = shipped(name)
    assert set(position.state_dict()) == {name for name, _ in position.named_parameters()}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("num_buckets, max_distance", [(32, 128), (4, 3), (6, 20), (10, 100), (64, 256), (32, 1000)])
def test_relative_buckets_are_those_of_t5(causal, num_buckets, max_distance):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    sizes = {"num_buckets": num_buckets, "max_distance": max_distance}
    ours = RelativeBuckets(**{**SIZES, "causal": causal}, **sizes)
    with torch.no_grad():  # each head gets the number of the bucket for its bias
        ours.table.weight.copy_(torch.arange(num_buckets)[:, None])
    positions = torch.arange(2 * max_distance + 10)
    theirs = t5.T5Attention._relative_position_bucket(
        positions[None] - positions[:, None], bidirectional=not causal, **sizes
    )
    assert (ours.bias(positions, positions) == theirs).all()


@pytest.mark.parametrize("causal", [True, False])
def test_a_relative_bias_and_its_gradient_are_those_of_t5(causal):
    transformers = pytest.importorskip("transformers")
    from transformers.models.t5.modeling_t5 import T5Attention

    config = transformers.T5Config(d_model=64, num_heads=4, is_decoder=causal)
    ours, theirs = shipped("relative", causal=causal), T5Attention(config, has_relative_attention_bias=True)
    ours, theirs = ours.double(), theirs.double()
    with torch.no_grad():
        ours.table.weight.copy_(theirs.relative_attention_bias.weight)
    positions, weights = torch.arange(150), torch.randn(4, 150, 150, dtype=torch.float64)
    bias, expected = ours.bias(positions, positions), theirs.compute_bias(150, 150)[0]
    assert torch.equal(bias, expected)
    (bias * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.table.weight.grad, theirs.relative_attention_bias.weight.grad)


def test_relative_buckets_of_an_encoder_are_half_for_what_stands_before_and_half_for_what_follows():
    relative, positions = RelativeBuckets(**{**SIZES, "causal": False}), torch.arange(8)
    with torch.no_grad():
        relative.table.weight.copy_(torch.arange(32)[:, None])
    assert relative.bias(positions, positions)[0, 3].tolist() == [3, 2, 1, 0, 17, 18, 19, 20]  # T5's numbers


@pytest.mark.parametrize("name", ["alibi", "relative"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_bias_depends_on_the_distance_alone(name, causal):
    position = shipped(name, causal=causal)
    positions = torch.arange(300)
    bias = position.bias(positions, positions)
    assert torch.equal(bias, position.bias(positions + 12_345, positions + 12_345))
    for distance in (-200, -5, 0, 5, 200):
        along = bias.diagonal(-distance, dim1=1, dim2=2)
        assert (along == along[:, :1]).all()
    assert not torch.equal(bias[:, 100, 95], bias[:, 100, 94])


@pytest.mark.parametrize("name", ["alibi", "relative"])
def test_the_bias_of_single_tokens_is_a_row_of_the_whole(name):
    """While decoding, each row of the batch asks for one query, each at a place of its own."""
    position, positions = shipped(name), torch.arange(200)
    some = torch.tensor([7, 199, 0])
    assert torch.equal(position.bias(some, positions), position.bias(positions, positions)[:, some])


def test_both_sides_differ_to_an_encoder_and_the_future_is_one_to_a_decoder():
    positions = torch.arange(100)
    both, back = (shipped("relative", causal=causal).bias(positions, positions) for causal in (False, True))
    assert not torch.equal(both[:, 50, 45], both[:, 50, 55])
    assert (back[:, 50, 50:] == back[:, 50, 50:51]).all()


@pytest.mark.parametrize("name", ROTARY)
def test_rotary_scores_depend_on_the_distance_alone(name):
    rotary = ROTARY[name]()
    q, k = torch.randn(1, 4, WIDTH), torch.randn(1, 4, WIDTH)
    near, far = torch.arange(200), torch.arange(0, 200).flip(0)
    expected = scores(rotary, q, k, near, far)
    for shift in (1, 1000, 16_000):
        torch.testing.assert_close(scores(rotary, q, k, near + shift, far + shift), expected, atol=2e-5, rtol=0)
    assert not torch.allclose(expected, scores(rotary, q, k, near, far + 1), atol=1e-2)


@pytest.mark.parametrize("name", ROTARY)
def test_rotary_leaves_the_first_place_as_it_is_but_for_its_scale(name):
    rotary, x = ROTARY[name](), torch.randn(1, 4, WIDTH)
    torch.testing.assert_close(rotary.rotate(x, torch.tensor([0])), x * rotary.scale)


@pytest.mark.parametrize("name", LONGER)
def test_a_factor_of_one_is_rotary_itself(name):
    assert torch.equal(LONGER[name](factor=1.0).table, Rotary(**SIZES).table)


@pytest.mark.parametrize("factor", [2, 3, 10])
def test_linear_gives_a_far_place_what_rotary_gives_the_place_before_stretching(factor):
    positions, x = torch.arange(1000), torch.randn(1000, 4, WIDTH)
    stretched = RotaryLinear(factor=factor, **SIZES).rotate(x, positions * factor)
    torch.testing.assert_close(stretched, Rotary(**SIZES).rotate(x, positions), atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", ["llama3", "ntk", "yarn"])
def test_the_fastest_pair_keeps_its_speed_and_the_slowest_is_interpolated(name):
    plain, scaled = speeds(Rotary(**SIZES)), speeds(LONGER[name](factor=8.0))
    slower = plain / scaled
    assert slower[0] == 1
    assert slower[-1].item() == pytest.approx(8)
    assert (slower.diff() >= 0).all()


def test_yarn_keeps_pairs_of_many_turns_and_interpolates_pairs_of_less_than_one():
    yarn = RotaryYaRN(factor=8.0, trained_length=4096, dim=128, num_heads=1, causal=True)
    plain, scaled = speeds(Rotary(dim=128, num_heads=1, causal=True), width=128), speeds(yarn, width=128)
    turns = 4096 * plain / (2 * torch.pi)  # within the trained length
    step = 10_000 ** (2 / 128)  # the ramp ends at whole pairs: up to one later than at 32 turns and at 1
    torch.testing.assert_close(scaled[turns > 32 * step], plain[turns > 32 * step])
    torch.testing.assert_close(scaled[turns < 1 / step], plain[turns < 1 / step] / 8)
    between = (turns < 32 / step) & (turns > step)
    assert ((plain > scaled) & (scaled > plain / 8))[between].all() and between.any()


def test_llama3_passes_evenly_from_pairs_of_one_turn_to_pairs_of_four():
    sizes = {"dim": 128, "num_heads": 1, "causal": True}
    plain = speeds(Rotary(**sizes), width=128)
    scaled = speeds(RotaryLlama3(factor=8.0, trained_length=4096, **sizes), width=128)
    turns = 4096 * plain / (2 * torch.pi)  # within the trained length
    assert torch.equal(scaled[turns > 4], plain[turns > 4])
    torch.testing.assert_close(scaled[turns < 1], plain[turns < 1] / 8)
    between = (turns > 1) & (turns < 4)
    share = (scaled / plain)[between]  # of the speed that is kept: from an eighth at one turn to all at four
    torch.testing.assert_close(share, 1 / 8 + (turns[between] - 1) / 3 * 7 / 8)
    assert between.any()


@pytest.mark.parametrize("trained_length, slower", [(1, 8), (6, 8), (10**12, 1)])
def test_yarn_at_lengths_that_few_or_all_pairs_turn_within(trained_length, slower):
    plain, yarn = Rotary(**SIZES), RotaryYaRN(factor=8.0, trained_length=trained_length, **SIZES)
    torch.testing.assert_close((speeds(plain) / speeds(yarn))[1:], torch.full((7,), float(slower)).double())


def theirs(kind, width, base, longest=None, **parameters):
    """The reference library's speeds and scale."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_type": kind, "rope_theta": base, **parameters}
    trained = parameters.get("original_max_position_embeddings", 1000)
    config = transformers.LlamaConfig(
        hidden_size=width, num_attention_heads=1, max_position_embeddings=trained, rope_parameters=parameters
    )
    return ROPE_INIT_FUNCTIONS[kind](config, device=torch.device("cpu"), seq_len=longest)


SHAPES = [(16, 10_000.0, 2.0), (64, 10_000.0, 4.0), (128, 500_000.0, 32.0)]


@pytest.mark.parametrize("width, base, factor", SHAPES)
def test_linear_is_the_reference_librarys(width, base, factor):
    expected, scale = theirs("linear", width, base, factor=factor)
    rotary = RotaryLinear(dim=width, num_heads=1, causal=True, factor=factor, base=base)
    torch.testing.assert_close(speeds(rotary, base, width).float(), expected, atol=1e-6, rtol=1e-6)
    assert rotary.scale == scale


@pytest.mark.parametrize("width, base, factor", SHAPES)
def test_ntk_is_the_reference_librarys_dynamic_one_at_a_fixed_length(width, base, factor):
    expected, scale = theirs("dynamic", width, base, longest=int(1000 * factor), factor=1.0)
    rotary = RotaryNTK(dim=width, num_heads=1, causal=True, factor=factor, base=base)
    torch.testing.assert_close(speeds(rotary, base, width).float(), expected, atol=1e-6, rtol=1e-6)
    assert rotary.scale == scale


@pytest.mark.parametrize("width, base, factor", SHAPES)
@pytest.mark.parametrize("trained_length", [256, 2048, 8192])
def test_yarn_is_the_reference_librarys(width, base, factor, trained_length):
    expected, scale = theirs("yarn", width, base, factor=factor, original_max_position_embeddings=trained_length)
    rotary = RotaryYaRN(dim=width, num_heads=1, causal=True, factor=factor, trained_length=trained_length, base=base)
    torch.testing.assert_close(speeds(rotary, base, width).float(), expected, atol=1e-6, rtol=1e-6)
    assert rotary.scale == pytest.approx(scale)
    turn = rotary.table[1]  # what it does with them: at place 1 the angles are the speeds
    torch.testing.assert_close(turn[:, 0], expected.cos() * scale, atol=1e-6, rtol=0)
    torch.testing.assert_close(turn[:, 1], expected.sin() * scale, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ROTARY)
def test_layers_with_a_window_turn_by_a_base_of_their_own(name):
    """Plain rotary, whatever stretches the other layers: a window is no longer than in training."""
    rotary = ROTARY[name](max_length=100, local_base=50.0)
    local = rotary.local()
    assert torch.equal(local.table, Rotary(**SIZES, max_length=100, base=50.0).table)
    assert (local.max_length, local.local()) == (100, local)
    assert torch.equal(rotary.table, ROTARY[name](max_length=100).table)


IMPOSSIBLE = [
    (RelativeBuckets, {"num_buckets": 7}, "num_buckets"),
    (RelativeBuckets, {"num_buckets": 2}, "num_buckets"),
    (RelativeBuckets, {"num_buckets": -4}, "num_buckets"),
    (RelativeBuckets, {"max_distance": 16}, "max_distance"),
    (Learned, {"max_length": 0}, "max_length"),
    (Sinusoidal, {"max_length": 0}, "max_length"),
    (Rotary, {"max_length": 0}, "max_length"),
    (Rotary, {"base": 0.0}, "base"),
    (Rotary, {"local_base": -1.0}, "local_base"),
    (RotaryLinear, {"factor": 0.5}, "factor"),
    (RotaryNTK, {"factor": 0.0}, "factor"),
    (RotaryYaRN, {"factor": float("nan"), "trained_length": 64}, "factor"),
    (RotaryYaRN, {"factor": float("inf"), "trained_length": 64}, "factor"),
    (RotaryYaRN, {"factor": 2.0, "trained_length": 0}, "trained_length"),
    (RotaryYaRN, {"factor": 2.0, "trained_length": 64, "base": 1.0}, "base"),
    (RotaryYaRN, {"factor": 2.0, "trained_length": 64, "base": 0.0}, "base"),
]


@pytest.mark.parametrize("make, values, key", IMPOSSIBLE)
def test_impossible_values_are_refused_in_one_line(make, values, key):
    with pytest.raises(ValueError, match=rf"^position\.{key}: .*{values[key]}[^\n]*$"):
        make(**SIZES, **values)


@pytest.mark.parametrize("make, dim", [(Rotary, 6), (partial(RotaryNTK, factor=2.0), 4), (Sinusoidal, 5)])
def test_impossible_sizes_are_refused_in_one_line(make, dim):
    with pytest.raises(ValueError, match=r"^position: [^\n]*$"):
        make(dim=dim, num_heads=2, causal=True)


def test_only_positions_that_are_turned_by_cross():
    kinds = [Position, Alibi, Learned, Sinusoidal, RelativeBuckets]
    assert not any(kind.crosses for kind in kinds)
    assert len({kind.refusal for kind in kinds}) == len(kinds)
    assert all(kind.crosses for kind in (Rotary, RotaryLinear, RotaryNTK, RotaryYaRN))
