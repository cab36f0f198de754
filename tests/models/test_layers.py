"""Norms, feed-forwards, positions and the loss against PyTorch's own or the formula of their paper."""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.conftest import small_task
from transformer_lab.layout import Layout
from transformer_lab.models.blocks import PostNorm, PreNorm, SandwichNorm
from transformer_lab.models.heads import SequenceHead
from transformer_lab.models.layers.dropout import Dropout
from transformer_lab.models.layers.feed_forward import GELU, GeGLU, ReLU, SquaredReLU, SwiGLU
from transformer_lab.models.layers.norms import LayerNorm, RMSNorm
from transformer_lab.models.layers.positions.alibi import Alibi, slopes
from transformer_lab.models.layers.positions.rotary import Rotary
from transformer_lab.models.layers.positions.sinusoidal import Sinusoidal
from transformer_lab.models.token_loss import LOGITS_AT_ONCE, cross_entropy, token_loss


def test_rms_norm_makes_the_mean_square_one():
    x = 7 * torch.randn(50, 16)
    torch.testing.assert_close(RMSNorm(dim=16)(x).pow(2).mean(-1), torch.ones(50), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(50, 16), (50, 4, 16)], ids=["states", "heads"])
def test_rms_norm_and_its_gradients_are_those_of_pytorch(shape):
    x, weight, norm = 7 * torch.randn(shape), torch.rand(16), RMSNorm(dim=16, eps=1e-3)
    found, expected = [x.clone().requires_grad_() for _ in range(2)]
    norm.weight.data.copy_(weight)
    weight.requires_grad_()
    outs = norm(found), F.rms_norm(expected, (16,), weight, 1e-3)
    torch.testing.assert_close(*outs)
    direction = torch.randn(shape)
    for out in outs:
        (out * direction).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)
    torch.testing.assert_close(norm.weight.grad, weight.grad)
    assert norm(x.bfloat16()).dtype == torch.bfloat16  # as what went in


def test_layer_norm_makes_mean_zero_and_variance_one():
    y = LayerNorm(dim=16)(3 + 7 * torch.randn(50, 16))
    torch.testing.assert_close(y.mean(-1), torch.zeros(50), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(-1, correction=0), torch.ones(50), atol=1e-3, rtol=0)


@pytest.mark.parametrize("make", [GELU, ReLU, SquaredReLU, SwiGLU, GeGLU])
def test_feed_forwards_have_about_eight_d_squared_weights_and_treat_tokens_alone(make):
    layer = make(dim=96)
    assert sum(p.numel() for p in layer.parameters()) == pytest.approx(8 * 96 * 96, rel=0.02)
    x = torch.randn(5, 96)
    torch.testing.assert_close(layer(x)[2], layer(x[2:3])[0])


def test_what_blocks_add_starts_smaller_by_the_root_of_how_often_they_do():
    plain, scaled, zero = (small_task(f"model.residual_init={how}").model for how in ("plain", "scaled", "zero"))
    for mine, smaller, none in zip(plain.blocks, scaled.blocks, zero.blocks, strict=True):
        for part in ("attention", "feed_forward"):
            weights = [getattr(block, part).layer.output.weight for block in (mine, smaller, none)]
            torch.testing.assert_close(weights[1], weights[0] * 4**-0.5)  # two layers add twice each
            assert not weights[2].any()


@pytest.mark.parametrize("pooling, indices", [("first", [0, 3, 4]), ("last", [2, 3, 7]), ("mean", None)])
def test_a_sequence_is_its_first_token_its_last_or_their_mean(pooling, indices):
    head, hidden, layout = SequenceHead(dim=4, num_classes=2, pooling=pooling), torch.randn(8, 4), Layout.of([3, 1, 4])
    found = head.indices(layout)
    assert (None if found is None else found.tolist()) == indices
    vectors = torch.stack([part.mean(0) for part in hidden.split([3, 1, 4])]) if found is None else hidden[found]
    torch.testing.assert_close(head.pool(hidden if found is None else hidden[found], layout), vectors)


FORMULAS = {
    GELU: lambda up, _: up * 0.5 * (1 + torch.erf(up / 2**0.5)),
    ReLU: lambda up, _: up.clamp(min=0),
    SquaredReLU: lambda up, _: up.clamp(min=0) ** 2,
    SwiGLU: lambda up, gate: gate * torch.sigmoid(gate) * up,
    GeGLU: lambda up, gate: gate * 0.5 * (1 + torch.erf(gate / 2**0.5)) * up,
}


