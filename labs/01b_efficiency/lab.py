# %% [markdown]
# # Lab 1b: what attention costs
#
# You build five things that make attention cheaper, each in a few lines, and measure on your own machine what it brings.
# Read [reading.md](reading.md) first. The machine needs a quarter of a minute in all.

# %%
import time

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import transformer_lab as tl
from transformer_lab.course.pictures import lines

lab = tl.lab("efficiency")
lab

# %% [markdown]
# All times below are taken by this function: the shortest of five runs, in milliseconds, on one core, so that nothing
# else on the machine has a part in it.

# %%
torch.set_num_threads(1)


def milliseconds(function, *inputs) -> float:
    times = []
    for _ in range(1 if lab.fast else 5):
        start = time.perf_counter()
        function(*inputs)
        times.append(1000 * (time.perf_counter() - start))
    return min(times)


# %% [markdown]
# ## 1. A matrix that is never there
#
# The scores of a text of T tokens are T × T numbers: of 4,096 tokens 16.8 million, 67 MB for each head. They are written
# to memory, read for softmax, written again, read again. Memory is slower than arithmetic by far.
#
# A **fused kernel** goes over the keys in blocks, and keeps for each query only three things: the largest score so
# far $m$, the sum of powers so far $\ell$, and the values mixed so far $o$ (V numbers). When a block has a larger score,
# what was added up before is too large by the factor $e^{m_\text{new} - m_\text{old}}$, and is made smaller first
# (Milakov and Gimelshein, 2018, [arXiv:1805.02867](https://arxiv.org/abs/1805.02867); Dao et al., 2022,
# [arXiv:2205.14135](https://arxiv.org/abs/2205.14135)):
#
# $$m' = \max(m, \max s), \quad \ell' = \ell\, e^{m - m'} + \sum e^{s - m'}, \quad o' = o\, e^{m - m'} + e^{s - m'} v$$
#
# At the end the result is $o / \ell$.


