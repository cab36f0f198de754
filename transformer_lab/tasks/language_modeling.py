"""Causal language modelling: predict each token from those before it.

**N** tokens of a batch, **D** width, **V** vocabulary.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from transformer_lab.data.examples import Document
from transformer_lab.data.packing import Blocks, Packing, Packs, ranges
from transformer_lab.data.store import Corpus
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.layout import Layout
from transformer_lab.models.decoder import Decoder
from transformer_lab.models.generation import Sampling, generate
from transformer_lab.models.heads import token_loss
from transformer_lab.tasks.base import Outcome, Task

END = "<eos>"
PROMPTS_AT_ONCE = 64  # continued together; more would need more memory, not less time


@dataclass(frozen=True)
class Batch:
    tokens: Tensor  # (N,)
    targets: Tensor  # (N,) the token after each
    layout: Layout

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        tokens, targets = (x.to(device, non_blocking=non_blocking) for x in (self.tokens, self.targets))
        return Batch(tokens, targets, self.layout.to(device, non_blocking))

    def pin_memory(self) -> "Batch":
        return Batch(self.tokens.pin_memory(), self.targets.pin_memory(), self.layout.pin_memory())


@dataclass(frozen=True)
class Collate:
    """Sequences of a corpus, each read from the token before it on; before the first token stands `end`."""

    end: int

    def __call__(self, corpus: Corpus, starts: np.ndarray, lengths: np.ndarray) -> Batch:
        places = ranges(starts, lengths)
        before = corpus.tokens[np.maximum(places - 1, 0)].astype(np.int64)
        before[places == 0] = self.end
        after = corpus.tokens[places].astype(np.int64)
        return Batch(torch.from_numpy(before), torch.from_numpy(after), Layout.of(torch.from_numpy(lengths)))


class LanguageModeling(Task):
    """Trains a `Decoder` on sequences of at most `context` tokens.

    `packing` is "stream" (the corpus as one text, cut into blocks) or "documents" (whole documents, none of which sees
    another). With `tie_embeddings` the output matrix is the embedding (Press and Wolf, 2017, arXiv:1608.05859);
    without, it starts at zero, so that the first loss is ln V exactly.
    """

    model_type = Decoder
    example_type = Document
    specials = (END,)

    def __init__(self, *, model: Decoder, tokenizer: Tokenizer, name: str, context: int,
                 packing: Literal["stream", "documents"], tie_embeddings: bool = False) -> None:  # fmt: skip
        super().__init__()
        limit = model.position.max_length
        if context < 2:
            raise ValueError(f"task.context: {context} is too short; at least 2, a token and the one after it")
        if limit is not None and context > limit:
            raise ValueError(f"task.context: {context} tokens are more than `position` serves; at most {limit}, "
                             f"or position.max_length={context}")  # fmt: skip
        self.model, self.tokenizer, self.name, self.context = model, tokenizer, name, context
        self.whole_documents = packing == "documents"
        self.end = tokenizer.special(END)
        self.collate = Collate(self.end)
        self.head = None if tie_embeddings else nn.Linear(model.dim, tokenizer.vocab_size, bias=False)
        if self.head is not None:
            nn.init.zeros_(self.head.weight)

    @property
    def output_weight(self) -> Tensor:  # (V, D)
        return self.model.embedding.weight if self.head is None else self.head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.output_weight.T

    def forward(self, batch: Batch) -> Outcome:
        hidden = self.model(batch.tokens, batch.layout)  # (N, D)
        return Outcome(token_loss(hidden, self.output_weight, batch.targets), targets=len(batch.targets))

    def packing(self, corpus: Corpus) -> Packing:
        if self.whole_documents:
            return Packs(corpus=corpus, context=self.context)
        return Blocks(corpus, self.context)

    def metrics(self, loss: float, sums: dict[str, float], corpus: Corpus) -> dict[str, float]:
        bits_per_byte = loss / math.log(2) / corpus.bytes_per_token
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "bits_per_byte": bits_per_byte}

    def samples(self, corpus: Corpus) -> str:
        """Continuations of how three documents begin."""
        prompts = []
        for document in np.linspace(0, corpus.num_documents - 1, num=min(3, corpus.num_documents)).astype(int):
            begin, end = corpus.offsets[document], corpus.offsets[document + 1] - 1
            prompts.append(self.tokenizer.decode(corpus.tokens[begin : min(end, begin + 12)].tolist()))
        room = max(1, min(80, self.context - 14))
        written = self.predict(prompts, max_new_tokens=room, temperature=0.8)
        shown = (_quoted(f"{prompt}▸{text}") for prompt, text in zip(prompts, written, strict=True))
        return "What stands after ▸ is the model's.\n\n" + "\n\n---\n\n".join(shown)

    def predict(self, lines: list[str], *, max_new_tokens: int | None = None, temperature: float = 1.0,
                top_k: int | None = None, top_p: float | None = None, seed: int = 0) -> list[str]:  # fmt: skip
        """What follows each line, by default up to 100 tokens, or half a context where that is less.

        A prompt that leaves no room for the new tokens loses its beginning.
        """
        if max_new_tokens is None:
            max_new_tokens = min(100, max(1, self.context // 2))
        if not 1 <= max_new_tokens < self.context:
            raise ValueError(
                f"max_new_tokens: {max_new_tokens} does not fit the model's context; 1 to {self.context - 1}"
            )
        training = self.training
        self.eval()
        written: list[str] = []
        for begin in range(0, len(lines), PROMPTS_AT_ONCE):
            sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed + begin)
            written += self._continue(lines[begin : begin + PROMPTS_AT_ONCE], max_new_tokens, sampling)
        self.train(training)
        return written

    def _continue(self, lines: list[str], max_new_tokens: int, sampling: Sampling) -> list[str]:
        room = self.context - max_new_tokens
        encoded = [[self.end, *tokens][-room:] for tokens in self.tokenizer.encode_batch(lines)]
        written = generate(self.model, self.logits, encoded, max_new_tokens=max_new_tokens, stop=self.end,
                           sampling=sampling)  # fmt: skip
        return [self._text_after(prompt, tokens) for prompt, tokens in zip(encoded, written, strict=True)]

    def _text_after(self, prompt: list[int], tokens: list[int]) -> str:
        """Decoded together with the prompt: whether a space or a word's end comes first depends on it."""
        before = self.tokenizer.decode(prompt)
        return self.tokenizer.decode([*prompt, *tokens])[len(before) :]


def _quoted(text: str) -> str:
    """Text as it is, for Markdown: indented, so that nothing in it is taken for markup."""
    return "\n".join(f"    {line}" for line in text.splitlines())
