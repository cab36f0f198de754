"""What moves, by how much, and that a resumed run cannot tell that it was stopped."""

import copy
import json
import math

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from tests.conftest import SMALL, settings
from transformer_lab.composition.build import build_optimizer, rehearse
from transformer_lab.composition.checks import problems
from transformer_lab.training import optimizers
from transformer_lab.training.optimizers import QUINTICS, AdamW, Muon, orthogonal


class Model(nn.Module):
    """Square, wide, tall, norm, bias, embedding and head, as in a transformer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.RMSNorm(8), nn.Linear(8, 8), nn.Linear(8, 24), nn.Linear(24, 8)) for _ in range(2)
        )
        self.norm = nn.RMSNorm(8)
        self.head = nn.Linear(8, 11, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = x + block(x).tanh()
        return self.head(self.norm(x))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


@pytest.fixture(autouse=True, params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def product_dtype(request, monkeypatch):
    monkeypatch.setattr(optimizers, "product_dtype", lambda device: request.param)
    return request.param


def muon(model, **more):
    return Muon(model=model, lr=0.02, adamw_lr=3e-3, **more)


def adamw(model, **more):
    return AdamW(model=model, lr=1e-3, **more)


def train(model, optimizer, steps):
    for step in steps:
        tokens = torch.randint(11, (5, 7), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()


def with_gradients(model, scale=1.0, seed=1):
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn_like(parameter)
    return model


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def random_spectrum(rows, columns):
    left = torch.linalg.qr(torch.randn(rows, rows)).Q
    right = torch.linalg.qr(torch.randn(columns, columns)).Q
    rank = min(rows, columns)
    return left[:, :rank] * torch.logspace(0, -2, rank) @ right[:rank]


# AdamW


def test_adamw_is_pytorchs(model):
    twin = copy.deepcopy(model)
    decayed = [p for p in twin.parameters() if p.ndim == 2]
    others = [p for p in twin.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(groups, lr=1e-3, betas=(0.8, 0.9), foreach=False)
    train(model, adamw(model, weight_decay=0.1, betas=[0.8, 0.9]), range(5))
    train(twin, theirs, range(5))
    for name, weight in weights(twin).items():
        torch.testing.assert_close(weights(model)[name], weight, msg=name)


@pytest.mark.parametrize("make", [adamw, muon])
def test_only_matrices_decay(model, make):
    before = weights(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = make(model, weight_decay=0.5)
    optimizer.step()
    kept = {id(p): 1 - g["lr"] * g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        assert (kept[id(parameter)] < 1) == (parameter.ndim == 2)
        torch.testing.assert_close(parameter.detach(), before[name] * kept[id(parameter)])


# Muon


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest(model):
    whole = nn.ModuleDict({"encoder": model, "decoder": Model()})  # blocks at any depth, as in a seq2seq task
    optimizer = muon(whole)
    with_gradients(whole)
    optimizer.step()
    for name, parameter in whole.named_parameters():
        expected = (
            {"momentum_buffer"} if ".blocks." in name and parameter.ndim == 2 else {"exp_avg", "exp_avg_sq", "step"}
        )
        assert set(optimizer.state[parameter]) == expected, name


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (16, 16), (16, 64), (64, 16), (48, 100), (96, 40)])
def test_singular_values_become_one_and_directions_stay(shape, product_dtype):
    torch.manual_seed(0)
    matrices = torch.stack([random_spectrum(*shape) * 10.0**exponent for exponent in (-12, 0, 12)])
    for before, after in zip(matrices, orthogonal(matrices), strict=True):
        values = torch.linalg.svdvals(after)
        assert 0.7 < values.min() <= values.max() < 1.2
        u, _, v = torch.linalg.svd(before, full_matrices=False)
        turned = u.T @ after @ v.T  # diagonal if no singular vector has turned
        noise = 1e-3 if product_dtype == torch.float32 else 0.2
        assert (turned - turned.diag().diag()).abs().max() < noise


def test_muon_equals_one_matrix_at_a_time_by_its_singular_values(model, product_dtype):
    if product_dtype != torch.float32:
        pytest.skip("exact in fp32 only")
    lr, momentum, decay = 0.02, 0.9, 0.1
    inside = {k: p for k, p in model.named_parameters() if k.startswith("blocks.") and p.ndim == 2}
    expected = {name: p.detach().double() for name, p in inside.items()}
    means = {name: torch.zeros_like(p) for name, p in expected.items()}
    optimizer = muon(model, momentum=momentum, weight_decay=decay)
    for step in range(3):
        with_gradients(model, seed=step)  # others each time, or the momentum would not show in the direction
        optimizer.step()
        for name, weight in expected.items():
            grad = inside[name].grad.double()
            means[name] = momentum * means[name] + (1 - momentum) * grad
            u, s, v = torch.linalg.svd(momentum * means[name] + (1 - momentum) * grad, full_matrices=False)
            s = s / s.pow(4).sum().pow(1 / 4)
            for a, b, c in QUINTICS:
                s = a * s + b * s**3 + c * s**5
            rows, columns = weight.shape
            scale = math.sqrt(max(1, rows / columns))
            expected[name] = weight * (1 - lr * decay) - lr * scale * (u * s) @ v
    for name, parameter in inside.items():
        torch.testing.assert_close(parameter.detach().double(), expected[name], rtol=0, atol=1e-5, msg=name)


def test_the_adamw_in_muon_is_adamw(model):
    twin = copy.deepcopy(model)
    ours, theirs = muon(model), AdamW(model=twin, lr=3e-3)
    for _ in range(3):
        for each, optimizer in ((model, ours), (twin, theirs)):
            with_gradients(each)
            optimizer.step()
    for name in ("embedding.weight", "head.weight", "norm.weight", "blocks.0.1.bias"):
        assert torch.equal(weights(model)[name], weights(twin)[name])


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_size_of_the_gradient_does_not_matter(model, scale):
    twin = copy.deepcopy(model)
    muon(with_gradients(model)).step()
    muon(with_gradients(twin, scale)).step()
    inside = [name for name, p in model.named_parameters() if "blocks" in name and p.ndim == 2]
    for name in inside:
        torch.testing.assert_close(weights(model)[name], weights(twin)[name], rtol=0, atol=1e-3)


def test_a_zero_gradient_moves_nothing(model):
    before = weights(model)
    optimizer = muon(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())


# Both


@pytest.mark.parametrize("make", [adamw, muon])
def test_what_has_no_gradient_stays(model, make):
    before = weights(model)
    optimizer = make(with_gradients(model), weight_decay=0.1)
    still = {"blocks.0.1.weight", "embedding.weight", "norm.weight"}
    for name, parameter in model.named_parameters():
        if name in still:
            parameter.grad = None
    optimizer.step()
    assert {name for name, weight in weights(model).items() if torch.equal(weight, before[name])} == still


@pytest.mark.parametrize("make", [adamw, muon])
def test_the_schedule_finds_the_peak_of_every_group(model, make):
    before = weights(model)
    optimizer = make(with_gradients(model))
    for group in optimizer.param_groups:
        assert group["lr"] == group["initial_lr"] > 0
        group["lr"] = group["initial_lr"] * 0.0
    optimizer.step()
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())


@pytest.mark.parametrize("make", [adamw, muon])
def test_resumed_equals_uninterrupted_bit_for_bit(model, make):
    twin = copy.deepcopy(model)
    train(model, make(model, weight_decay=0.1), range(10))

    first = make(twin, weight_decay=0.1)
    train(twin, first, range(5))
    state = first.state_dict()
    tensors = save({f"{index}.{name}": t for index, values in state["state"].items() for name, t in values.items()})
    groups = json.dumps(state["param_groups"])

    restored = {}
    for key, tensor in load(tensors).items():
        index, name = key.split(".")
        restored.setdefault(int(index), {})[name] = tensor
    second = make(twin, weight_decay=0.1)
    second.load_state_dict({"state": restored, "param_groups": json.loads(groups)})
    train(twin, second, range(5, 10))
    assert all(torch.equal(weight, weights(model)[name]) for name, weight in weights(twin).items())


@pytest.mark.parametrize("make", [adamw, muon])
def test_frozen_parameters_are_left_alone(model, make):
    model.embedding.weight.requires_grad_(False)
    held = {id(p) for group in make(model).param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()} - {id(model.embedding.weight)}


@pytest.mark.parametrize("make", [adamw, muon])
def test_a_closure_is_called_with_gradients_on(model, make):
    assert make(with_gradients(model)).step(torch.is_grad_enabled) is True


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (AdamW, "lr", 0.0),
        (AdamW, "weight_decay", -0.1),
        (AdamW, "betas", [0.9, 1.0]),
        (AdamW, "eps", 0.0),
        (Muon, "lr", -0.02),
        (Muon, "adamw_lr", 0.0),
        (Muon, "momentum", 1.0),
        (Muon, "weight_decay", -1.0),
        (Muon, "adamw_betas", [-0.1, 0.9]),
        (Muon, "adamw_eps", -1e-8),
    ],
)
def test_impossible_values_are_named(model, kind, option, value):
    plain = {"lr": 1e-3} if kind is AdamW else {"lr": 0.02, "adamw_lr": 3e-3}
    with pytest.raises(ValueError, match=rf"^optimizer.{option}: must be "):
        kind(model=model, **(plain | {option: value}))


def test_muon_without_blocks_says_so():
    with pytest.raises(ValueError, match=r"^optimizer: Muon finds no matrices"):
        muon(nn.Linear(3, 3))


@pytest.mark.parametrize("make", [muon, adamw])
def test_lower_layers_learn_slower_by_the_same_factor_each(model, make):
    plain, decayed = make(model), make(model, layer_decay=0.5)
    rates = [
        {p: group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
        for optimizer in (plain, decayed)
    ]
    below = {"head": 0, "norm": 0, "blocks.1": 1, "blocks.0": 2, "embedding": 3}
    for name, parameter in model.named_parameters():
        depth = next(depth for part, depth in below.items() if name.startswith(part))
        assert rates[1][parameter] == rates[0][parameter] * 0.5**depth
    with pytest.raises(ValueError, match=r"optimizer\.layer_decay"):
        make(model, layer_decay=0.0)


OWN = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
    "NAdam": {"lr": 0.01, "weight_decay": 0.1},
    "Adafactor": {"lr": 0.01, "weight_decay": 0.1},
}


@pytest.mark.parametrize("name", OWN)
def test_an_optimizer_of_pytorch_may_be_named_and_only_matrices_decay(name):
    config = settings("task=language_modeling", *SMALL)
    config["optimizer"] = {"_target_": f"torch.optim.{name}", **OWN[name]}
    assert problems(config) == []
    optimizer = build_optimizer(config["optimizer"], rehearse(config))
    assert type(optimizer) is getattr(torch.optim, name)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.1 if parameter.ndim >= 2 else 0.0)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("torch.optim.LBFGS", "it asks for the loss several times"),
        ("torch.optim.SGDD", "SGDD"),
        ("torch.optim.lr_scheduler.StepLR", "name a class of torch.optim itself"),
        ("torch.nn.Linear", "is of none of"),
    ],
)
def test_what_is_no_optimizer_of_pytorch_is_refused(target, said):
    config = settings("task=language_modeling") | {"optimizer": {"_target_": target, "lr": 0.1}}
    (problem,) = problems(config)
    assert problem.path == "optimizer._target_" and said in problem.what


def test_an_optimizer_of_pytorch_may_stand_nowhere_else():
    callback = {"fit": {"_target_": "torch.optim.SGD", "lr": 0.1}}
    (problem,) = problems(settings("task=language_modeling") | {"callbacks": callback})
    assert str(problem) == "callbacks.fit._target_: refused: 'torch.optim.SGD' may stand in optimizer only"
