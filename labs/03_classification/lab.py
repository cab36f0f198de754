# %% [markdown]
# # Lab 3: text classification with a data loader
#
# From which library is a piece of documentation? You build what lies between a list of texts and a trained classifier: a
# collate function, batches by tokens, pooling, the loss, the confusion of classes. Read [reading.md](reading.md) first. The machine
# needs about a minute in all.

# %%
import random

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import transformer_lab as tl
from transformer_lab.course.pictures import confusion_of, curves
from transformer_lab.data.sources.docstring_libraries import DocstringLibraries
from transformer_lab.data.tokenizers import ByteBPE

lab = tl.lab("classification")
lab

# %% [markdown]
# ## The data
#
# Descriptions of functions from four libraries that are installed here, with the names of the libraries masked out. The framework splits
# them: some to learn from, some to test on. A tokenizer of 2,000 tokens is trained on them.

# %%
libraries = ["stdlib", "numpy", "networkx", "pandas"]
source = DocstringLibraries(packages=libraries, max_per_package=1500, max_paragraphs=1, max_characters=300)
every = list(source.read())
split = {name: [example for where, example in every if where == name] for name in ("train", "test")}
tokenizer = ByteBPE(vocab_size=2000).train([example.text for example in split["train"]], special_tokens=[])
train, test = (
    [(tokenizer.encode(example.text), libraries.index(example.labels[0])) for example in split[name] if example.text]
    for name in ("train", "test")
)
print(f"{len(train):,} texts to learn from, {len(test):,} to test on; one of them:")
print(split["train"][0].text[:80], "->", split["train"][0].labels[0])

# %% [markdown]
# ## 1. Collate
#
# A `DataLoader` picks examples and hands them, as a list, to a function that makes one batch of them. Ours is packed: the tokens of
# all texts laid end to end, (N,), how many tokens each text has, (B,), and the labels, (B,). B is the number of texts, N of all tokens.


# %%
def collate(examples: list[tuple[list[int], int]]) -> tuple[Tensor, Tensor, Tensor]:
    """[([5, 7, 6], 0), ([9, 8], 2)] -> tensor([5, 7, 6, 9, 8]), tensor([3, 2]), tensor([0, 2])"""
    # BLANK three tensors: all tokens, the length of each text, the label of each text
    tokens = torch.tensor([token for text, _ in examples for token in text])
    lengths = torch.tensor([len(text) for text, _ in examples])
    return tokens, lengths, torch.tensor([label for _, label in examples])
    # END


# %%
lab.check(collate)

# %%
lab.collate(train[:2])

# %% [markdown]
# ## 2. Batches by tokens
#
# With 32 texts a batch, one batch has 300 tokens and the next 3,000: as much work as chance has it. So batches are made by how
# many tokens they hold. Go through the texts in their order, and open a new batch where the next text would pass the **budget**.


# %%
def batches(lengths: list[int], budget: int) -> list[list[int]]:
    """[6, 5, 7], 11 -> [[0, 1], [2]]: numbers of texts, never more tokens together than the budget"""
    # BLANK keep a batch and its tokens; where the next text does not fit, begin a new one
    found, tokens = [], budget + 1
    for number, length in enumerate(lengths):
        if tokens + length > budget:
            found.append([])
            tokens = 0
        found[-1].append(number)
        tokens += length
    return found
    # END


# %%
lab.check(batches)

# %%
lengths = [len(text) for text, _ in train[:500]]
by_texts = [sum(lengths[begin : begin + 16]) for begin in range(0, 500, 16)]
by_tokens = [sum(lengths[i] for i in batch) for batch in lab.batches(lengths, max(by_texts))]
print(f"16 texts a batch: {min(by_texts)} to {max(by_texts)} tokens in {len(by_texts)} batches")
print(f"by tokens:        {min(by_tokens)} to {max(by_tokens)} tokens in {len(by_tokens)} batches")

# %% [markdown]
# ## 3. One vector for a text
#
# The encoder makes a vector for each token, (N, D). A classifier needs one for each text, (B, D). **Mean pooling** takes the mean over the
# tokens of a text. (BERT takes the first token instead, lab 5.)


