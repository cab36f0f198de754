"""What of a text is lost in its tokens, or behind the end of a context, is counted and told; no score hides it."""

import pytest

from tests.conftest import WORDS, corpus_for, evaluation_set, settings, small_task
from transformer_lab.composition.build import build
from transformer_lab.data.examples import Document, Pair
from transformer_lab.data.sources.base import Source
from transformer_lab.data.store import prepare
from transformer_lab.run.preparation import prepare_store
from transformer_lab.run.train import train
from transformer_lab.training.evaluation import evaluate
from transformer_lab.training.hardware import Hardware

CPU = Hardware(accelerator="cpu", precision="fp32", compile=False, micro_batch_tokens=1)
THAI = ["สวัสดีครับ วันนี้อากาศดีมาก", "ผมชอบกินข้าวผัด", "เธออ่านหนังสือทุกวัน", "แมวนอนหลับอยู่บนเก้าอี้"]


class Given(Source):
    """Examples as they stand: one half to train, one to validate."""

    example_type = Document

    def __init__(self, examples):
        self.examples = examples

    def cache_key(self):
        return {"given": repr(self.examples)}

    def read(self):
        half = len(self.examples) // 2
        yield from (("train", one) for one in self.examples[:half])
        yield from (("validation", one) for one in self.examples[half:])


def metrics(task, corpus):
    return evaluate(task, evaluation_set(task, corpus), CPU).metrics


def test_unknown_tokens_are_counted_warned_of_and_no_bits_are_reported_of_bytes_that_were_lost(tmp_path, caplog):
    task = small_task("task=language_modeling")
    trainer = build(settings("tokenizer=characters")["tokenizer"])
    task.tokenizer = trainer.train(["abc def " * 30], special_tokens=task.special_tokens)
    config = {"cache_dir": str(tmp_path), "allow_overlap": True}
    store = prepare_store(config, Given([Document(text) for text in ["abc", *THAI, "def abc", "fed"]]), task)
    train, validation = store.splits["train"], store.splits["validation"]
    assert train.unknown_share > 0.9 and train.kept_share == 1 / 3
    assert validation.kept_share == 0.5
    assert "% of the tokens of the train split stand for what it does not know" in caplog.text
    assert "its tokens do not give back 50.0% of the texts of the validation split" in caplog.text
    assert "bits_per_byte" not in metrics(task, validation)


def test_of_what_is_kept_bits_are_reported(tmp_path, caplog):
    task = small_task("task=language_modeling")
    store = prepare(Given([Document(text) for text in THAI]), WORDS, task.encoding, cache_dir=tmp_path)
    assert {(corpus.unknown_share, corpus.kept_share) for corpus in store.splits.values()} == {(0.0, 1.0)}
    assert "bits_per_byte" in metrics(task, store.splits["validation"])


def test_the_best_possible_exact_match_stands_beside_the_reached_one(tmp_path):
    task = small_task("task=translation", "task.context=16")
    pairs = [Pair("a b", "c d"), Pair("e", "f g h"), Pair("short", "far too long for sixteen bytes"), Pair("x", "y")]
    store = prepare(Given([*pairs, *pairs]), WORDS, task.encoding, cache_dir=tmp_path)
    found = metrics(task, store.splits["validation"])
    assert found["possible_exact_match"] == 0.75 and found["truncated_texts"] == 1
    store = prepare(Given(pairs[:2] * 2), WORDS, task.encoding, cache_dir=tmp_path)
    assert not {"possible_exact_match", "truncated_texts"} & metrics(task, store.splits["validation"]).keys()


@pytest.mark.parametrize("cell", ["classification", "translation"])
def test_every_score_says_how_many_texts_were_cut(cell):
    task = small_task(f"task={cell}", "task.context=16")
    assert metrics(task, corpus_for(task, [5, 40, 50]))["truncated_texts"] >= 2
    assert "truncated_texts" not in metrics(task, corpus_for(task, [5, 6, 7]))


@pytest.mark.parametrize("cell", ["classification", "translation", "language_modeling", "mlm_nsp"])
def test_a_prediction_says_that_its_line_was_cut(cell):
    task = small_task(f"task={cell}", "task.context=16")
    short, long = task.predict(["<mask>", "a long <mask> line " * 1 + "and so on " * 9])
    assert long["truncated"] is True and "truncated" not in short


@pytest.mark.parametrize(
    "text",
    [
        "{} at the beginning " + "of a long text " * 9,
        "a long text " * 9 + "with {} here",
        "a long text " * 5 + "with {} here" + " and so on" * 5,
    ],
)
def test_of_a_long_text_the_part_around_a_mask_is_read(text):
    task = small_task("task=mlm_nsp", "task.context=16")
    (found,) = task.predict([text.format("<mask>")])
    guess = found["masks"][0][0]["token"]
    assert found["truncated"] and found["filled"] == text.format("XX").replace(" XX", guess).replace("XX", guess)
    alone = task.predict([text.format("<mask>")[:200]])[0] if text.startswith("{}") else found
    assert alone["masks"][0] == found["masks"][0]
    (apart,) = task.predict(["<mask>" + " far away" * 5 + " <mask>"])
    assert "further apart than the model's context of 16 tokens" in apart["error"]


def test_what_is_lost_stands_in_the_table_of_a_run(place, tmp_path, capsys):
    words = [
        "data=text",
        "tokenizer=characters",
        "tokenizer.max_characters=300",
        "model.dim=32",
        "model.num_layers=1",
        "task.context=32",
        "tokens_per_step=256",
        "max_steps=1",
        "pictures.layers=[]",
    ]
    train(**settings(*words, f"data.path={place}/beginnings", f"cache_dir={tmp_path}", f"run_dir={tmp_path}/run"))
    told = capsys.readouterr().out
    assert "unknown tokens" in told and "texts that tokens give back" in told and "bits per byte" not in told
