# %% [markdown]
# # Lab 2: positions
#
# Attention sees a heap of tokens, not a row. You see that for yourself, write four ways to tell a model about order, and
# measure what they bring. Read [reading.md](reading.md) first. The machine needs half a minute in all.

# %%
import random

import torch
from torch import Tensor, nn

import transformer_lab as tl
from transformer_lab.course.pictures import curves, map_of
from transformer_lab.models.layers.positions.base import Position
from transformer_lab.models.layers.positions.relative import bucket

lab = tl.lab("positions")
lab

# %% [markdown]
# ## A heap
#
# The tokens of a text change places, and so do the outputs of attention. Each of them is the same vector as before.

# %%
torch.manual_seed(0)
layer = tl.Attention(dim=16, num_heads=4)
x, layout = torch.randn(6, 16), tl.Layout.of([6])  # (T, D)
order = torch.tensor([3, 0, 5, 1, 4, 2])
with torch.no_grad():
    apart = (layer(x[order], layout) - layer(x, layout)[order]).abs().max()
print(f"the outputs differ by {apart:.1e}")

# %% [markdown]
# So "the dog bites the man" and "the man bites the dog" are the same to it. Something has to say where each token stands.
#
# ## 1. Places
#
# In a packed batch texts lie end to end, and each is counted from 0: of texts with 3 and 2 tokens the **positions** are
# 0 1 2 0 1.


# %%
def places(lengths: list[int]) -> Tensor:
    """[3, 2] -> tensor([0, 1, 2, 0, 1]): (N,)"""
    # BLANK count each text from 0, and join what you have
    return torch.cat([torch.arange(length) for length in lengths])
    # END


# %%
lab.check(places)

# %% [markdown]
# ## 2. Sines and cosines
#
# The first transformer added a fixed pattern to the vectors of the words (Vaswani et al., 2017,
# [arXiv:1706.03762](https://arxiv.org/abs/1706.03762), section 3.5). Each pair of channels is a wave, slower than the pair
# before. For position $p$ and $i = 0, 2, 4, \dots, D - 2$:
#
# $$\text{channel } i: \ \sin\left(\frac{p}{10000^{\,i/D}}\right) \qquad \text{channel } i+1: \ \cos\left(\frac{p}{10000^{\,i/D}}\right)$$


# %%
def sinusoidal(positions: Tensor, dim: int) -> Tensor:
    """(N,) -> (N, D); sine and cosine take turns"""
    # BLANK the angle of each position and each even channel, then sine and cosine side by side
    rates = 10000.0 ** (-torch.arange(0, dim, 2) / dim)  # (D/2,)
    angles = positions[:, None] * rates  # (N, D/2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    # END


# %%
lab.check(sinusoidal)

# %%
table = lab.sinusoidal(torch.arange(64), 32)
map_of(table.T, xlabel="position", ylabel="channel", title="The pattern: fast waves above, slow ones below")

# %% [markdown]
# Why waves? The dot product of two positions depends on how far they are apart, and on nothing else. It is largest for a
# position with itself.

# %%
map_of(table @ table.T, xlabel="position", ylabel="position", title="Dot products of positions: alike along diagonals")

# %% [markdown]
# ## 3. Learned positions
#
# GPT-2 and BERT let the model learn a vector for each position: a table of as many rows as a text may have tokens. It is
# added to the words. A text longer than the table cannot be read.


