"""Continue sequences token by token, each token read once: greedy, temperature, top-k, top-p sampling; beam search.

**B** sequences, **K** beams of each, **V** vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transformer_lab.layout import Layout
from transformer_lab.models.layers.cache import Cache

# Hidden states of the tokens that are new to the cache: (N,), their layout, the cache -> (N, D).
Read = Callable[[Tensor, Layout, Cache], Tensor]

WORDS_AT_ONCE = 64  # tokens of the vocabulary of which the likeliest is looked for first


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
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        if self.top_p is not None:
            ranked, order = logits.softmax(-1).sort(-1, descending=True)
            before = ranked.cumsum(-1) - ranked  # the token that crosses top_p stays, so at least one does
            dropped = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= self.top_p)
            logits = logits.masked_fill(dropped, float("-inf"))
        return logits


@dataclass(frozen=True)
class Beam:
    """Search for the likeliest continuation with `size` candidates at a time; 1 is greedy.

    Candidates of different length are compared by log p / ((5 + length) / 6)^length_penalty (Wu et al., 2016,
    arXiv:1609.08144, section 7). A search ends when `size` candidates have.
    """

    size: int = 1
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"beam_size: {self.size} is too small; 1 is greedy, 5 is usual")
        if self.length_penalty < 0:
            raise ValueError(f"length_penalty: {self.length_penalty} is negative; 0 is none, 1 is usual")

    def score(self, log_p: float, length: int) -> float:
        return log_p / ((5 + length) / 6) ** self.length_penalty


@dataclass(frozen=True)
class Written:
    """New tokens, without the one that ends them; the logarithm of their probability, which counts that one where there
    is one: `length` tokens in all."""

    tokens: list[int]
    log_p: float
    length: int


@torch.inference_mode()
def generate(
    read: Read,
    logits: Callable[[Tensor], Tensor],
    prompts: Sequence[Sequence[int]],
    cache: Cache,
    *,
    limits: Sequence[int],
    stop: int,
    sampling: Sampling,
) -> list[Written]:
    """Continue every prompt until `stop` or for as many tokens as its limit.

    `cache` is empty, with a row for each prompt; `logits` turns hidden states (B, D) into (B, V). A sequence that has
    ended leaves the batch. The draw of one prompt does not depend on its neighbours: each has random numbers of its
    own.
    """
    randomness = [torch.Generator().manual_seed(sampling.seed + index) for index in range(len(prompts))]
    tokens, layout = _start(prompts, cache)
    written: list[list[int]] = [[] for _ in prompts]  # with `stop`
    sums = [0.0 for _ in prompts]
    running = list(range(len(prompts)))
    while running:
        found = logits(_last(read(tokens, layout, cache), layout)).float()
        chosen = _choose(found, sampling, [randomness[i] for i in running])
        indices = torch.tensor(chosen, device=found.device)[:, None]
        log_p = found.log_softmax(1).gather(1, indices)[:, 0].tolist()
        for index, token, own in zip(running, chosen, log_p, strict=True):
            written[index].append(token)
            sums[index] += own
        goes_on = [
            row
            for row, (index, token) in enumerate(zip(running, chosen, strict=True))
            if token != stop and len(written[index]) < limits[index]
        ]
        if len(goes_on) < len(running):
            cache.select(torch.tensor(goes_on, dtype=torch.int64, device=tokens.device))
            running = [running[row] for row in goes_on]
        tokens, layout = torch.tensor([chosen[row] for row in goes_on], device=tokens.device), cache.next()
    ends = [text[-1] == stop for text in written]
    return [
        Written(text[: len(text) - end], log_p, len(text)) for text, log_p, end in zip(written, sums, ends, strict=True)
    ]


def _start(prompts: Sequence[Sequence[int]], cache: Cache) -> tuple[Tensor, Layout]:
    device = cache.lengths.device
    layout = Layout.of([len(prompt) for prompt in prompts]).to(device)
    return torch.tensor([token for prompt in prompts for token in prompt], device=device), layout


def _last(hidden: Tensor, layout: Layout) -> Tensor:
    """The state of each sequence's last token: (N, D) -> (B, D)."""
    return hidden if layout.longest == 1 else hidden.index_select(0, layout.offsets[1:].long() - 1)


