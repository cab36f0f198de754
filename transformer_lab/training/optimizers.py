"""The optimizers: AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101) and Muon (Jordan et al., 2024,
https://kellerjordan.github.io/posts/muon/), each of which finds for itself what it treats how in a model.

Letters of the shapes: n matrices of r rows and c columns.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from transformer_lab.models.heads import SequenceHead
from transformer_lab.models.layers.sublayer import sublayers
from transformer_lab.models.stack import Stack

# The minimax polynomials of Polar Express (Amsel et al., 2025, arXiv:2505.16932) for singular values from 0.003
# to 1, with 1% of room for rounding. The last is scaled by 0.92: updates are then as large as after Jordan's
# five iterations, to which the usual learning rates belong. Together they map [0.003, 1] into [0.72, 1.12].
QUINTICS = (
    (8.3019, -24.0424, 17.4699),
    (4.0078, -2.9266, 0.5425),
    (3.4896, -2.5654, 0.5028),
    (2.2976, -1.6676, 0.3880),
)
Group = dict[str, Any]
TINY = 1e-30  # a matrix of zeros is divided by this and stays one


class AdamW(torch.optim.AdamW):
    """PyTorch's, fused (4 to 6 times as fast, on a CPU too); only matrices decay.

    With `layer_decay` below 1, each block learns that much slower than the one above it (see `by_depth`).
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        layer_decay: float = 1.0,
    ) -> None:
        check_positive(lr=lr, eps=eps)
        check(weight_decay >= 0, "weight_decay", "0 or more", weight_decay)
        check_shares(betas=betas)
        groups = by_width(split(trainable(model).values(), lr=lr, weight_decay=weight_decay), model)
        groups = by_depth(groups, model, layer_decay)
        super().__init__(groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=True)


class Muon(torch.optim.Optimizer):
    """The matrices of the blocks move by their momentum made orthogonal, everything else by AdamW.

    With `layer_decay` below 1, each block learns that much slower than the one above it (see `by_depth`).
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        lr: float,
        adamw_lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
        layer_decay: float = 1.0,
    ) -> None:
        check_positive(lr=lr, adamw_lr=adamw_lr, adamw_eps=adamw_eps)
        check(weight_decay >= 0, "weight_decay", "0 or more", weight_decay)
        check_shares(momentum=(momentum,), adamw_betas=adamw_betas)
        parameters = trainable(model)
        matrices = _matrices(model)
        inside = {name: weight for name, weight in parameters.items() if weight in matrices}
        if not inside:
            raise ValueError("optimizer: Muon finds no matrices in the blocks of this model; choose optimizer=adamw")
        muon = {"params": list(inside.values()), "lr": lr, "initial_lr": lr, "weight_decay": weight_decay}
        rest = [p for name, p in parameters.items() if name not in inside]
        # `fused` also tells load_state_dict to keep the step counters beside the parameters.
        options = {"betas": tuple(adamw_betas), "eps": adamw_eps, "fused": True}
        # Orthogonal steps are of one size in every width, so muP is about the rest alone.
        others = [group | options for group in by_width(split(rest, lr=adamw_lr, weight_decay=weight_decay), model)]
        super().__init__(by_depth([muon | {"momentum": momentum}, *others], model, layer_decay), {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in parameters]
            if parameters:
                (self._muon if self.orthogonalises(group) else self._adamw)(group, parameters, grads)
        return loss

    def orthogonalises(self, group: Group) -> bool:
        """Whether the updates of these parameters are made orthogonal."""
        return "momentum" in group

    def _muon(self, group: Group, parameters: list[Tensor], grads: list[Tensor]) -> None:
        momenta = self._states(parameters, "momentum_buffer")
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        updates = torch._foreach_lerp(grads, momenta, group["momentum"])  # Nesterov's look ahead
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        batches = defaultdict(list)  # matrices of one shape go through the iteration together, also those of experts
        for parameter, update in zip(parameters, updates, strict=True):
            batches[parameter.shape].append((parameter, update))
        for (*_, rows, columns), batch in batches.items():
            moved, directions = zip(*batch, strict=True)
            together = torch.stack(directions)
            steps = orthogonal(together.flatten(0, -3)).view_as(together).unbind()
            torch._foreach_add_(moved, steps, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))

    def _adamw(self, group: Group, parameters: list[Tensor], grads: list[Tensor]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["step"] = torch.zeros((), device=parameter.device)
        adamw(
            parameters,
            grads,
            self._states(parameters, "exp_avg"),
            self._states(parameters, "exp_avg_sq"),
            [],
            self._states(parameters, "step"),
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
        )

    def _states(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]


def orthogonal(matrices: Tensor) -> Tensor:
    """Every singular value, down to 0.003 of the largest, becomes roughly 1; the rest of the matrix stays."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # (n, r, c), r <= c: the products below are then the smallest
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=TINY)
    x = x.to(product_dtype(x.device))
    gram = x @ x.mT  # (n, r, r)
    # No singular value exceeds the root of the gram's norm, which is closer to the largest of them than the
    # norm of the matrix is: with this start, four iterations do what takes five from the usual one.
    size = gram.norm(dim=(1, 2), keepdim=True).clamp(min=TINY)
    x, gram = x / size.sqrt(), gram / size
    for index, (a, b, c) in enumerate(QUINTICS):
        if index:
            gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    x = x.to(matrices.dtype)
    return x.mT if tall else x  # (n, r, c) as they came


