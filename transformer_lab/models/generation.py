"""Continue sequences token by token, each token read once (greedy; temperature, top-k, top-p sampling).

**B** sequences, **V** vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transformer_lab.layout import Layout
from transformer_lab.models.decoder import Decoder


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature 0 takes the likeliest (greedy).

    `top_k` keeps the k likeliest (Fan et al., 2018), `top_p` the likeliest that together reach p (nucleus sampling;
    Holtzman et al., 2020).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature: {self.temperature} is negative; 0 takes the likeliest token, 1 samples")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k: {self.top_k} leaves no token; at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: {self.top_p} is not a share; 0 < top_p <= 1")

    def filtered(self, logits: Tensor) -> Tensor:
        """Log-probabilities, up to a constant, of what may be drawn: (B, V) -> (B, V)."""
        logits = logits.float() / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        if self.top_p is not None:
            ranked, order = logits.softmax(-1).sort(-1, descending=True)
            before = ranked.cumsum(-1) - ranked  # the token that crosses top_p stays, so at least one does
            dropped = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= self.top_p)
            logits = logits.masked_fill(dropped, float("-inf"))
        return logits


@torch.inference_mode()
def generate(
    model: Decoder,
    logits: Callable[[Tensor], Tensor],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: int,
    sampling: Sampling,
) -> list[list[int]]:
    """Continue every prompt until `stop` or `max_new_tokens`; the new tokens of each, without `stop`.

    `logits` turns hidden states (B, D) into (B, V). A sequence that has ended leaves the batch. The draw of one
    prompt does not depend on its neighbours: each has random numbers of its own.
    """
    device = model.embedding.weight.device
    randomness = [torch.Generator().manual_seed(sampling.seed + index) for index in range(len(prompts))]
    layout = Layout.of([len(prompt) for prompt in prompts]).to(device)
    tokens = torch.tensor([token for prompt in prompts for token in prompt], device=device)
    cache = model.new_cache(len(prompts), int(layout.longest) + max_new_tokens)
    written: list[list[int]] = [[] for _ in prompts]
    running = list(range(len(prompts)))
    for _ in range(max_new_tokens):
        last = layout.offsets[1:].long() - 1
        # `forward` itself: a compiled model would be compiled anew for nearly every length.
        chosen = _choose(logits(model.forward(tokens, layout, cache)[last]), sampling, [randomness[i] for i in running])
        alive = [row for row, token in enumerate(chosen) if token != stop]
        for row in alive:
            written[running[row]].append(chosen[row])
        if not alive:
            break
        if len(alive) < len(running):
            cache.select(torch.tensor(alive, device=device))
            running = [running[row] for row in alive]
        tokens, layout = torch.tensor([chosen[row] for row in alive], device=device), cache.next()
    return written


def _choose(logits: Tensor, sampling: Sampling, randomness: list[torch.Generator]) -> list[int]:
    if sampling.temperature == 0:
        return logits.argmax(-1).tolist()
    logits = sampling.filtered(logits).cpu()
    # The likeliest of log p + Gumbel noise is a fair draw from p (Gumbel, 1954).
    uniform = torch.stack([torch.rand(logits.shape[-1], generator=own) for own in randomness])
    return (logits - (-uniform.log()).log()).argmax(-1).tolist()