# %%
class LearnedPositions(nn.Module):
    def __init__(self, max_length: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(max_length, dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """(N, D), (N,) -> (N, D)"""
        # BLANK the rows of these positions, added to x
        return x + self.table(positions)
        # END


# %%
lab.check(LearnedPositions)

# %% [markdown]
# ## 4. Rotary positions
#
# Most models of today turn queries and keys (RoPE; Su et al., 2021, [arXiv:2104.09864](https://arxiv.org/abs/2104.09864)). Two
# neighbouring numbers of a head, $x_0$ and $x_1$, are a point in the plane. It is turned by the angle $a = p\, r$, where $p$ is the
# position and $r$ the rate of this pair:
#
# $$x_0' = x_0 \cos a - x_1 \sin a \qquad x_1' = x_1 \cos a + x_0 \sin a$$
#
# Pair number $j$ of a head of width K has the rate $10000^{-2j/K}$. The dot product of a turned query and a turned key depends on the
# difference of their angles: on the distance of the two tokens alone.


# %%
def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """(N, H, K), (N,) -> (N, H, K); each pair of neighbours is turned"""
    # BLANK rates (K/2,), angles (N, 1, K/2), and the two formulas for x[..., ::2] and x[..., 1::2]
    width = x.shape[-1]
    rates = 10000.0 ** (-torch.arange(0, width, 2) / width)
    angles = (positions[:, None] * rates)[:, None]
    first, second = x[..., ::2], x[..., 1::2]
    turned = [first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()]
    return torch.stack(turned, dim=-1).flatten(-2)
    # END


# %%
lab.check(rotate)

# %% [markdown]
# The same query and key at other places, always 3 apart: the score stays.

# %%
q, k = torch.randn(2, 1, 1, 16)
for place in (0, 5, 1000):
    score = (lab.rotate(q, torch.tensor([place + 3])) * lab.rotate(k, torch.tensor([place]))).sum()
    print(f"query at {place + 3:4}, key at {place:4}: {score:.4f}")

# %% [markdown]
# ## 5. Relative positions
#
# T5 leaves words, queries and keys alone, and adds a number to each score (Raffel et al., 2020,
# [arXiv:1910.10683](https://arxiv.org/abs/1910.10683)). It is learned, for each head and each **bucket** of distances: a bucket holds one
# distance where they are small, and many where they are large. `bucket(distance, num_buckets, 20, causal=False)` says which one, for the
# distance key minus query: there are as many buckets as the table has rows, and from a distance of 20 on all share the last one.


# %%
torch.tensor([bucket(distance, 16, 20, causal=False) for distance in range(-20, 21)])


# %%
def relative(table: Tensor, length: int) -> Tensor:
    """a row for each bucket, (B, H) -> (H, T, T): what is added to the score of each query and key"""
    # BLANK the bucket of each query (row) and key (column), their rows of the table, heads first
    rows = [[bucket(key - query, len(table), 20, causal=False) for key in range(length)] for query in range(length)]
    return table[torch.tensor(rows)].permute(2, 0, 1)
    # END


# %%
lab.check(relative)

# %% [markdown]
# ## Put it to work
#
# The framework's stack asks a scheme of positions for three things: what is added to words (`embed`), how queries and keys are
# turned (`rotate`), what is added to scores (`bias`). Yours fills in one of them. (Embeddings start small, so the sines are made as small.) A small decoder reads the documentation of
# Python's library byte by byte: without positions, with your sines, with your rotary ones, and with the framework's.

# %%
import argparse, builtins, inspect, statistics


class YourSines(Position):
    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + 0.02 * lab.sinusoidal(positions, x.shape[-1])


class YourRotary(Position):
    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        return lab.rotate(x, positions)


docs = [inspect.getdoc(thing) for module in (builtins, random, statistics, argparse) for thing in vars(module).values()]
texts = sorted({doc.encode() for doc in docs if doc and len(doc) > 80})


def train(steps: int, **parts) -> list[float]:
    """The losses of a decoder of two layers"""
    torch.manual_seed(0)
    order = random.Random(0)
    model, head = tl.Decoder(vocab_size=256, dim=64, num_layers=2, num_heads=4, **parts), nn.Linear(64, 256)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=3e-3)
    losses = []
    for _ in range(steps):
        chosen = [text[:65] for text in order.sample(texts, 12)]
        read, guessed = (
            torch.tensor([byte for text in chosen for byte in part(text)])
            for part in (lambda t: t[:-1], lambda t: t[1:])
        )
        hidden = model(read, tl.Layout.of([len(text) - 1 for text in chosen]))
        loss = nn.functional.cross_entropy(head(hidden), guessed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


steps = lab.steps(200)
found = {
    "none": train(steps, position=Position),
    "your_sines": train(steps, position=YourSines),
    "your_rotary": train(steps, position=YourRotary),
    "rotary": train(steps),
}
for name, losses in found.items():
    print(f"{name:12} mean loss of the last {min(50, steps)} steps: {sum(losses[-50:]) / len(losses[-50:]):.3f}")
curves(**found)

# %% [markdown]
# Your rotary positions and the framework's give the same curve. Without positions the loss is higher, but not hopeless: this model is
# causal, and a token that sees 7 others can know that it is the eighth. In an encoder, where all see all, not even that is left.
#
# ## What next
#
# | type | and expect |
# | --- | --- |
# | `python train.py position=none max_steps=200` | a higher loss than with the default, `position=rotary` |
# | `python train.py position=alibi max_steps=200` | a lower loss than the default's, after so few steps: a penalty on distance says from the start what is near |
# | `python train.py position=learned position.max_length=64 task.context=128` | one line that says what does not fit |

# %%
quiz = lab.quiz(seed=1)
quiz

# %%
# YOURS quiz.grade("b", 12, …)
quiz.grade(*quiz.solved())
# END

# %%
lab
