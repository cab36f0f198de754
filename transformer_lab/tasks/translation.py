"""Translation: write in one language what stands in another (Sutskever et al., 2014, arXiv:1409.3215).

**M** source tokens of a batch, **N** target tokens, **D** width, **V** vocabulary.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transformer_lab.data.examples import Pair
from transformer_lab.data.packing import EXAMPLE, Packing, Packs, ranges
from transformer_lab.data.steps import Batch, Collator, EvaluationSet
from transformer_lab.data.store import Corpus, Ragged, Token
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.layout import Layout
from transformer_lab.models.decoder import Decoder
from transformer_lab.models.generation import Beam, Sampling, Written, beam_search, generate
from transformer_lab.models.heads import TokenHead
from transformer_lab.models.layers.cache import Cache
from transformer_lab.models.prepacking import prepacked_weights
from transformer_lab.models.seq2seq import Seq2Seq
from transformer_lab.tasks import translation_scores as scores
from transformer_lab.tasks.base import (
    MISTAKES,
    SHOWN,
    Outcome,
    Row,
    Scored,
    Task,
    Texts,
    check_context,
    quoted,
    some,
    told_truncated,
)

log = logging.getLogger(__name__)
BEGIN, END, BETWEEN = "<bos>", "<eos>", "<sep>"
AT_ONCE = 256  # texts translated together, or beams of them


@dataclass(frozen=True, eq=False, kw_only=True)
class PairBatch(Batch):
    source: Tensor  # (M,) each source closed by the end token
    source_layout: Layout
    target: Tensor  # (N,) each target, opened by the end token, or by one of its own
    target_layout: Layout
    labels: Tensor  # (N,) the target token after each
    references: tuple[str, ...]
    joined_layout: Layout | None = None  # of sequences that hold a source and its target, where one model reads both


@dataclass(frozen=True)
class PairEncoding:
    """For each pair a row of tokens of either text, and the target as it stands, in UTF-8: what scores compare with."""

    columns = {"source": Token, "target": Token, "reference": np.uint8}  # noqa: RUF012 - the same for all
    written = 1

    def cache_key(self) -> dict[str, Any]:
        return {"kind": "pairs"}

    def texts(self, example: Pair) -> Sequence[str]:
        return example.texts

    def row(self, example: Pair, encoded: list[list[int]]) -> dict[str, Any]:
        reference = np.frombuffer(example.target.encode(), dtype=np.uint8)
        return {"source": encoded[0], "target": encoded[1], "reference": reference}


@dataclass(frozen=True)
class Collate(Collator):
    """Pairs of texts, each truncated to `context` tokens; a target that is does not say that it ends.

    `joined` says whether one model reads both as one sequence.
    """

    end: int
    context: int
    joined: bool
    begin: int | None = None  # of a target, in a vocabulary that has one; None: the same as the end

    def __call__(self, corpus: Corpus, pieces: np.ndarray, key: int) -> PairBatch:
        rows = pieces["example"]
        source, source_layout = _closed(corpus["source"], rows, self.end, self.context)
        labels, target_layout = _closed(corpus["target"], rows, self.end, self.context)
        target = np.empty_like(labels)
        target[1:] = labels[:-1]
        target[target_layout.offsets[:-1].numpy()] = self.end if self.begin is None else self.begin
        joined = Layout.of(source_layout.lengths + target_layout.lengths) if self.joined else None
        references = tuple(_reference(corpus, row) for row in rows)
        return PairBatch(
            num_tokens=len(source) + len(target),
            num_targets={"tokens": len(labels)},
            source=torch.from_numpy(source),
            source_layout=source_layout,
            target=torch.from_numpy(target),
            target_layout=target_layout,
            labels=torch.from_numpy(labels),
            references=references,
            joined_layout=joined,
        )


def _reference(corpus: Corpus, row: int) -> str:
    return corpus["reference"][row].tobytes().decode()


def _closed(column: Ragged, rows: np.ndarray, end: int, context: int) -> tuple[np.ndarray, Layout]:
    """The first `context` tokens of these rows, end tokens counted."""
    begins = column.offsets[rows]
    whole = column.offsets[rows + 1] - begins
    lengths = np.minimum(whole + 1, context)
    last = np.cumsum(lengths) - 1
    tokens = np.full(last[-1] + 1, end, dtype=np.int64)
    copied = np.minimum(whole, lengths)
    if copied.any():
        tokens[ranges(last + 1 - lengths, copied)] = column.values[ranges(begins, copied)]
    return tokens, Layout.of(torch.from_numpy(lengths))


class Translation(Task):
    """Trains a `Seq2Seq`, or a `Decoder` that reads source, separator and target as one sequence.

    Texts have at most `context` tokens each. `beam_size` and `length_penalty` say how translations are searched for
    (see `Beam`), in every validation as in the test and in `predict`. With `tie_embeddings` the output matrix is the
    target's embedding; in a `Seq2Seq` that shares its embeddings all three are one. `output_bias` adds a number of its
    own to the logit of each token.

    `bleu_tokenizer` says what BLEU takes for a word, by sacreBLEU's names; None: what `learn` finds for the language
    that is written.
    """

    model: Seq2Seq | Decoder
    model_types = (Seq2Seq, Decoder)
    example_type = Pair
    special_tokens = (END, BETWEEN)
    best_by = "bleu"

    def __init__(
        self,
        *,
        model: Seq2Seq | Decoder,
        tokenizer: Tokenizer,
        name: str,
        context: int,
        label_smoothing: float = 0.0,
        tie_embeddings: bool = True,
        output_bias: bool = False,
        beam_size: int = 1,
        length_penalty: float = 1.0,
        bleu_tokenizer: scores.Tokenizer | None = None,
    ) -> None:
        super().__init__()
        self.bleu_tokenizer: scores.Tokenizer = bleu_tokenizer or "13a"
        scores.refuse_missing(self.bleu_tokenizer)
        self.joined = isinstance(model, Decoder)
        needed = 2 * context if self.joined else None  # both texts in one sequence
        check_context(context, 2, "a token and the one that ends a text", model.position.max_length, needed)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"task.label_smoothing: {label_smoothing} is not a share; 0 <= label_smoothing < 1")
        self.model, self.tokenizer, self.name, self.context = model, tokenizer, name, context
        self.capacity = 2 * context
        self.label_smoothing = label_smoothing
        self._shares: dict[int, float] = {}  # of each corpus, what exact match could be
        self.beam = Beam(beam_size, length_penalty)
        self.end = tokenizer.special(END)
        self.begin = tokenizer.special(BEGIN) if tokenizer.knows(BEGIN) else self.end
        self.between = tokenizer.special(BETWEEN) if self.joined else self.end
        self.encoding = PairEncoding()
        self.collate = Collate(self.end, context, self.joined, self.begin)
        self.head = TokenHead(
            embedding=model.embedding, tied=tie_embeddings, bias=output_bias, width_ratio=model.width_ratio
        )

    @classmethod
    def learn(cls, examples: Iterator[Pair], language: str | None) -> dict[str, Any]:
        found = scores.tokenizer_for(language, (pair.target for pair in examples))
        if found == "char" and language not in scores.LANGUAGES:
            log.info("BLEU compares characters (task.bleu_tokenizer=char), as the texts have hardly any spaces")
        return {"bleu_tokenizer": found}

    def example(self, given: str | tuple[str, str]) -> Pair:
        """A text, which then goes with the translation that the model writes; or a text with its translation."""
        return Pair(given, self.translate([given])[0]) if isinstance(given, str) else Pair(*given)

    def packing(self, corpus: Corpus) -> Packing:
        return Packs(
            corpus=corpus,
            capacity=self.capacity,
            layout=EXAMPLE,
            pieces=self._pieces,
            cache_key=f"pairs of {self.context}",
        )

    def _pieces(self, corpus: Corpus, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, int]:
        sides = [np.diff(corpus[side].offsets[begin : end + 1]) + 1 for side in ("source", "target")]
        kept = [np.minimum(lengths, self.context) for lengths in sides]
        truncated = (sides[0] > self.context) | (sides[1] > self.context)
        return np.arange(begin, end).view(EXAMPLE), kept[0] + kept[1], int(truncated.sum())

    def hidden(self, batch: PairBatch) -> Tensor:
        """Of the target tokens: (N, D)."""
        if isinstance(self.model, Seq2Seq):
            return self.model(batch.source, batch.source_layout, batch.target, batch.target_layout)
        tokens, layout, indices = self._join(batch)
        return self.model(tokens, layout, indices=indices)

    def _join(self, batch: PairBatch) -> tuple[Tensor, Layout, Tensor]:
        """Source, separator, target in one sequence; the token before a target's first is the separator."""
        sources, targets, layout = batch.source_layout, batch.target_layout, batch.joined_layout
        assert layout is not None
        begins = layout.offsets[:-1].long()
        tokens = batch.source.new_empty(len(layout.positions))
        tokens[begins[sources.sequence] + sources.positions] = batch.source
        indices = (begins + sources.lengths)[targets.sequence] + targets.positions
        tokens[indices] = batch.target
        tokens.index_fill_(0, begins + sources.lengths, self.between)
        return tokens, layout, indices

    def forward(self, batch: PairBatch) -> Outcome:
        smoothing = self.label_smoothing if self.training else 0.0
        return Outcome({"tokens": self.head.loss(self.hidden(batch), batch.labels, smoothing)})

    def score(self, batch: PairBatch) -> Scored:
        losses = self.head.losses(self.hidden(batch), batch.labels)
        each = batch.target_layout.sums(torch.stack([losses, torch.ones_like(losses)], 1))
        sources = [text.tolist() for text in batch.source.split(batch.source_layout.lengths.tolist())]
        with prepacked_weights(self, len(sources) * self.beam.size):
            written = [text for text, _ in self._translate(sources)]
        return Scored({"tokens": each}, scores.statistics(written, batch.references, self.bleu_tokenizer))

    def metrics(self, losses: dict[str, float], sums: dict[str, Tensor], corpus: Corpus) -> dict[str, float]:
        loss = losses["tokens"]
        reached = scores.corpus_scores(sums, self.bleu_tokenizer)
        if (possible := self._possible(corpus)) < 1:
            reached["possible_exact_match"] = possible
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), **reached}

    def _possible(self, corpus: Corpus) -> float:
        """The share of references that the model could write: their tokens fit, and make the text again."""
        if id(corpus) not in self._shares:
            truncated = (row[: self.context] for row in map(corpus["target"].__getitem__, range(corpus.num_examples)))
            equal = sum(
                self.tokenizer.decode(tokens.tolist()).strip() == _reference(corpus, row).strip()
                for row, tokens in enumerate(truncated)
            )
            self._shares[id(corpus)] = equal / corpus.num_examples
        return self._shares[id(corpus)]

    def mistakes(self, texts: Texts, corpus: Corpus) -> list[Row]:
        hardest = texts.hardest[:MISTAKES]
        examples = [int(texts.examples[row]) for row, _ in hardest]
        sources = [self.tokenizer.decode(corpus["source"][example].tolist()) for example in examples]
        found = []
        for (_, loss), example, source, written in zip(
            hardest, examples, sources, self.translate(sources), strict=True
        ):
            parts = {"source": source, "reference": _reference(corpus, example), "hypothesis": written}
            parts = {part: text[:SHOWN] for part, text in parts.items()}
            text = "\n".join(f"{part:11} {one}" for part, one in parts.items())
            found.append({"loss": loss, **parts, "text": text})
        return found

    def scored_by(self) -> str:
        return scores.bleu_signature(self.bleu_tokenizer)

    def _translate(self, sources: list[list[int]]) -> list[tuple[str, float]]:
        """Each with its score; `sources` are closed by the end token."""
        limits = [min(self.context, 2 * len(source) + 10) for source in sources]
        return [
            (self.tokenizer.decode(one.tokens), self.beam.score(one.log_p, one.length))
            for one in self.search(sources, limits)
        ]

    @torch.inference_mode()
    def search(self, sources: list[list[int]], limits: list[int]) -> list[Written]:
        """What the search finds for each source, which an end token closes: at most so many tokens."""
        if isinstance(self.model, Seq2Seq):
            read, prompts = self._reading(self.model, sources), [[self.begin]] * len(sources)
        else:
            read, prompts = self.model.forward, [[*source, self.between] for source in sources]
        cache = self.model.new_cache(len(prompts))
        more: dict[str, Any] = {"limits": limits, "stop": self.end}
        if self.beam.size == 1:
            return generate(read, self.head, prompts, cache, sampling=Sampling(temperature=0), **more)
        return beam_search(read, self.head, prompts, cache, beam=self.beam, **more)

    def _reading(self, model: Seq2Seq, sources: list[list[int]]) -> Callable[[Tensor, Layout, Cache], Tensor]:
        """Reads the sources once; what it returns reads what is written, in sight of them."""
        layout = Layout.of([len(source) for source in sources]).to(model.embedding.weight.device)
        tokens = torch.tensor([token for source in sources for token in source], device=layout.offsets.device)
        memory = model.encode(tokens, layout)
        return lambda tokens, layout, cache: model.decode(tokens, layout, None if cache.filled else memory, cache)

    def translate(self, lines: Sequence[str]) -> list[str]:
        return [text for text, _ in self._scored(lines)]

    def _scored(self, lines: Sequence[str]) -> list[tuple[str, float]]:
        """The translation of each line, and its score."""
        training = self.training
        self.eval()
        written: list[tuple[str, float]] = []
        # Those translated together shall end together.
        by_length = sorted(range(len(lines)), key=lambda i: len(lines[i]))
        at_once = max(1, AT_ONCE // self.beam.size)
        with prepacked_weights(self, min(len(lines), at_once) * self.beam.size):
            for begin in range(0, len(lines), at_once):
                some_lines = [lines[i] for i in by_length[begin : begin + at_once]]
                encoded = [[*ids, self.end][: self.context] for ids in self.tokenizer.reading.encode_batch(some_lines)]
                written += self._translate(encoded)
        self.train(training)
        return [found for _, found in sorted(zip(by_length, written, strict=True))]

    def predict(self, lines: list[str]) -> list[dict[str, Any]]:
        """The translation of each line, and its score: what `Beam` compares by."""
        truncated = [len(ids) + 1 > self.context for ids in self.tokenizer.reading.encode_batch(lines)]
        return [
            {"input": line, "translation": text, "score": round(score, 6), "text": text, **told_truncated(short)}
            for line, (text, score), short in zip(lines, self._scored(lines), truncated, strict=True)
        ]

    def samples(self, batches: EvaluationSet) -> str:
        corpus = batches.packing.corpus
        rows = some(corpus.num_examples, 10)
        sources = [self.tokenizer.reading.decode(corpus["source"][row].tolist()) for row in rows]
        shown = []
        for row, source, hypothesis in zip(rows, sources, self.translate(sources), strict=True):
            reference = _reference(corpus, row)
            parts = {"source": source, "reference": reference, "hypothesis": hypothesis}
            shown.append("\n".join(quoted(f"{part:11} {text}") for part, text in parts.items()))
        return "\n\n---\n\n".join(shown)

    def show(self, batch: PairBatch) -> str:
        sources = batch.source.split(batch.source_layout.lengths.tolist())
        targets = batch.target.split(batch.target_layout.lengths.tolist())
        return "\n".join(
            f"{self.tokenizer.reveal(source.tolist())} | {self.tokenizer.reveal(target.tolist())}"
            for source, target in zip(sources, targets, strict=True)
        )