# %%
def streamed(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    """(T, K), (S, K), (S, V) -> (T, V), never with more than (T, block) scores at once"""
    # BLANK for each block of keys and values: scores, the new largest, and the three things made new
    largest = torch.full((len(q), 1), float("-inf"))
    total, mixed = torch.zeros(len(q), 1), torch.zeros(len(q), v.shape[1])
    for keys, values in zip(k.split(block), v.split(block), strict=True):
        scores = q @ keys.T / q.shape[1] ** 0.5  # (T, block)
        new = torch.maximum(largest, scores.max(-1, keepdim=True).values)
        powers, less = (scores - new).exp(), (largest - new).exp()
        total = total * less + powers.sum(-1, keepdim=True)
        mixed = mixed * less + powers @ values
        largest = new
    return mixed / total
    # END


# %%
lab.check(streamed)

# %% [markdown]
# Measured: attention as the textbook writes it against PyTorch's fused kernel, which does what you have just written,
# in C++. Both do the same products.


# %%
def textbook(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


sizes = [128, 256, 512] if lab.fast else [128, 256, 512, 1024, 2048, 4096]
plain, fused = [], []
for size in sizes:
    q, k, v = torch.randn(3, 1, 4, size, 32)  # 4 heads of width 32
    plain.append(milliseconds(textbook, q, k, v))
    fused.append(milliseconds(scaled_dot_product_attention, q, k, v))
    print(
        f"{size:5} tokens: textbook {plain[-1]:8.2f} ms, fused {fused[-1]:8.2f} ms, scores {4 * size * size * 4 / 1e6:6.1f} MB"
    )
lines(sizes, xlabel="tokens of a text", ylabel="milliseconds", textbook=plain, fused=fused)

# %% [markdown]
# Both curves rise with the square of the length: twice as many tokens, four times as many pairs. A fused kernel makes
# each pair cheaper, and needs no memory for it; it does not make pairs fewer.
#
# ## 2. Padding
#
# What share of the tokens means nothing, when texts of these lengths are filled up to the longest?


# %%
def wasted(lengths: list[int]) -> float:
    """[3, 9, 5] -> 0.37037…: 10 of 27 tokens are padding"""
    # BLANK one minus the tokens there are, by those of the filled-up batch
    return 1 - sum(lengths) / (len(lengths) * max(lengths))
    # END


# %%
lab.check(wasted)

# %% [markdown]
# Measured, with texts as they are: the documentation of Python's own functions, in words. A batch of 32 is read by the
# same encoder twice, packed and filled up.

# %%
import argparse, builtins, inspect, random, statistics

docs = [inspect.getdoc(thing) for module in (builtins, random, statistics, argparse) for thing in vars(module).values()]
lengths = sorted(len(doc.split()) for doc in {doc for doc in docs if doc})
chosen = [min(length, 256) for length in random.Random(0).sample(lengths, 32)]
encoder = tl.Encoder(vocab_size=100, dim=64, num_layers=2, num_heads=4).eval()


@torch.no_grad()
def read(lengths: list[int]) -> Tensor:
    return encoder(torch.zeros(sum(lengths), dtype=torch.long), tl.Layout.of(lengths))


packed, filled = milliseconds(read, chosen), milliseconds(read, [max(chosen)] * len(chosen))
print(f"{sum(chosen):,} tokens packed in {packed:.1f} ms, filled up to {max(chosen) * 32:,} in {filled:.1f} ms")
print(f"{lab.wasted(chosen):.0%} of the filled-up batch means nothing; packed takes {packed / filled:.0%} of its time")

# %% [markdown]
# ## 3. Heads that share keys and values
#
# In **grouped-query attention** (Ainslie et al., 2023, [arXiv:2305.13245](https://arxiv.org/abs/2305.13245)) H heads of
# queries share G heads of keys and values. Neighbours share: with H = 4 and G = 2, heads 0 and 1 look at the first,
# heads 2 and 3 at the second.


# %%
def grouped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(H, T, K), (G, S, K), (G, S, K) -> (H, T, K)"""
    # BLANK repeat each head of k and v H / G times, and let all heads look; scaled_dot_product_attention may do it
    k, v = (x.repeat_interleave(len(q) // len(x), dim=0) for x in (k, v))
    return scaled_dot_product_attention(q, k, v)
    # END


# %%
lab.check(grouped)

# %% [markdown]
# What it saves is not arithmetic: each head still looks at each token. It saves what has to be kept and read when text is
# written token by token, which is the next part.
#
# ## 4. Nothing twice: the key/value cache
#
# A model that writes text reads its own words again and again: for the hundredth token, the 99 before. Their keys and
# values do not change, as they do not see what comes after them. So they are kept. A **step** then computes one query,
# one key and one value.


# %%
def step(keys: Tensor, values: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(T, K), (T, V), and of the new token (K,), (K,), (V,) -> (V,), and the longer keys and values"""
    # BLANK add the new key and value at the end, then let q look at all of them
    keys, values = torch.cat([keys, k[None]]), torch.cat([values, v[None]])
    weights = (keys @ q / len(q) ** 0.5).softmax(-1)
    return weights @ values, keys, values
    # END


# %%
lab.check(step)

# %%
model = tl.Decoder(vocab_size=256, dim=64, num_layers=2, num_heads=4, residual_init="scaled").eval()
count = 32 if lab.fast else 256
tokens = torch.randint(256, (count,))


@torch.no_grad()
def without_cache() -> Tensor:
    return torch.stack([model(tokens[: n + 1], tl.Layout.of([n + 1]))[-1] for n in range(count)])


@torch.no_grad()
def with_cache() -> Tensor:
    cache = model.new_cache(rows=1)
    found = []
    for token in tokens:
        found.append(model(token[None], cache.next(), cache)[-1])  # cache.next(): where one more token lies
    return torch.stack(found)


apart = (without_cache() - with_cache()).abs().max()
slow, quick = milliseconds(without_cache), milliseconds(with_cache)
print(f"{count} tokens: {slow:.0f} ms without a cache, {quick:.0f} ms with one; what comes out differs by {apart:.1e}")

# %% [markdown]
# And what the cache takes: for each layer and token, a key and a value for each head. That is where sharing helps.

# %%
for heads, groups in ((32, 32), (32, 8), (32, 1)):
    size = 2 * 32 * groups * 128 * 32_768 * 2  # keys and values, layers, heads, width, tokens, bytes
    print(f"32 layers, 32,768 tokens, {heads} heads of 128, {groups:2} key/value heads: {size / 1e9:5.1f} GB in bf16")

# %% [markdown]
# ## 5. Windows
#
# Most of what helps is near. With a **window** of W, a token sees itself and the W - 1 before it (Beltagy et al., 2020,
# [arXiv:2004.05150](https://arxiv.org/abs/2004.05150)). Two layers of it still reach 2 (W - 1) tokens back, as what the
# first layer found is passed on.


# %%
def window(length: int, size: int) -> Tensor:
    """(T, T): True where a token may look: at itself and the size - 1 before it"""
    # BLANK how far back each key lies, and which distances are seen
    place = torch.arange(length)
    distance = place[:, None] - place
    return (distance >= 0) & (distance < size)
    # END


# %%
lab.check(window)

# %%
lengths = list(range(64, 1025, 64))
every = [int(lab.window(length, length).sum()) for length in lengths]
near = [int(lab.window(length, 64).sum()) for length in lengths]
lines(lengths, xlabel="tokens of a text", ylabel="pairs that are computed", causal=every, window_of_64=near)

# %% [markdown]
# The square has become a straight line. That is all that windows do, and for long texts it is everything.
#
# ## What next
#
# | type | and expect |
# | --- | --- |
# | `python train.py plan=true model.num_kv_heads=1` | fewer parameters than with 4, and less memory |
# | `python train.py attention=reference max_steps=50` | nearly the same losses, by the textbook's sums, and fewer tokens a second |
# | `python scripts/benchmark.py --help` | what else can be measured, side by side with other libraries |

# %%
quiz = lab.quiz(seed=1)
quiz

# %%
# YOURS quiz.grade("b", 12, …)
quiz.grade(*quiz.solved())
# END

# %%
lab