@cache
def product_dtype(device: torch.device) -> torch.dtype:
    """bf16 is enough here and twice as fast, but far slower on a CPU that must emulate it."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
        fast = able.get("amx_bf16", False) or able.get("avx512_bf16", False)
    return torch.bfloat16 if fast else torch.float32


def _matrices(model: nn.Module) -> set[nn.Parameter]:
    """What sub-layers say of theirs; where a model's `blocks` have none, every matrix in them."""
    found, spoken = set[nn.Parameter](), set[nn.Parameter]()
    for layer in sublayers(model):
        found.update(layer.matrices())
        spoken.update(layer.parameters())
    named = (weight for name, weight in model.named_parameters() if "blocks" in name.split(".") and weight.ndim == 2)
    return found | {weight for weight in named if weight not in spoken}


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def for_torch(model: nn.Module) -> list[Group]:
    """The parameters as optimizers of `torch.optim` take them: only matrices decay, and each by what it is given."""
    return [
        {"params": [p for p in trainable(model).values() if p.ndim >= 2]},
        {"params": [p for p in trainable(model).values() if p.ndim < 2], "weight_decay": 0.0},
    ]


def split(parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> list[Group]:
    """Matrices, embeddings among them, decay; norms and biases do not."""
    every = list(parameters)
    kinds = [(weight_decay, [p for p in every if p.ndim >= 2]), (0.0, [p for p in every if p.ndim < 2])]
    return [{"params": ps, "lr": lr, "initial_lr": lr, "weight_decay": decay} for decay, ps in kinds if ps]


def by_width(groups: list[Group], model: nn.Module) -> list[Group]:
    """With muP (see `Stack`) the learning rates of matrices that grow with the width on both sides are divided by how
    much, and their decay, which is multiplied by the rate, is not (Yang et al., 2022, table 8)."""
    ratio = next((stack.width_ratio for stack in model.modules() if isinstance(stack, Stack)), 1.0)
    if ratio == 1:
        return groups
    outputs = {id(head.out) for head in model.modules() if isinstance(head, SequenceHead)}
    matrices = {m.weight for m in model.modules() if isinstance(m, nn.Linear) and id(m) not in outputs}
    matrices |= {weight for layer in sublayers(model) for weight in layer.matrices()}
    found = []
    for group in groups:
        rate = group["initial_lr"] / ratio
        slow = {"lr": rate, "initial_lr": rate, "weight_decay": group["weight_decay"] * ratio}
        for own, change in (
            ([p for p in group["params"] if p in matrices], slow),
            ([p for p in group["params"] if p not in matrices], {}),
        ):
            if own:
                found.append(group | {"params": own, **change})
    return found


def by_depth(groups: list[Group], model: nn.Module, layer_decay: float) -> list[Group]:
    """Learning rates that fall from the head down: times `layer_decay` for each block below, and for the embeddings
    once more (Howard and Ruder, 2018, arXiv:1801.06146; Clark et al., 2020, arXiv:2003.10555)."""
    check(0 < layer_decay <= 1, "layer_decay", "above 0 and at most 1", layer_decay)
    if layer_decay == 1:
        return groups
    blocks = {name: re.search(r"\bblocks\.(\d+)\.", name) for name, _ in model.named_parameters()}
    top = 1 + max((int(block[1]) for block in blocks.values() if block), default=-1)
    depths = {}
    for name, parameter in model.named_parameters():
        block = blocks[name]
        below = re.search(r"\b(embedding|source_embedding|position|types|embedding_norm)\b", name)
        depths[parameter] = top - int(block[1]) if block else (top + 1 if below else 0)
    found = []
    for group in groups:
        for depth in sorted({depths[p] for p in group["params"]}):
            rate = group["initial_lr"] * layer_decay**depth
            own = [p for p in group["params"] if depths[p] == depth]
            found.append(group | {"params": own, "lr": rate, "initial_lr": rate})
    return found


def check(valid: bool, option: str, words: str, value: object) -> None:
    if not valid:
        raise ValueError(f"optimizer.{option}: must be {words}, got {value}")


def check_positive(**options: float) -> None:
    for option, value in options.items():
        check(value > 0, option, "above 0", value)


def check_shares(**options: Sequence[float]) -> None:
    for option, values in options.items():
        check(all(0 <= x < 1 for x in values), option, "from 0 to below 1", ", ".join(map(str, values)))
