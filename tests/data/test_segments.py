"""Pairs of segments as BERT's authors made them: by hand on three documents, and in number over many."""

import numpy as np
import pytest

from tests.conftest import WORDS, small_task
from transformer_lab.data.examples import Document
from transformer_lab.data.segments import PAIR, Pairs, SentenceEncoding, sentences
from transformer_lab.data.store import Corpus, Ragged


def corpus_of(documents):
    """Documents given as the lengths of their sentences; every token is a number of its own."""
    total = [sum(lengths) for lengths in documents]
    offsets = np.concatenate([[0], np.cumsum(total)]).astype(np.int64)
    counts = np.concatenate([[0], np.cumsum([len(lengths) for lengths in documents])]).astype(np.int64)
    flat = np.array([n for lengths in documents for n in lengths], dtype=np.int32)
    return Corpus(
        {"tokens": Ragged(np.arange(offsets[-1]), offsets), "sentences": Ragged(flat, counts)}, ("tokens",), 1
    )


class Script:
    """A source of draws that answers as it is told, and says what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def _next(self, kind, *bounds):
        wanted, answer = self.answers.pop(0)
        assert wanted == (kind, *bounds), f"asked {(kind, *bounds)}, the script has {wanted}"
        return answer

    def random(self):
        return self._next("random")

    def randint(self, low, high):
        return self._next("randint", low, high)

    def randrange(self, *bounds):
        return self._next("randrange", *bounds)


def test_three_documents_by_hand(monkeypatch):
    """Document 0 has sentences of 3, 4, 2 and 5 tokens, at 0, 3, 7, 9; document 1 of 6 and 6, at 14, 20; document 2
    one of 4, at 26. A pair may have 10 tokens, so the sentences of 6 are read as 3 and 3."""
    corpus = corpus_of([[3, 4, 2, 5], [6, 6], [4]])
    scripts = {
        0: Script(
            (("random",), 0.5),  # not a short document: fill 10 tokens
            # 3 + 4 + 2 and the first token of the last one fill a pair. The first segment takes 1 to 3 sentences.
            (("randint", 1, 3), 1),
            (("random",), 0.2),  # the second segment is from another document: …
            (("randrange", 1, 3), 1),  # … the next one …
            (("randrange", 4), 0),  # … from its beginning: 3 + 3, and of 10 - 3 tokens one more
            # What the first segment did not take: 4 + 2, the 1 that fitted before, and 3 of the rest.
            (("randint", 2, 4), 2),
            (("random",), 0.7),  # the second segment is what follows
            # The token that is left has no successor: another document it is, all of the 10 - 1 tokens it may have.
            (("randrange", 1, 3), 2),
            (("randrange", 1), 0),
        ),
        1: Script(
            (("random",), 0.05),  # a short one …
            (("randint", 2, 10), 5),  # … of 5 tokens, but two sentences there are
            (("randint", 1, 1), 1),
            (("random",), 0.9),
            (("randint", 3, 3), 3),
            (("random",), 0.3),
            (("randrange", 1, 3), 2),
            (("randrange", 4), 3),  # the last sentence of document 0: 5 tokens are more than the 5 - 3 wanted
            (("randrange", 1, 3), 1),
            (("randrange", 1), 0),
        ),
        2: Script((("random",), 0.5), (("randrange", 1, 3), 1), (("randrange", 4), 0)),
    }
    monkeypatch.setattr("transformer_lab.data.segments.random.Random", lambda name: scripts[int(name.split()[1])])
    pairs, lengths, _ = Pairs(budget=10, task="next", variants=1)(corpus, 0, 3)
    assert [list(pair) for pair in pairs.tolist()] == [
        # a, length, b, length, wrong, variant
        [0, 3, 14, 7, 1, 0],
        [3, 4, 7, 6, 0, 0],
        [13, 1, 26, 4, 1, 0],
        [14, 3, 17, 3, 0, 0],
        [20, 3, 9, 5, 1, 0],
        [23, 3, 26, 4, 1, 0],
        [26, 4, 0, 6, 1, 0],
    ]
    assert lengths.tolist() == [13, 13, 8, 9, 11, 10, 13]
    assert not any(script.answers for script in scripts.values())


def length_of(pairs):
    return pairs["a_length"] + pairs["b_length"]


def many(task, variants=1, seed=0):
    draw = np.random.default_rng(seed)
    documents = [draw.integers(3, 25, draw.integers(8, 40)).tolist() for _ in range(3000)]
    corpus = corpus_of(documents)
    return corpus, Pairs(budget=61, task=task, variants=variants)(corpus, 0, len(documents))[0]


def test_a_tenth_of_the_documents_is_cut_into_shorter_pairs():
    lengths = length_of(many("next")[1])
    assert lengths.max() == 61 and 0.05 < (lengths < 30).mean() < 0.6


@pytest.mark.parametrize("task", ["none", "next", "order"])
def test_a_pair_is_full_where_there_is_more_to_read_and_its_length_tells_nothing(task, monkeypatch):
    monkeypatch.setattr("transformer_lab.data.segments.SHORT", 0)
    _, pairs = many(task)
    lengths, wrong = length_of(pairs), pairs["nsp_label"]
    assert (lengths == 61).mean() > 0.75  # the end of a document is what it is
    if task != "none":
        assert abs((lengths == 61)[wrong == 0].mean() - (lengths == 61)[wrong == 1].mean()) < 0.1


def test_half_of_the_second_segments_are_of_another_document(monkeypatch):
    monkeypatch.setattr("transformer_lab.data.segments.SHORT", 0)
    corpus, pairs = many("next")
    a, a_length, b, b_length, wrong, _ = (pairs[name] for name in PAIR.names)
    assert ((a_length + b_length <= 61) & (a_length > 0) & (b_length > 0)).all()
    starts = corpus["tokens"].offsets
    of_a, of_b = (np.searchsorted(starts, x, side="right") - 1 for x in (a, b))
    assert ((of_a == of_b) == (wrong == 0)).all()
    assert (b[wrong == 0] >= (a + a_length)[wrong == 0]).all()
    # Where there was a choice: the last sentence of a document has no successor.
    single = np.isin(a + a_length, starts[1:])
    choices = wrong[~single]
    assert abs(choices.mean() - 0.5) < 3 * 0.5 / len(choices) ** 0.5


@pytest.mark.parametrize("task", ["none", "next", "order"])
@pytest.mark.parametrize("longest", [25, 200])
def test_every_token_is_read(task, longest):
    """As first segments, or as second ones of the same document; some sentences are longer than a pair."""
    draw = np.random.default_rng(0)
    corpus = corpus_of([draw.integers(1, longest, draw.integers(2, 30)).tolist() for _ in range(300)])
    pairs, lengths, unread = Pairs(budget=61, task=task, variants=1)(corpus, 0, 300)
    a, a_length, b, b_length, wrong, _ = (pairs[name] for name in PAIR.names)
    assert unread == 0 and lengths.max() <= 64 and (a_length > 0).all() and ((b_length > 0) | (task == "none")).all()
    used = np.zeros(corpus.num_tokens, dtype=int)
    for begin, count in zip(a, a_length, strict=True):
        used[begin : begin + count] += 1
    for begin, count in zip(
        b[(wrong == 0) | (task == "order")], b_length[(wrong == 0) | (task == "order")], strict=True
    ):
        used[begin : begin + count] += 1
    assert used.min() == 1 and (used.max() == 1 or task == "order")
    assert used.mean() < 1.1  # a sentence left alone is read once more with the one before it


def test_documents_that_nothing_can_be_in_order_with_are_counted():
    corpus = corpus_of([[5, 5], [4], [5, 6, 7], [3]])
    pairs = Pairs(budget=20, task="order", variants=2)
    assert pairs(corpus, 0, 4)[2] == 2
    packs = small_task("task=mlm_nsp", "task.sentence_task=order").packing(corpus)
    assert packs.num_truncated == 2


@pytest.mark.parametrize(
    ("task", "documents", "why"),
    [
        ("order", [[5], [4], []], "no document has two sentences"),
        ("next", [[5], [4], []], "no document has two sentences"),
        ("next", [[5, 4], []], "one document.*no third sentence"),
        ("next", [[5, 4]], "one document.*no third sentence"),
    ],
)
def test_where_there_are_no_pairs_one_line_says_why(task, documents, why):
    with pytest.raises(ValueError, match=rf"^task\.sentence_task={task}: .*{why}.*task\.sentence_task=none") as error:
        small_task("task=mlm_nsp", f"task.sentence_task={task}").packing(corpus_of(documents))
    assert "\n" not in str(error.value)
    assert small_task("task=mlm_nsp", "task.sentence_task=none").packing(corpus_of(documents)).num_units


@pytest.mark.parametrize("documents", [[[5] * 40], [[], [5] * 40, []], [[7, 3, 9] * 20], [[19] * 30]])
def test_of_a_single_document_the_second_segment_is_elsewhere_where_it_is_not_next(documents):
    """The validation split of a small corpus, or a book."""
    pairs, _, _ = Pairs(budget=20, task="next", variants=50)(corpus_of(documents), 0, len(documents))
    a, a_length, b, b_length, wrong, _ = (pairs[name] for name in PAIR.names)
    assert 0.4 < wrong.mean() < 0.7 and (b[wrong == 0] == (a + a_length)[wrong == 0]).all()
    assert (((b + b_length <= a) | (b > a + a_length)) == (wrong == 1)).all()


def test_in_order_and_swapped_are_the_same_two_segments():
    corpus, pairs = many("order")
    a, _, b, _, swapped, _ = (pairs[name] for name in PAIR.names)
    of_a, of_b = (np.searchsorted(corpus["tokens"].offsets, x, side="right") - 1 for x in (a, b))
    assert (of_a == of_b).all() and ((a > b) == (swapped == 1)).all()
    assert abs(swapped.mean() - 0.5) < 3 * 0.5 / len(swapped) ** 0.5


def test_variants_are_other_pairs_and_each_the_same_again():
    _, pairs = many("next", variants=2)
    one, other = ([pair[:5] for pair in pairs[pairs["variant"] == variant].tolist()] for variant in (0, 1))
    assert len(set(one) & set(other)) < 0.2 * len(one)
    assert (many("next", variants=2)[1] == pairs).all()


@pytest.mark.parametrize(
    ("name", "value"), [("regex.__version__", "1"), ("SHORT", frozenset({"Dr"})), ("MOST", 0.5), ("RULES", 0)]
)
def test_other_rules_make_another_corpus(monkeypatch, name, value):
    before = SentenceEncoding().cache_key()
    monkeypatch.setattr(f"transformer_lab.data.sentences.{name}", value)
    assert SentenceEncoding().cache_key() != before


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three? four e.g. this", ["One.", "Two!", "Three? four e.g. this"]),
        ("A title\n\nIts text goes\non. And on.", ["A title", "Its text goes\non.", "And on."]),
        ('He said "no." Then left.', ['He said "no."', "Then left."]),
        (" \n\n ", []),
    ],
)
def test_texts_are_cut_between_sentences(text, parts):
    assert sentences(text) == parts


def test_no_text_is_lost_between_sentences():
    text = "First one. Second one\nwith a line end.\n\n\nThird (3.5) one. "
    encoding = SentenceEncoding()
    parts = encoding.texts(Document(text))
    row = encoding.row(Document(text), [WORDS.encode(part) for part in parts])
    assert "".join(" ".join(parts).split()) == "".join(text.split())
    assert sum(row["sentences"]) == len(row["tokens"]) and len(row["sentences"]) == len(parts)


def test_a_batch_is_the_pair_between_its_marks():
    task = small_task("task=mlm_nsp")
    corpus = corpus_of([[3, 4], [5]])
    corpus.columns["tokens"] = Ragged(corpus["tokens"].values + 10, corpus["tokens"].offsets)
    batch = task.collate(corpus, np.array([(0, 3, 7, 5, 1, 0), (3, 2, 5, 2, 0, 0)], dtype=PAIR), 0)
    tokens = batch.tokens.clone()
    tokens[batch.indices] = batch.labels
    begin, end = task.begin, task.end
    assert tokens.tolist() == [begin, 10, 11, 12, end, 17, 18, 19, 20, 21, end, begin, 13, 14, end, 15, 16, end]
    assert batch.types.tolist() == [0] * 5 + [1] * 6 + [0] * 4 + [1] * 3
    assert batch.layout.offsets.tolist() == [0, 11, 18] and batch.nsp_labels.tolist() == [1, 0]
