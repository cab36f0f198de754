"""Causal language modelling: predict each token from those before it.

**N** tokens of a batch, **D** width, **V** vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from transformer_lab.data.examples import Document
from transformer_lab.data.packing import (
    SCORED_SPAN,
    SPAN,
    Blocks,
    Packing,
    Packs,
    Windows,
    cut_rows,
    examples_at,
    ranges,
)
from transformer_lab.data.steps import Batch, Collator, EvaluationSet
from transformer_lab.data.store import MOST_LOST, Corpus, Token
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.layout import Layout
from transformer_lab.models.decoder import Decoder
from transformer_lab.models.generation import Sampling, generate
from transformer_lab.models.heads import TokenHead
from transformer_lab.models.prepacking import prepacked_weights
from transformer_lab.tasks.base import Outcome, Scored, Task, check_context, quoted, some, told_truncated

BEGIN, END = "<bos>", "<eos>"
PROMPTS_AT_ONCE = 64  # continued together; more would need more memory, not less time


@dataclass(frozen=True, eq=False, kw_only=True)
class TextBatch(Batch):
    tokens: Tensor  # (N,)
    layout: Layout
    labels: Tensor  # (M,) the tokens after those of `indices`
    indices: Tensor | None = None  # (M,) of the tokens with a target; None: all of them


@dataclass(frozen=True)
class DocumentEncoding:
    """A row of tokens for each document, closed by the end token."""

    end: int
    columns = {"tokens": Token}  # noqa: RUF012 - the same for all
    written = 0

    def cache_key(self) -> dict[str, Any]:
        return {"kind": "documents", "end": self.end}

    def texts(self, example: Document) -> Sequence[str]:
        return example.texts

    def row(self, example: Document, encoded: list[list[int]]) -> dict[str, Sequence[int]]:
        return {"tokens": encoded[0] if example.more else [*encoded[0], self.end]}


@dataclass(frozen=True)
class Collate(Collator):
    """Sequences of a corpus, each read from the token before it on; before a document's first token stands `begin`.

    A sequence of t tokens so gives t inputs and t targets. Of a piece that says how many are `scored`, only those at
    its end are targets: those before are context that another piece has scored.
    """

    end: int
    begin: int | None = None  # of a vocabulary that has one; None: the same

    def __call__(self, corpus: Corpus, pieces: np.ndarray, key: int) -> TextBatch:
        tokens, starts, lengths = corpus["tokens"].values, pieces["start"], pieces["length"]
        at = ranges(starts, lengths)
        before = tokens[np.maximum(at - 1, 0)].astype(np.int64)
        before[at == 0] = self.end
        if self.begin not in (None, self.end):
            before[before == self.end] = self.begin
        indices = None
        if pieces.dtype == SCORED_SPAN:
            scored = pieces["scored"]
            indices = ranges(np.cumsum(lengths) - scored, scored)
            at = at[indices]
        after = torch.from_numpy(tokens[at].astype(np.int64))
        return TextBatch(
            num_tokens=len(before),
            num_targets={"tokens": len(after)},
            tokens=torch.from_numpy(before),
            layout=Layout.of(torch.from_numpy(lengths.copy())),
            labels=after,
            indices=None if indices is None else torch.from_numpy(indices),
        )

    def examples(self, corpus: Corpus, pieces: np.ndarray) -> np.ndarray:
        """Each token of a batch is a row, which counts for the text of its target."""
        starts, lengths = pieces["start"], pieces["length"]
        return examples_at(corpus, ranges(starts, lengths), np.repeat(starts, lengths))


class LanguageModeling(Task):
    """Trains a `Decoder` on sequences of at most `context` tokens.

    `packing` is "stream" (the corpus as one text, cut into blocks) or "documents" (whole documents, none of which sees
    another). With `tie_embeddings` the output matrix is the embedding. `stride` is for evaluation: the text is read in
    windows of `context` tokens, each `stride` further than the one before, and scored where a window reaches further
    (Baevski and Auli, 2019, section 4.2), so that a token has at least all but `stride` of `context` tokens before it;
    None: blocks as in training. `opens_prompts` says whether a prompt begins as a text does, with a token of its own;
    published models are often asked without.
    """

    model: Decoder
    model_types = (Decoder,)
    example_type = Document
    special_tokens = (END,)

    def __init__(
        self,
        *,
        model: Decoder,
        tokenizer: Tokenizer,
        name: str,
        context: int,
        packing: Literal["stream", "documents"],
        tie_embeddings: bool = False,
        stride: int | None = None,
        opens_prompts: bool = True,
    ) -> None:
        super().__init__()
        check_context(context, 2, "a token and the one after it", model.position.max_length)
        if stride is not None and not 1 <= stride <= context:
            raise ValueError(f"task.stride: {stride} is not within the context; 1 to {context}")
        self.model, self.tokenizer, self.name, self.context = model, tokenizer, name, context
        self.capacity, self.stride = context, stride
        self.whole_documents = packing == "documents"
        if self.whole_documents and stride is not None:
            raise ValueError("task.stride: windows go over a stream; task.packing=stream, or leave it null")
        self.end = tokenizer.special(END)
        self.begin = tokenizer.special(BEGIN) if tokenizer.knows(BEGIN) else self.end
        self.opens_prompts = opens_prompts
        self.encoding = DocumentEncoding(self.end)
        self.collate = Collate(self.end, self.begin)
        self.head = TokenHead(embedding=model.embedding, tied=tie_embeddings, width_ratio=model.width_ratio)

    def forward(self, batch: TextBatch) -> Outcome:
        hidden = self.model(batch.tokens, batch.layout, indices=batch.indices)  # of the tokens with a target
        return Outcome({"tokens": self.head.loss(hidden, batch.labels)})

    def score(self, batch: TextBatch) -> Scored:
        hidden = self.model(batch.tokens, batch.layout, indices=batch.indices)
        losses = self.head.losses(hidden, batch.labels)
        each = torch.stack([losses, torch.ones_like(losses)], 1)
        if batch.indices is not None:
            each = each.new_zeros(len(batch.tokens), 2).index_copy_(0, batch.indices, each)
        return Scored({"tokens": each})

    def packing(self, corpus: Corpus) -> Packing:
        if self.whole_documents:
            return Packs(
                corpus=corpus,
                capacity=self.context,
                layout=SPAN,
                pieces=lambda corpus, begin, end: cut_rows(corpus["tokens"].offsets[begin : end + 1], self.context),
                cache_key="documents",
            )
        return Blocks(corpus, self.context)

    def evaluation_packing(self, corpus: Corpus) -> Packing:
        return Windows(corpus, self.context, self.stride) if self.stride else self.packing(corpus)

    def metrics(self, losses: dict[str, float], sums: dict[str, Tensor], corpus: Corpus) -> dict[str, float]:
        loss = losses["tokens"]
        found = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        if 1 - corpus.kept_share <= MOST_LOST:  # else the bytes that were lost would count as foretold
            found["bits_per_byte"] = loss / math.log(2) / corpus.bytes_per_token
        return found

    def samples(self, batches: EvaluationSet) -> str:
        """Continuations of how three documents begin."""
        documents, prompts = batches.packing.corpus["tokens"], []
        for document in some(len(documents), 3):
            prompts.append(self.tokenizer.decode(documents[document][:-1][:12].tolist()))
        room = max(1, min(80, self.context - 14))
        written = self.complete(prompts, max_new_tokens=room, temperature=0.8)
        shown = (quoted(f"{prompt}▸{text}") for prompt, text in zip(prompts, written, strict=True))
        return "What stands after ▸ is the model's.\n\n" + "\n\n---\n\n".join(shown)

    def show(self, batch: TextBatch) -> str:
        parts = batch.tokens.split(batch.layout.lengths.tolist())
        lines = ["Each token's target is the one after it; sequences are told apart by |.", ""]
        return "\n".join([*lines, *(f"| {self.tokenizer.reveal(part.tolist())}" for part in parts)])

    def predict(
        self,
        lines: list[str],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        num_samples: int = 1,
    ) -> list[dict[str, Any]]:
        """`num_samples` continuations of each line; the options are those of `complete`."""
        if num_samples < 1:
            raise ValueError(f"num_samples: {num_samples} is too few; at least 1")
        asked = [line for line in lines for _ in range(num_samples)]
        written = self.complete(
            asked, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
        )
        room = self._room(max_new_tokens)
        truncated = [len(ids) + 1 > room for ids in self.tokenizer.encode_batch(asked)]
        return [
            {"input": line, "continuation": more, "text": line + more, **told_truncated(short)}
            for line, more, short in zip(asked, written, truncated, strict=True)
        ]

    def complete(
        self,
        lines: list[str],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> list[str]:
        """What follows each line, by default up to 100 tokens, or half a context where that is less.

        A prompt that leaves no room for the new tokens loses its beginning.
        """
        max_new_tokens = self.context - self._room(max_new_tokens)
        if not 1 <= max_new_tokens < self.context:
            raise ValueError(
                f"max_new_tokens: {max_new_tokens} does not fit the model's context; 1 to {self.context - 1}"
            )
        training = self.training
        self.eval()
        written: list[str] = []
        with prepacked_weights(self, min(len(lines), PROMPTS_AT_ONCE)):
            for begin in range(0, len(lines), PROMPTS_AT_ONCE):
                sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed + begin)
                written += self._continue(lines[begin : begin + PROMPTS_AT_ONCE], max_new_tokens, sampling)
        self.train(training)
        return written

    def _room(self, max_new_tokens: int | None) -> int:
        """Tokens of a prompt, with the one before it, that fit into the context beside the new ones."""
        return self.context - (min(100, max(1, self.context // 2)) if max_new_tokens is None else max_new_tokens)

    def _continue(self, lines: list[str], max_new_tokens: int, sampling: Sampling) -> list[str]:
        room = self.context - max_new_tokens
        before = [self.begin] if self.opens_prompts else []
        encoded = [[*before, *tokens][-room:] or [self.begin] for tokens in self.tokenizer.encode_batch(lines)]
        cache = self.model.new_cache(len(encoded))
        # `forward` itself: a compiled model would be compiled anew for nearly every length.
        written = generate(
            self.model.forward,
            self.head,
            encoded,
            cache,
            limits=[max_new_tokens] * len(encoded),
            stop=self.end,
            sampling=sampling,
        )
        return [self._text_after(prompt, one.tokens) for prompt, one in zip(encoded, written, strict=True)]

    def _text_after(self, prompt: list[int], tokens: list[int]) -> str:
        """Decoded together with the prompt: whether a space or a word's end comes first depends on it."""
        before = self.tokenizer.decode(prompt)
        return self.tokenizer.decode([*prompt, *tokens])[len(before) :]
