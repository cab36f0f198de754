"""Trained models as ONNX (onnx.ai): texts side by side, the shorter ones filled up behind, as its runtimes are fed.

What is traced are the parts of a task as they stand; only their attention is told that texts do not lie end to end.
**B** texts, **T** tokens of the longest, **S** of a memory's longest, **D** width, **H** heads, **K** head width.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transformer_lab.layout import Layout
from transformer_lab.models.heads import SequenceHead
from transformer_lab.models.layers.attention import kernels_of
from transformer_lab.models.layers.kernels.reference import Bias, visible
from transformer_lab.tasks.classification import Classification
from transformer_lab.tasks.mlm_nsp import MLMNSP
from transformer_lab.tasks.sequence_task import SequenceTask
from transformer_lab.tasks.translation import Translation

MODEL = "model.onnx"


def write(folder: Path, task: Any) -> None:
    """Put model.onnx into a folder. Raises ValueError for a task that has no such form."""
    refuse(task)
    reader = Reader(task).eval()
    # Of other sizes than one, two and each other: a traced size of one would be one for ever.
    lengths = {"input_ids": 5, "attention_mask": 5, **reader.further}
    given = {name: torch.ones(2, length, dtype=torch.int64) for name, length in lengths.items()}
    free = torch.export.Dim.DYNAMIC
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of libraries that nothing here needs
    with kernels_of(task.model, lambda _: attend), warnings.catch_warnings(action="ignore", category=FutureWarning):
        program = torch.onnx.export(
            reader,
            tuple(given.values()),
            dynamo=True,
            dynamic_shapes=tuple([{0: free, 1: free}] * len(given)),
            input_names=list(given),
            output_names=reader.names,
            verbose=False,
        )
    assert program is not None
    folder.mkdir(parents=True, exist_ok=True)
    program.save(folder / MODEL)


def refuse(task: Any) -> None:
    """Raises ValueError where a task reads what no such file does."""
    if isinstance(task, SequenceTask) and not isinstance(task, Classification):
        raise ValueError(f"format: onnx has no {type(task).__name__}")
    if getattr(task, "joined", False):
        raise ValueError("format: onnx has translation by a seq2seq, and not by a decoder")


class Reader(nn.Module):
    """A task that reads texts side by side: token ids, which of them are text, (B, T) each, and perhaps what `further`
    names; what it gives is called `names`, by the words that transformers has for it."""

    def __init__(self, task: Any) -> None:
        super().__init__()
        self.task = task
        self.further: dict[str, int] = {}  # with how long it is in what is traced
        if getattr(task.model, "types", None) is not None:
            self.further["token_type_ids"] = 5
        if isinstance(task, Translation):
            self.further["decoder_input_ids"] = 7
        self.names = ["logits"]
        if isinstance(task, MLMNSP) and task.nsp_head is not None:
            self.names = ["prediction_logits", "seq_relationship_logits"]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, further: Tensor | None = None) -> Any:
        task, mask = self.task, attention_mask != 0
        tokens, layout = input_ids.flatten(), side_by_side(mask)
        if isinstance(task, Translation):
            assert further is not None
            hidden = task.model(tokens, layout, further.flatten(), side_by_side(torch.ones_like(further) != 0))
            return task.head(hidden).unflatten(0, further.shape)
        hidden = task.model(tokens, layout, *([] if further is None else [further.flatten()]))
        if isinstance(task, Classification):
            return judged(task.head, hidden, layout)
        if not isinstance(task, MLMNSP):
            return task.head(hidden).unflatten(0, mask.shape)
        words = task.head(task.transform(hidden)).unflatten(0, mask.shape)
        if task.nsp_head is None:
            return words
        return words, judged(task.nsp_head, hidden, layout)


def side_by_side(mask: Tensor) -> Layout:
    """As much of a layout as blocks ask for: positions, (B T,), and which tokens are text, (B, T)."""
    positions = torch.arange(mask.shape[1]).expand(mask.shape).flatten()
    return Layout(torch.zeros(1), 0, positions, {"mask": mask})


def judged(head: SequenceHead, hidden: Tensor, layout: Layout) -> Tensor:
    """Logits of the classes: (B T, D) -> (B, classes)."""
    mask: Tensor = layout.scratch["mask"]
    hidden, lengths = hidden.unflatten(0, mask.shape), mask.sum(1, keepdim=True)
    if head.pooling == "mean":
        return head.judge((hidden * mask[..., None]).sum(1) / lengths)
    if head.pooling == "last":
        last = (torch.arange(mask.shape[1]) == lengths - 1)[..., None]
        return head((hidden * last).sum(1), layout)
    return head(hidden[:, 0], layout)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, queries: Layout, keys: Layout, causal: bool, window: int | None, bias: Bias
) -> Tensor:
    """A kernel for texts side by side: (B T, H, K) -> (B T, H, K)."""
    mask = keys.scratch["mask"]
    texts, length = mask.shape[0], queries.scratch["mask"].shape[1]
    groups = q.shape[1] // k.shape[1]
    q = q.unflatten(0, (texts, length)).transpose(1, 2)  # (B, H, T, K)
    k, v = (x.unflatten(0, mask.shape).transpose(1, 2).repeat_interleave(groups, dim=1) for x in (k, v))  # (B, H, S, K)
    own, other = torch.arange(length), torch.arange(mask.shape[1])
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if (added := bias(own, other)) is not None:
        scores = scores + added
    allowed = visible(own, other, causal, window) & mask[:, None, None]
    share = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1)
    return (share @ v).transpose(1, 2).flatten(0, 1)