# %%
def pooled(hidden: Tensor, lengths: Tensor) -> Tensor:
    """(N, D), (B,) -> (B, D)"""
    # BLANK the mean over the tokens of each text; hidden.split(lengths.tolist()) parts them
    return torch.stack([part.mean(0) for part in hidden.split(lengths.tolist())])
    # END


# %%
lab.check(pooled)

# %% [markdown]
# ## 4. The loss
#
# For each text the model gives C numbers, one for each class: **logits**. Softmax makes probabilities of them. The **cross-entropy** is minus the
# logarithm of the probability that the right class got, as a mean over the texts:
#
# $$\text{loss} = -\frac{1}{B} \sum_b \log \text{softmax}(\text{logits}_b)_{y_b}$$


# %%
def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, C), (B,) -> (); without F.cross_entropy"""
    # BLANK log_softmax over the classes, the number of the right class in each row, minus their mean
    return -logits.log_softmax(-1)[torch.arange(len(labels)), labels].mean()
    # END


# %%
lab.check(loss)

# %% [markdown]
# ## 5. What is taken for what
#
# The **confusion matrix** counts pairs: a row for each true class, a column for each predicted one. What is right lies on the diagonal.


# %%
def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(B,), (B,) -> (C, C), whole numbers"""
    # BLANK count each pair of true and predicted class
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)
    # END


# %%
lab.check(confusion)

# %% [markdown]
# ## Put it to work
#
# A `DataLoader` with your batches and your collate function, an encoder of the framework, your pooling and your loss. All of training is in
# this cell.

# %%
torch.manual_seed(0)
encoder, head = tl.Encoder(vocab_size=2000, dim=64, num_layers=2, num_heads=4), nn.Linear(64, len(libraries))
optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=2e-3)


def judge(tokens: Tensor, lengths: Tensor) -> Tensor:
    return head(lab.pooled(encoder(tokens, tl.Layout.of(lengths)), lengths))  # (B, C)


losses, steps, order = [], lab.steps(250), random.Random(0)
while len(losses) < steps:
    order.shuffle(train)
    sampler = lab.batches([len(text) for text, _ in train], budget=1024)
    for tokens, lengths, labels in DataLoader(train, batch_sampler=sampler, collate_fn=lab.collate):
        found = lab.loss(judge(tokens, lengths), labels)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        losses.append(found.item())
        if len(losses) == steps:
            break
curves(loss=losses)

# %%
sampler = lab.batches([len(text) for text, _ in test], budget=4096)
with torch.no_grad():
    judged = [
        (judge(tokens, lengths).argmax(-1), labels)
        for tokens, lengths, labels in DataLoader(test, batch_sampler=sampler, collate_fn=lab.collate)
    ]
predicted, labels = (torch.cat(parts) for parts in zip(*judged, strict=True))
table = lab.confusion(predicted, labels, len(libraries))
print(
    f"your accuracy on test: {table.diagonal().sum() / table.sum():.1%}; always the largest class: {table.sum(1).max() / table.sum():.1%}"
)
confusion_of(table, libraries)

# %% [markdown]
# ## The framework's own
#
# The same task in one call, on the same texts: with its own batches, its own positions and norms, a schedule and a better optimizer. What it
# reaches stands beside yours, measured now.

# %%
run = tl.train(
    "task=classification",
    f"data.packages=[{','.join(libraries)}]",
    "data.max_per_package=1500",
    "data.max_paragraphs=1",
    "data.max_characters=300",
    "tokenizer.vocab_size=2000",
    max_steps=lab.steps(250),
)
run

# %% [markdown]
# What does it look at? A row is a token that looks, a column one that is looked at. In a classifier there is no diagonal edge: every token
# sees all.

# %%
run.attention("Return the mean of the values over the given axis.")

# %% [markdown]
# ## What next
#
# | type | and expect |
# | --- | --- |
# | `python train.py task=classification max_steps=300 task.pooling=first` | a score two or three points below that of mean pooling |
# | `python train.py task=classification max_steps=300 position=none` | hardly a worse score: which words there are says most of it |
# | `python train.py task=classification preview=true` | one batch, as the model will see it |

# %%
quiz = lab.quiz(seed=1)
quiz

# %%
# YOURS quiz.grade("b", 12, …)
quiz.grade(*quiz.solved())
# END

# %%
lab
