"""Translation: scores as sacreBLEU computes them, texts as they were, and no place for a second way to score."""

import numpy as np
import pytest
import sacrebleu
import torch

from tests.conftest import corpus_for, evaluation_set, small_task
from transformer_lab.data.examples import Pair
from transformer_lab.data.packing import EXAMPLE
from transformer_lab.data.sources.parallel import language_code
from transformer_lab.data.sources.phrases import Phrases
from transformer_lab.data.store import Corpus, Ragged
from transformer_lab.layout import Layout
from transformer_lab.tasks import translation_scores as scores
from transformer_lab.tasks.translation import Translation
from transformer_lab.training.evaluation import evaluate
from transformer_lab.training.hardware import Hardware

CPU = Hardware(accelerator="cpu", precision="fp32", compile=False, micro_batch_tokens=1)
REFERENCES = [
    "Ein Mann fährt Fahrrad.",
    "Zwei Hunde spielen im Schnee.",
    "Die Frau liest „ein Buch“ .",
    "Ja.",
    "Nein, nie!",
]
HYPOTHESES = [
    "Ein Mann fährt auf Fahrrad.",
    "Zwei Hunde rennen im Schnee.",
    "Die Frau liest „ein Buch“ .",
    "",
    "nein , nie!",
]


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_scores_are_sacrebleus_however_the_texts_are_dealt_out(parts):
    sums = {}
    for some in np.array_split(np.arange(5), parts):
        for name, value in scores.statistics(
            [HYPOTHESES[i] for i in some], [REFERENCES[i] for i in some], "13a"
        ).items():
            sums[name] = sums.get(name, 0) + value.sum(0)
    found = scores.corpus_scores(sums, "13a")
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score, abs=1e-9)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score, abs=1e-9)
    assert found["exact_match"] == 1 / 5
    assert "case:mixed" in scores.bleu_signature("13a") and "tok:13a" in scores.bleu_signature("13a")


@pytest.mark.parametrize("language", ["zh", "ja", "th", "km", "hi", "bn", "ar", "fa", "ru", "ko", "vi", "de"])
def test_a_perfect_translation_scores_100_and_one_with_mistakes_neither_0_nor_100(language):
    """L4: one character of every other text is another one."""
    source = Phrases(source="en", target=language, size=60, validation=0.0, test=0.0)
    references = [pair.target for _, pair in source.read()]
    tokenizer = scores.tokenizer_for(source.language, references)
    wrong = [text if place % 2 else f"{text[:-1]}ß" for place, text in enumerate(references)]
    for hypotheses, low, high in ((references, 100, 100), (wrong, 30, 98)):
        counts = scores.statistics(hypotheses, references, tokenizer)
        found = scores.corpus_scores({name: rows.sum(0) for name, rows in counts.items()}, tokenizer)
        assert low <= round(found["bleu"], 9) <= high, found


def test_the_language_that_is_written_says_what_bleu_takes_for_a_word(caplog):
    chosen = {
        "zh-CN": "zh",
        "zho_Hans": "zh",
        "ja": "char",
        "tha_Thai": "char",
        "hi": "intl",
        "fa": "intl",
        "de": "13a",
    }
    for name, tokenizer in chosen.items():
        assert scores.tokenizer_for(language_code(name), []) == tokenizer
    for name in ("target", "back", "sentence2", "text"):  # columns that name no language: their texts do
        assert language_code(name) is None
    with caplog.at_level("INFO"):
        assert Translation.learn(iter([Pair("a", "今天天气很好。")]), None) == {"bleu_tokenizer": "char"}
    assert "task.bleu_tokenizer=char" in caplog.text
    assert Translation.learn(iter([Pair("a", "Trời hôm nay đẹp")]), None) == {"bleu_tokenizer": "13a"}
    assert "tok:zh" in small_task("task=translation", "task.bleu_tokenizer=zh").scored_by()
    with pytest.raises(ValueError, match=r"task\.bleu_tokenizer: ko-mecab needs the package mecab_ko; pip install"):
        small_task("task=translation", "task.bleu_tokenizer=ko-mecab")


