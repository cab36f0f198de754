"""Averages of the weights over a run's steps: validated, kept as the best and exported in place of the latest ones."""

import torch
from torch import Tensor, nn


class Ema:
    """An exponential moving average of the trained weights (Polyak and Juditsky, 1992).

    After `n` updates the average keeps `min(decay, (1 + n) / (10 + n))` of itself, so that the beginning is forgotten
    soon, as TensorFlow's `ExponentialMovingAverage(num_updates=n)` does. Training goes on from the latest weights.
    """

    def __init__(self, *, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"average.decay: {decay} is not between 0 and 1; 0.999 averages about 1,000 steps")
        self.decay = decay
        self.other: dict[str, Tensor] = {}  # the averages; while the module has them, its latest weights
        self.applied = False  # whether the module has the averages

    def begin(self, module: nn.Module) -> None:
        """Average from here on, or go on where the module lies now."""
        trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        self.other = {
            name: self.other.get(name, weight.detach()).to(weight.device, copy=True) for name, weight in trained.items()
        }

    @torch.no_grad()
    def update(self, module: nn.Module, updates: int) -> None:
        """After an optimizer step, the `updates`-th."""
        kept = min(self.decay, (1 + updates) / (10 + updates))
        latest = dict(module.named_parameters())
        torch._foreach_lerp_(list(self.other.values()), [latest[name] for name in self.other], 1 - kept)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Give the module the averages, or its latest weights back; every bit of both stays."""
        weights = dict(module.named_parameters())
        for name, other in self.other.items():
            mine = weights[name].clone()
            weights[name].copy_(other)
            other.copy_(mine)
        self.applied = not self.applied

    def states(self, module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The module's state with the averages, and the latest of the weights that are averaged."""
        state = dict(module.state_dict())
        if self.applied:
            return state, dict(self.other)
        weights = dict(module.named_parameters())
        latest = {name: weights[name].detach() for name in self.other}
        return state | {name: other for name, other in self.other.items() if name in state}, latest

    @torch.no_grad()
    def restore(self, module: nn.Module, latest: dict[str, Tensor]) -> None:
        """The inverse of `states`, for a module that has been given the state with the averages."""
        self.other = {}
        self.begin(module)
        weights = dict(module.named_parameters())
        for name, weight in latest.items():
            weights[name].copy_(weight)
