"""BERT's pre-training: guess hidden tokens, and whether one segment follows another (Devlin et al., 2019,
arXiv:1810.04805).

**N** tokens of a batch, **M** hidden ones among them, **B** sequences, **D** width, **V** vocabulary.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from transformer_lab.data.examples import Document
from transformer_lab.data.masking import GOLDEN, Masking
from transformer_lab.data.packing import Packing, Packs, examples_at, ranges
from transformer_lab.data.plan import mix
from transformer_lab.data.segments import PAIR, Pairs, SentenceEncoding, SentenceTask
from transformer_lab.data.steps import Batch, Collator, EvaluationSet
from transformer_lab.data.store import Corpus
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.layout import Layout
from transformer_lab.models.encoder import Encoder
from transformer_lab.models.heads import SequenceHead, TokenHead, Transform
from transformer_lab.tasks.base import Outcome, Scored, Task, check_context, quoted, told_truncated
from transformer_lab.terminal import plain

BEGIN, END, MASK = "<cls>", "<sep>", "<mask>"
GUESSES = 5  # shown for each hidden token


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskedBatch(Batch):
    tokens: Tensor  # (N,) some hidden
    types: Tensor  # (N,) 0 in the first segment, 1 in the second
    layout: Layout
    indices: Tensor  # (M,) of the hidden tokens
    labels: Tensor  # (M,) what they were
    nsp_labels: Tensor | None  # (B,) 1 where the second segment is not what followed the first


@dataclass(frozen=True)
class Collate(Collator):
    """Pairs between `begin` and `end`, with tokens hidden afresh in each epoch: the key decides which."""

    begin: int
    end: int
    masking: Masking
    predicts_next: bool  # whether there is something to tell of the second segment

    def __call__(self, corpus: Corpus, pieces: np.ndarray, key: int) -> MaskedBatch:
        a, a_length, b, b_length, nsp_labels, variant = (pieces[name] for name in PAIR.names or ())
        second = b_length > 0
        lengths = a_length + b_length + 2 + second
        starts = np.cumsum(lengths) - lengths
        tokens = np.full(int(lengths.sum()), self.end, dtype=np.int64)
        types = np.zeros_like(tokens)
        tokens[starts] = self.begin
        values = corpus["tokens"].values
        tokens[ranges(starts + 1, a_length)] = values[ranges(a, a_length)]
        if second.any():
            begins, counts = starts[second] + a_length[second] + 2, b_length[second]
            tokens[ranges(begins, counts)] = values[ranges(b[second], counts)]
            types[ranges(begins, counts + 1)] = 1
        sequence = np.repeat(np.arange(len(pieces)), lengths)
        hidden, indices = self.masking(tokens, sequence, self._seeds(a, b, variant, key))
        num_targets = {"mlm": float(len(indices))} | ({"nsp": float(len(pieces))} if self.predicts_next else {})
        return MaskedBatch(
            num_tokens=len(tokens),
            num_targets=num_targets,
            tokens=torch.from_numpy(hidden),
            types=torch.from_numpy(types),
            layout=Layout.of(torch.from_numpy(lengths)),
            indices=torch.from_numpy(indices),
            labels=torch.from_numpy(tokens[indices]),
            nsp_labels=torch.from_numpy(nsp_labels.copy()) if self.predicts_next else None,
        )

    def examples(self, corpus: Corpus, pieces: np.ndarray) -> np.ndarray:
        """A pair counts for the text of its first segment."""
        return examples_at(corpus, pieces["a"], pieces["a"])

    def _seeds(self, a: np.ndarray, b: np.ndarray, variant: np.ndarray, key: int) -> np.ndarray:
        """64 bits for each pair."""
        seeds = np.full(len(a), key, dtype=np.uint64)
        for number in (a, b, variant):
            seeds = mix(seeds + number.astype(np.uint64) * GOLDEN)
        return seeds


class MLMNSP(Task):
    """Trains an `Encoder` on pairs of segments of at most `context` tokens, `mlm_probability` of them hidden.

    `sentence_task` is "next" (BERT's next sentence prediction), "order" (ALBERT's) or "none" (RoBERTa). The pairs are
    made `variants` times, each time with other draws, and shuffled together. With `whole_words` all pieces of a word
    are hidden together. With `tie_embeddings` the output matrix is the embedding.
    """

    collate: Collate
    model: Encoder
    model_types = (Encoder,)
    example_type = Document
    special_tokens = (BEGIN, END, MASK)

    def __init__(
        self,
        *,
        model: Encoder,
        tokenizer: Tokenizer,
        name: str,
        context: int,
        mlm_probability: float = 0.15,
        whole_words: bool = False,
        sentence_task: SentenceTask = "next",
        variants: int = 1,
        tie_embeddings: bool = True,
    ) -> None:
        super().__init__()
        check_context(context, 5, "two tokens and the three around them", model.position.max_length)
        if not 0 < mlm_probability < 1:
            raise ValueError(
                f"task.mlm_probability: {mlm_probability} is no probability; 0 < mlm_probability < 1, BERT's is 0.15"
            )
        if variants < 1:
            raise ValueError(f"task.variants: {variants} is too small; at least 1")
        self.model, self.tokenizer, self.name, self.context = model, tokenizer, name, context
        self.capacity, self.variants, self.sentence_task = context, variants, sentence_task
        self.encoding = SentenceEncoding()
        self.begin, self.end, self.mask = (tokenizer.special(special) for special in self.special_tokens)
        masking = Masking(mlm_probability, self.mask, tokenizer.ordinary, tokenizer.continues if whole_words else None)
        self.collate = Collate(self.begin, self.end, masking, sentence_task != "none")
        self.transform = Transform(dim=model.dim, bias=model.bias, norm=model.make_norm(dim=model.dim))
        self.head = TokenHead(embedding=model.embedding, tied=tie_embeddings, bias=True, width_ratio=model.width_ratio)
        self.nsp_head = None
        if sentence_task != "none":
            self.nsp_head = SequenceHead(dim=model.dim, num_classes=2, pooling="pooler", width_ratio=model.width_ratio)

    def packing(self, corpus: Corpus) -> Packing:
        budget = self.context - (2 if self.sentence_task == "none" else 3)
        pairs = Pairs(budget, self.sentence_task, self.variants)
        pairs.check(corpus)
        return Packs(
            corpus=corpus,
            capacity=self.capacity,
            layout=PAIR,
            pieces=pairs,
            cache_key=pairs.cache_key,
            truncated="a document of one sentence, which nothing can be in order with",
        )

    def forward(self, batch: MaskedBatch) -> Outcome:
        first, hidden = self._states(batch)
        losses = {"mlm": self.head.loss(self.transform(hidden), batch.labels)}
        if self.nsp_head is not None and batch.nsp_labels is not None:
            losses["nsp"] = F.cross_entropy(
                self.nsp_head(first, batch.layout).float(), batch.nsp_labels, reduction="sum"
            )
        return Outcome(losses)

    def score(self, batch: MaskedBatch) -> Scored:
        first, hidden = self._states(batch)
        loss, right = self.head.score(self.transform(hidden), batch.labels)
        each = batch.layout.sums(torch.stack([loss, torch.ones_like(loss), right.float()], 1), batch.indices)
        losses, counts = {"mlm": each[:, :2]}, {"mlm": each[:, 1:]}
        if self.nsp_head is not None and batch.nsp_labels is not None:
            logits = self.nsp_head(first, batch.layout).float()
            loss = F.cross_entropy(logits, batch.nsp_labels, reduction="none")
            right = (logits.argmax(1) == batch.nsp_labels).float()
            losses["nsp"] = torch.stack([loss, torch.ones_like(loss)], 1)
            counts["nsp"] = torch.stack([torch.ones_like(right), right], 1)
        return Scored(losses, counts)

    def _states(self, batch: MaskedBatch) -> tuple[Tensor, Tensor]:
        """Of the tokens that `nsp_head` reads, (B, D), none without it; and of the hidden ones, (M, D)."""
        first = self.nsp_head.indices(batch.layout) if self.nsp_head is not None else batch.indices[:0]
        assert first is not None
        states = self.model(batch.tokens, batch.layout, batch.types, indices=torch.cat([first, batch.indices]))
        return states[: len(first)], states[len(first) :]

    def metrics(self, losses: dict[str, float], sums: dict[str, Tensor], corpus: Corpus) -> dict[str, float]:
        found = {"loss": sum(losses.values()), "mlm_loss": losses["mlm"]}
        found["mlm_accuracy"] = _share(sums["mlm"])
        if "nsp" in losses:
            found["nsp_loss"] = losses["nsp"]
            found["nsp_accuracy"] = _share(sums["nsp"])
        return found

    def try_with(self, corpus: Corpus) -> str:
        words = super().try_with(corpus).split()
        return " ".join([*words[: len(words) // 2], MASK, *words[len(words) // 2 + 1 :]])

    def samples(self, batches: EvaluationSet) -> str:
        """The first sequences of a split, with what was hidden and what is guessed."""
        batch = batches[0]
        assert isinstance(batch, MaskedBatch)
        batch = batch.to(self.model.embedding.weight.device)
        with torch.inference_mode():
            hidden = self.model.forward(batch.tokens, batch.layout, batch.types, indices=batch.indices)
            guesses = self.head(self.transform(hidden)).argmax(1).tolist()
        ends, shown = batch.layout.offsets.tolist(), []
        for begin, end in list(itertools.pairwise(ends))[:5]:
            rows = [row for row, place in enumerate(batch.indices.tolist()) if begin <= place < end]
            pairs = ((int(batch.labels[row]), guesses[row]) for row in rows)
            table = "\n".join(f"| `{self._piece(was)}` | `{self._piece(said)}` |" for was, said in pairs)
            text = quoted(self.tokenizer.reveal(batch.tokens[begin:end].tolist()))
            shown.append(f"{text}\n\n| hidden | guessed |\n| --- | --- |\n{table}")
        return "\n\n---\n\n".join(shown)

    def _piece(self, token: int) -> str:
        return plain(self.tokenizer.decode([token])).replace("|", "¦").replace("`", "'").replace("\n", "⏎")

    def show(self, batch: MaskedBatch) -> str:
        lines = []
        texts = batch.tokens.split(batch.layout.lengths.tolist())
        types = batch.types.split(batch.layout.lengths.tolist())
        nsp_labels = [None] * len(texts) if batch.nsp_labels is None else batch.nsp_labels.tolist()
        names = {"next": ("is next", "is not next"), "order": ("in order", "swapped")}.get(self.sentence_task)
        for text, kinds, answer in zip(texts, types, nsp_labels, strict=True):
            first = int((kinds == 0).sum())
            ids = text.tolist()
            verdict = f"{names[answer]} | " if names and answer is not None else ""
            lines.append(f"{verdict}{self.tokenizer.reveal(ids[:first])} ‖ {self.tokenizer.reveal(ids[first:])}")
        hidden = " | ".join(map(self._piece, batch.labels.tolist()))
        return "\n".join([*lines, "", f"hidden, in this order: {hidden}"])

    def predict(self, lines: list[str], *, top: int = GUESSES) -> list[dict[str, Any]]:
        """The `top` likeliest tokens for each <mask> of a line; `error` says of a line why there are none."""
        if not 1 <= top <= len(self.collate.masking.ordinary):
            raise ValueError(f"top: {top} guesses; 1 to {len(self.collate.masking.ordinary)}")
        self.eval()
        return [self._filled(line, top) for line in lines]

    def _filled(self, line: str, top: int) -> dict[str, Any]:
        # A word's token holds the space before it, where tokenizers have that: the mask takes it along.
        parts = [part.rstrip() for part in line.split(MASK)[:-1]] + line.split(MASK)[-1:]
        if len(parts) < 2:
            return _unfilled(line, f"there is no {MASK} to fill in {line!r:.60}")
        ids: list[int] = []
        for index, encoded in enumerate(self.tokenizer.encode_batch(parts)):
            ids += [*([self.mask] if index else []), *encoded]
        tokens, room = torch.tensor(ids), self.context - 2
        masked = (tokens == self.mask).nonzero().squeeze(1)
        first, last = int(masked[0]), int(masked[-1])
        if last - first >= room:
            return _unfilled(line, f"the masks are further apart than the model's context of {self.context} tokens")
        # Of a text that is too long, as much before the masks as behind them, as far as there is.
        begin = max(0, min((first + last + 1 - room) // 2, len(ids) - room))
        read = torch.tensor([self.begin, *ids[begin : begin + room], self.end])
        with torch.inference_mode():
            device = self.model.embedding.weight.device
            indices = (masked - begin + 1).to(device)
            hidden = self.model.forward(read.to(device), Layout.of([len(read)]).to(device), indices=indices)
            shares, guesses = self.head(self.transform(hidden)).float().softmax(1).topk(top)
        tokens[masked] = guesses[:, 0].cpu()
        masks = [
            [
                {"token": self.tokenizer.decode([token]), "probability": round(p, 6)}
                for token, p in zip(*row, strict=True)
            ]
            for row in zip(guesses.tolist(), shares.tolist(), strict=True)
        ]
        filled = self.tokenizer.decode(tokens.tolist())
        about = "; ".join(
            ", ".join(f"{guess['token'].strip()} {guess['probability']:.3f}" for guess in mask) for mask in masks
        )
        return {
            "input": line,
            "filled": filled,
            "masks": masks,
            "error": None,
            "text": f"{filled}\t({about})",
            **told_truncated(len(ids) > room),
        }


def _share(counted: Tensor) -> float:
    """Of what was asked, what was right: (2,)."""
    return float(counted[1] / counted[0])


def _unfilled(line: str, error: str) -> dict[str, Any]:
    return {"input": line, "filled": None, "masks": [], "error": error, "text": f"{line}\t({error})"}