@pytest.mark.parametrize("cell", [["task=translation"], ["task=translation", "model=decoder"]], ids=str)
def test_a_pass_scores_what_predict_would_write(cell):
    task = small_task(*cell, "task.beam_size=3")
    texts = ["Ein Mann.", "Zwei Hunde im Schnee", "Ja."]
    sources = [f"{text} {text}" for text in texts]

    def column(values):
        return Ragged(
            np.concatenate(values), np.concatenate([[0], np.cumsum([len(v) for v in values])]).astype(np.int64)
        )

    ids = [[np.array(task.tokenizer.encode(text)) for text in side] for side in (sources, texts)]
    raw = [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]
    corpus = Corpus(
        {"source": column(ids[0]), "target": column(ids[1]), "reference": column(raw)}, ("source", "target"), 1
    )
    found = evaluate(task, evaluation_set(task, corpus, 200), CPU).metrics
    written = [one["translation"] for one in task.predict(sources)]
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(written, [texts]).score, abs=1e-9)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(written, [texts]).score, abs=1e-9)


@pytest.mark.parametrize("cell", [["task=translation"], ["task=translation", "model=decoder"]], ids=str)
def test_targets_are_read_from_their_beginning_and_end_with_the_end_token(cell):
    task = small_task(*cell, "task.context=16")
    corpus = corpus_for(task, [5, 30, 1, 12])
    batch = task.collate(corpus, np.arange(4).view(EXAMPLE), 0)
    targets = batch.target.split(batch.target_layout.lengths.tolist())
    wanted = batch.labels.split(batch.target_layout.lengths.tolist())
    for row, (read, after) in enumerate(zip(targets, wanted, strict=True)):
        whole = corpus["target"][row].tolist()
        closed = [*whole, task.end][:16]  # one that is cut does not say that it ends
        assert after.tolist() == closed and read.tolist() == [task.end, *closed[:-1]]
    assert batch.num_tokens == len(batch.source) + len(batch.target)
    assert task.packing(corpus).num_truncated == 2


@torch.no_grad()
def test_a_decoder_learns_from_targets_alone_and_reads_them_behind_the_source():
    task = small_task("task=translation", "model=decoder")
    corpus = corpus_for(task, [5, 9])
    batch = task.collate(corpus, np.arange(2).view(EXAMPLE), 0)
    for row in range(2):
        sequence = [*corpus["source"][row], task.end, task.between, *corpus["target"][row]]
        hidden = task.model(torch.tensor(sequence), Layout.of([len(sequence)]))
        own = task.hidden(batch).split(batch.target_layout.lengths.tolist())[row]
        torch.testing.assert_close(own, hidden[len(corpus["source"][row]) + 1 :], atol=1e-5, rtol=0)


def test_lines_keep_their_order_whatever_their_length():
    task = small_task("task=translation")
    lines = [f"{'word ' * (n % 7)}{n}" for n in range(70)]
    together = task.translate(lines)
    assert together[:3] == task.translate(lines[:3]) and together[-1:] == task.translate(lines[-1:])
    assert task.translate([]) == []


@pytest.mark.parametrize(("beam", "ends"), [(1, False), (3, False), (3, True)])
def test_a_translation_carries_the_score_by_which_a_search_compares(beam, ends):
    task = small_task("task=translation", f"task.beam_size={beam}", "task.length_penalty=0.6", "task.context=256")
    task.head.bias = torch.nn.Parameter(torch.zeros(len(task.head.matrix)))
    with torch.no_grad():
        task.head.bias[task.end] = 6.0 if ends else 0.0
    sources = ["Ein Mann.", "Zwei Hunde im Schnee", "Ja."]
    prompts = [[*task.tokenizer.encode(source), task.end] for source in sources]
    texts = task.search(prompts, [2 * len(prompt) + 10 for prompt in prompts])
    found = task.predict(sources)
    assert [one["translation"] for one in found] == [task.tokenizer.decode(text.tokens) for text in texts]
    expected = []
    for prompt, text in zip(prompts, texts, strict=True):  # each alone, without what the task makes of many
        wanted = [*text.tokens, task.end] if ends else text.tokens
        assert len(wanted) == text.length
        with torch.no_grad():
            hidden = task.model(
                torch.tensor(prompt),
                Layout.of([len(prompt)]),
                torch.tensor([task.end, *wanted[:-1]]),
                Layout.of([len(wanted)]),
            )
            log_p = task.head(hidden).log_softmax(1)[range(len(wanted)), wanted].sum()
        expected.append(float(log_p) / ((5 + len(wanted)) / 6) ** 0.6)
    assert [one["score"] for one in found] == pytest.approx(expected, abs=1e-4)