def _choose(logits: Tensor, sampling: Sampling, randomness: list[torch.Generator]) -> list[int]:
    if sampling.temperature == 0:
        if logits.device.type == "cpu":  # NumPy finds it nine times as fast there
            return logits.numpy().argmax(-1).tolist()
        return logits.argmax(-1).tolist()
    logits = sampling.filtered(logits).cpu()
    # The likeliest of log p + Gumbel noise is a fair draw from p (Gumbel, 1954).
    uniform = torch.stack([torch.rand(logits.shape[-1], generator=own) for own in randomness])
    return (logits - (-uniform.log()).log()).argmax(-1).tolist()


def _largest(x: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The largest numbers of each row, and their places, as `topk` has it: (R, V) -> (R, most) twice.

    They are in those parts of a row whose own largest are the largest, and one pass finds these: a quarter of the time.
    """
    size = x.shape[1]
    if size <= most * WORDS_AT_ONCE:
        return x.topk(most)
    whole = size - size % WORDS_AT_ONCE
    best = x[:, :whole].unflatten(1, (-1, WORDS_AT_ONCE)).amax(2).topk(most).indices
    places = (best[:, :, None] * WORDS_AT_ONCE + torch.arange(WORDS_AT_ONCE, device=x.device)).flatten(1)
    rest = torch.arange(whole, size, device=x.device).expand(len(x), -1)  # too few for a part of their own
    places = torch.cat((places, rest), 1)
    found, which = x.gather(1, places).topk(most)
    return found, places.gather(1, which)


@torch.inference_mode()
def beam_search(
    read: Read,
    logits: Callable[[Tensor], Tensor],
    prompts: Sequence[Sequence[int]],
    cache: Cache,
    *,
    limits: Sequence[int],
    stop: int,
    beam: Beam,
) -> list[Written]:
    """The best continuation of every prompt; the arguments are those of `generate`.

    A sequence whose search has ended leaves the batch with all its beams.
    """
    tokens, layout = _start(prompts, cache)
    finished: list[list[Written]] = [[] for _ in prompts]
    running = list(range(len(prompts)))
    beams: list[list[list[int]]] = [[[]] for _ in prompts]  # what each beam of each running sequence has written
    scores = torch.zeros(len(prompts), 1, device=tokens.device)  # (B, K), log p
    while running:
        log_p = logits(_last(read(tokens, layout, cache), layout)).float().log_softmax(-1)  # (B * K, V)
        # Of twice as many candidates at most half end here, so that enough go on.
        most = min(2 * beam.size, log_p.shape[-1])
        own, own_tokens = _largest(log_p, most)  # of each beam (B * K, 2 K): only these can be among the best of all
        together = (scores[:, :, None] + own.unflatten(0, scores.shape)).flatten(1)
        best, indices = together.topk(min(2 * beam.size, together.shape[1]))
        chosen = own_tokens.view(together.shape).gather(1, indices)
        found = zip(best.tolist(), (indices // most).tolist(), chosen.tolist(), strict=True)
        rows: list[int] = []  # of the cache, that go on
        going, kept, kept_scores = [], [], []
        for place, (sequence, candidates) in enumerate(zip(running, found, strict=True)):
            alive: list[tuple[float, int, list[int]]] = []
            for rank, (score, parent, token) in enumerate(zip(*candidates, strict=True)):
                text = beams[place][parent]
                if token == stop:
                    if rank < beam.size:
                        finished[sequence].append(Written(text, score, len(text) + 1))
                elif len(alive) < beam.size:
                    alive.append((score, parent, [*text, token]))
            length = len(alive[0][2]) if alive else 0
            if alive and length >= limits[sequence]:
                finished[sequence] += [Written(text, score, length) for score, _, text in alive]
            elif alive and len(finished[sequence]) < beam.size:
                rows += [place * scores.shape[1] + parent for _, parent, _ in alive]
                going.append(sequence)
                kept.append([text for _, _, text in alive])
                kept_scores.append([score for score, _, _ in alive])
        running, beams = going, kept
        if running:
            cache.select(torch.tensor(rows, device=tokens.device), beams=len(beams[0]))
            scores = torch.tensor(kept_scores, device=tokens.device)
            tokens = torch.tensor([text[-1] for texts in beams for text in texts], device=tokens.device)
            layout = cache.next()
    return [max(every, key=lambda one: beam.score(one.log_p, one.length)) for every in finished]
