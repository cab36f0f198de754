"""Cross-entropy over a vocabulary whose logits exist for a chunk of tokens at a time, never all at once.

**N** tokens, **D** width, **V** vocabulary, **C** tokens of a chunk.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

# Logits held at a time. With fewer, the gradient of a large vocabulary is read and written often; a GPU needs large
# products to be fast. On a CPU 32 MB, on a GPU 1 GB.
LOGITS_AT_ONCE = {"cpu": 1 << 23, "cuda": 1 << 28}

# … of those in half precision, in single precision: on a CPU 2 MB, which its caches hold.
ROWS_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 27}

# Losses (C, 1), and the gradient of the logits, of logits (C, V), targets (C, 1) and a share to spread.
CrossEntropy = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """A `CrossEntropy` that a compiler makes one pass of: it reads the logits twice and writes their gradient once."""
    x = logits.float()
    top = x.amax(1, keepdim=True)
    powers = (x - top).exp()
    total = powers.sum(1, keepdim=True)
    spread = smoothing / x.shape[1]  # wanted of every token of the vocabulary
    losses = top + total.log() - (1 - smoothing) * x.gather(1, targets) - spread * x.sum(1, keepdim=True)
    is_target = torch.arange(x.shape[1], device=x.device) == targets
    return losses, (powers / total - spread - (1 - smoothing) * is_target).to(logits.dtype)


def cross_entropy_in_place(rows: Tensor, vocab_size: int, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """A `CrossEntropy` whose gradient overwrites the logits: the fastest where nothing is compiled.

    They are the first V numbers of `rows` (C, `row_size(V)`).
    """
    logits, spread = rows[:, :vocab_size], smoothing / vocab_size
    right = logits.gather(1, targets)
    every = logits.sum(1, keepdim=True) if smoothing else 0.0
    losses = normalize_in_place(rows, vocab_size) - (1 - smoothing) * right - spread * every
    p = logits.sub_(spread) if smoothing else logits
    p.scatter_add_(1, targets, p.new_full((), smoothing - 1.0).expand(targets.shape))
    return losses, p


def cross_entropy_by_rows(
    rows: Tensor, vocab_size: int, targets: Tensor, smoothing: float, bias: Tensor | None
) -> Tensor:
    """The same for logits in half precision, to which a `bias` (V,) is still to be added: worked out in single
    precision, of so many rows at a time that they stay in the cache. Returns the losses; `rows` hold the gradient."""
    losses = rows.new_empty(len(rows), 1, dtype=torch.float32)
    height = max(1, ROWS_AT_ONCE[rows.device.type] // rows.shape[1])
    desk = rows.new_empty(min(height, len(rows)), rows.shape[1], dtype=torch.float32)
    for begin in range(0, len(rows), height):
        part = slice(begin, begin + height)
        whole = desk[: len(rows[part])]
        whole.copy_(rows[part])
        if bias is not None:
            whole[:, :vocab_size] += bias
        losses[part], p = cross_entropy_in_place(whole, vocab_size, targets[part], smoothing)
        rows[part, :vocab_size] = p
    return losses


def normalize_in_place(rows: Tensor, vocab_size: int) -> Tensor:
    """Logits become probabilities; returns the logarithm of what their powers add up to: (C, 1)."""
    rows[:, vocab_size:] = -torch.inf  # of no weight in the softmax, which is slower on a part of each row
    top = rows.amax(1, keepdim=True)
    # The greatest p is exp(0) / sum of exp(logits - top), so it has the logarithm of that sum exactly.
    return top - torch.softmax(rows, dim=-1, out=rows).amax(1, keepdim=True).log_()


def row_size(vocab_size: int) -> int:
    """Numbers from one row of logits to the next that are fast to multiply: whole cache lines, and no multiple of a
    large power of two, as rows would then fall on the same places of the cache. 1.2 times as fast for 8,192 tokens,
    1.5 times for BERT's 30,522."""
    lines = -(-vocab_size // 16)
    return 16 * (lines + 4 if lines % 64 == 0 else lines)


def chunk_size(hidden: Tensor, vocab_size: int) -> int:
    """Tokens whose logits are held at a time: equal chunks."""
    at_once = LOGITS_AT_ONCE["cuda" if hidden.is_cuda else "cpu"]
    chunks = -(-len(hidden) * vocab_size // at_once)
    return max(1, -(-len(hidden) // max(1, chunks)))


def token_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    label_smoothing: float = 0.0,
    compiled: CrossEntropy | None = None,
) -> Tensor:
    """Cross-entropy of `hidden @ weight.T + bias` with the targets, summed: (N, D), (V, D), (N,), (V,) -> ().

    With label smoothing, that share of the wanted probability is spread over the whole vocabulary (Szegedy et al.,
    2016, arXiv:1512.00567). The logits exist for a chunk of tokens at a time. Their gradient is taken while they are
    there, so nothing is computed twice (Hsu et al., 2024, arXiv:2410.10989, section 3.2), by `cross_entropy` if there
    is a `compiled` one.
    """
    hidden = _as_products_are(hidden)
    # Asked here: a Function is told that its inputs need gradients also where none are kept.
    learns = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (hidden, weight, bias))
    return _ChunkedCrossEntropy.apply(hidden, weight, targets, bias, label_smoothing, learns, compiled)  # type: ignore[no-untyped-call]


@torch.no_grad()
def token_scores(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None, likeliest: bool = True
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each token, without a gradient, and whether its target was the likeliest token, if that is asked
    for: (N, D), (V, D), (N,), (V,) -> (N,), (N,)."""
    hidden = _as_products_are(hidden)
    weight = weight.to(hidden.dtype)
    vocab_size, size = len(weight), chunk_size(hidden, len(weight))
    losses, right = hidden.new_empty(len(hidden), dtype=torch.float32), torch.zeros_like(targets, dtype=torch.bool)
    room = hidden.new_empty(size, row_size(vocab_size), dtype=torch.float32)
    for begin in range(0, len(hidden), size):
        part = slice(begin, begin + size)
        rows = room[: len(hidden[part])]
        logits = rows[:, :vocab_size]
        _logits(hidden[part], weight, bias, out=logits)
        wanted = logits.gather(1, targets[part, None])
        if likeliest:
            right[part] = logits.argmax(1) == targets[part]
        losses[part] = (normalize_in_place(rows, vocab_size) - wanted)[:, 0]
    return losses, right


def _as_products_are(hidden: Tensor) -> Tensor:
    """In the precision of autocast, where that is on: a product with `out=` does not ask."""
    if hidden.device.type == "meta" or not torch.is_autocast_enabled(hidden.device.type):
        return hidden
    return hidden.to(torch.get_autocast_dtype(hidden.device.type))


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        bias: Tensor | None,
        smoothing: float,
        learns: bool,
        compiled: CrossEntropy | None,
    ) -> Tensor:
        hidden_grad = torch.empty_like(hidden) if learns else None
        ctx.weight_dtype = weight.dtype  # type: ignore[attr-defined]
        weight = weight.to(hidden.dtype)
        mixed = weight.dtype != torch.float32
        fresh = torch.zeros_like if mixed or len(hidden) == 0 else torch.empty_like  # else the first chunk fills it
        weight_grad = fresh(weight, dtype=torch.float32) if learns else None
        bias_grad = torch.zeros_like(bias, dtype=torch.float32) if learns and bias is not None else None
        loss = hidden.new_zeros((), dtype=torch.float32)
        vocab_size = len(weight)
        size = chunk_size(hidden, vocab_size)
        # Of all chunks: fresh memory is slow.
        room = None if compiled else hidden.new_empty(size, row_size(vocab_size))
        for begin in range(0, len(hidden), size):
            rows = slice(begin, begin + size)
            states, wanted = hidden[rows], targets[rows, None]
            with torch.autocast(hidden.device.type, enabled=False) if mixed else nullcontext():
                if compiled is None:
                    assert room is not None
                    filled = room[: len(states)]
                    _logits(states, weight, None if mixed else bias, out=filled[:, :vocab_size])
                    if mixed:
                        losses = cross_entropy_by_rows(filled, vocab_size, wanted, smoothing, bias)
                        p = filled[:, :vocab_size]
                    else:
                        losses, p = cross_entropy_in_place(filled, vocab_size, wanted, smoothing)
                else:
                    logits = F.linear(states, weight, None if bias is None else bias.to(weight.dtype))
                    losses, p = compiled(logits, wanted.clone(), smoothing)  # a view would be compiled for its offset
                loss += losses.sum()
                if hidden_grad is not None and weight_grad is not None:
                    if bias_grad is not None:
                        bias_grad += p.sum(0, dtype=torch.float32)
                    torch.mm(p, weight, out=hidden_grad[rows])
                    if mixed:
                        weight_grad += p.T @ states
                    elif begin == 0:
                        torch.mm(p.T, states, out=weight_grad)
                    else:
                        weight_grad.addmm_(p.T, states)
        if hidden_grad is not None and weight_grad is not None:
            ctx.save_for_backward(hidden_grad, weight_grad.to(ctx.weight_dtype), bias_grad)  # type: ignore[arg-type, attr-defined]
        return loss

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # In place, as the matrix is large; going back twice is then an error of PyTorch's.
        hidden_grad, weight_grad, bias_grad = (
            None if found is None else found.mul_(grads[0])
            for found in ctx.saved_tensors  # type: ignore[attr-defined]
        )
        return hidden_grad, weight_grad, None, bias_grad, None, None, None


def _logits(states: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    if weight.dtype != out.dtype:
        out.copy_(states @ weight.T)
        if bias is not None:
            out.add_(bias)
    elif bias is None:
        torch.mm(states, weight.T, out=out)
    else:
        torch.addmm(bias, states, weight.T, out=out)