@pytest.mark.parametrize("make", FORMULAS)
def test_a_feed_forward_is_the_formula_of_its_name(make):
    layer, x = make(dim=8), torch.randn(5, 8)
    gate = layer.gate(x) if hasattr(layer, "gate") else None
    found, expected = layer(x), layer.down(FORMULAS[make](layer.up(x), gate))
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(out.square().sum(), list(layer.parameters())) for out in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_rotary_scores_depend_on_the_distance_alone():
    rotary = Rotary(dim=32, num_heads=2, causal=True)
    q, k = torch.randn(1, 2, 16), torch.randn(1, 2, 16)

    def score(query_place, key_place):
        turned = [rotary.rotate(x, torch.tensor([place])) for x, place in ((q, query_place), (k, key_place))]
        return (turned[0] * turned[1]).sum(-1)

    torch.testing.assert_close(score(9, 4), score(105, 100), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(score(9, 4), score(9, 5))


def test_rotary_by_complex_numbers_is_the_rotation_of_the_paper():
    rotary, x = Rotary(dim=8, num_heads=2, causal=True, base=100.0), torch.randn(1, 2, 4)
    turned, place = rotary.rotate(x, torch.tensor([3])), 3
    for pair, angle in enumerate((place * 1.0, place * 100.0 ** (-2 / 4))):
        a, b = x[0, :, 2 * pair], x[0, :, 2 * pair + 1]
        torch.testing.assert_close(turned[0, :, 2 * pair], a * math.cos(angle) - b * math.sin(angle))
        torch.testing.assert_close(turned[0, :, 2 * pair + 1], b * math.cos(angle) + a * math.sin(angle))


def test_sinusoidal_is_the_formula_of_the_paper():
    table = Sinusoidal(dim=6, num_heads=1, causal=True, scale=1.0).embed(torch.zeros(4, 6), torch.arange(4))
    for place in range(4):
        for i in range(3):
            angle = place / 10_000 ** (2 * i / 6)
            assert table[place, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[place, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_alibi_slopes_are_those_of_the_paper():
    torch.testing.assert_close(slopes(8), torch.tensor([2.0 ** -(i + 1) for i in range(8)]))
    assert len(set(slopes(12).tolist())) == 12
    bias = Alibi(dim=8, num_heads=8, causal=True).bias(torch.arange(3), torch.arange(3))
    assert bias[0, 2].tolist() == [-1.0, -0.5, 0.0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_chunked_loss_is_cross_entropy_in_value_and_gradient(chunk, biased, smoothing, monkeypatch):
    monkeypatch.setitem(LOGITS_AT_ONCE, "cpu", chunk * 11)
    hidden, weight = torch.randn(20, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    bias = torch.randn(11, requires_grad=True) if biased else None
    parts = (hidden, weight, bias) if bias is not None else (hidden, weight)
    targets = torch.randint(11, (20,))
    logits = F.linear(hidden, weight, bias)
    expected = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
    wanted = torch.autograd.grad(expected * 0.3, parts)
    loss = token_loss(hidden, weight, targets, bias, smoothing)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss * 0.3, parts), wanted)
    # What a compiler is given computes the same.
    loss = token_loss(hidden, weight, targets, bias, smoothing, compiled=cross_entropy)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss * 0.3, parts), wanted)
    with torch.no_grad():
        torch.testing.assert_close(token_loss(hidden, weight, targets, bias, smoothing), expected)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    dropout, x = Dropout(share), torch.ones(400, 1000, requires_grad=True)
    y = dropout(x)
    assert (y == 0).float().mean().item() == pytest.approx(share, abs=0.004)
    assert y.mean().item() == pytest.approx(1, abs=0.01)
    y.sum().backward()
    assert torch.equal(x.grad, y)  # the gradient passes where the value does, scaled alike
    rows, columns = (y == 0).float().mean(1), (y == 0).float().mean(0)
    assert rows.std() < 0.03 and columns.std() < 0.05  # no pattern
    assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize("kind", [PreNorm, PostNorm, SandwichNorm])
def test_a_residual_normalises_where_its_name_says(kind):
    """Before the layer: what it adds does not grow with its input. Behind the sum: the whole does not."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(16, 16, bias=False)
    residual = kind(dim=16, layer=layer, norm=LayerNorm, dropout=0.0)
    x = torch.randn(5, 16)
    if kind is PostNorm:
        torch.testing.assert_close(residual(10 * x), residual(x), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(residual(x), residual.norm(x + layer(x)))
    else:
        torch.testing.assert_close(residual(10 * x) - 10 * x, residual(x) - x, atol=1e-4, rtol=1e-4)
        assert (residual(x) - x).abs().max() > 0.1
    if kind is SandwichNorm:
        torch.testing.assert_close((residual(x) - x).var(1, correction=0), torch.ones(5), atol=1e-3, rtol=0)
