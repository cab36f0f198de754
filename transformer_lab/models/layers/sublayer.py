"""What a sub-layer of a block says of itself: how it starts, what it costs, what else there is to learn.

**N** tokens of a batch, **D** width.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn


class SubLayer(nn.Module):
    """Hidden states in, what is added to the residual stream out: (N, D) -> (N, D).

    On the device "meta", where tensors have sizes and no values, it runs as well: so `plan=true` knows what it keeps
    and multiplies.
    """

    auxiliary: tuple[str, ...] = ()  # names of the losses that each pass in training leaves in `losses`

    def __init__(self) -> None:
        super().__init__()
        self.losses: dict[str, Tensor] = {}  # each a mean over the tokens; added to the loss of the step

    @property
    def output(self) -> nn.Linear:
        """What writes to the residual stream: the last `nn.Linear` that was registered, or what a class names.

        Raises ValueError where there is none.
        """
        linear = [module for module in self.modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise ValueError(f"model: {type(self).__name__} has no nn.Linear; it draws its weights in `initialise`")
        return linear[-1]

    @torch.no_grad()
    def initialise(self, residual: float) -> None:
        """Draw the weights anew: matrices with variance 1 / fan-in (LeCun et al., 1998), biases zero, and what is added
        to the residual stream `residual` times as large."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.output.weight.mul_(residual)

    def matrices(self) -> list[nn.Parameter]:
        """The weights that map hidden states to hidden states, (rows, columns) each or a batch of them: Muon makes
        their updates orthogonal, and muP divides their learning rates."""
        return [weight for weight in self.parameters() if weight.ndim >= 2]

    def extra_flops(self, *inputs: Any, **more: Any) -> float:
        """FLOPs of a forward pass with these arguments beside its products of matrices, which are counted by
        themselves."""
        return 0.0


class SequenceCache(Protocol):
    """What a mixer has read of some sequences, a row for each."""

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""


class Mixer(SubLayer):
    """A sub-layer in which the tokens of a sequence see each other, such as attention."""

    def forward(self, x: Tensor, layout: Any, position: Any, cache: Any = None) -> Tensor:
        """With a `cache` that is filled, each row's next token comes, one for each."""
        raise NotImplementedError

    def new_cache(self, rows: int, like: Tensor) -> SequenceCache:
        """An empty one for `rows` sequences, with numbers of the type and on the device of `like`."""
        raise NotImplementedError


def sublayers(model: nn.Module) -> list[SubLayer]:
    return [module for module in model.modules() if isinstance(module, SubLayer)]
