"""Other formats hold what they say: read back by their own libraries, models of all kinds compute the same."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import small_task
from tests.programs import call
from transformer_lab.finished import to_ctranslate2, to_onnx
from transformer_lab.layout import Layout

STORED = Path(__file__).parent.parent / "stored_runs"
battery = pytest.mark.battery  # an export as ONNX takes seconds, most of them torch's


@pytest.mark.parametrize(
    "task, format",
    [
        ("language_modeling", "ctranslate2"),
        ("translation", "onnx"),
        ("mlm_nsp", "onnx"),
        pytest.param("language_modeling", "onnx", marks=battery),
        pytest.param("classification", "onnx", marks=battery),
    ],
)
def test_a_run_is_read_back_and_compared(task, format, tmp_path):
    done = call("scripts/export.py", f"run={STORED / task}", "to=out", f"format={format}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "logits differ by at most" in done.stdout and "there" not in done.stdout.replace("the same there", "")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"README.md", "tokenizer.json", "model.bin" if format == "ctranslate2" else "model.onnx"} <= names


def randomised(*words):
    task = small_task(*words).eval()
    torch.manual_seed(0)
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return task


def random_ids(task, length):
    return torch.randint(4, task.tokenizer.vocab_size, (length,))


RELATIVE = ["position=relative", "model.qk_norm=false"]
T5, FIRST = (
    ["model.dim=32", "model.num_heads=2", "feed_forward.hidden_dim=64", x]
    for x in ("experiment=t5", "experiment=transformer")
)
HELD = {
    "default": [],
    "shared keys": ["model.num_kv_heads=2", "model.head_dim=6"],
    "gated": ["feed_forward=swiglu", "model.qk_norm=false", "position=rotary_linear", "position.factor=2"],
    "biased": ["norm=layer", "model.qk_norm=false", "feed_forward=gelu", "model.bias=true", "position=sinusoidal"],
    "tanh": ["feed_forward=geglu", "feed_forward.approximate=tanh", "position=alibi"],
    "own output": ["feed_forward=silu", "model.scale_embedding=true", "task.tie_embeddings=false"],
    "sandwich": ["residual=sandwich_norm", "feed_forward=relu"],
    "post-norm": ["residual=post_norm", "model.embedding_norm=true", *RELATIVE],
    "t5": ["task=translation", *T5],
    "the first": ["task=translation", *FIRST],
    "rotary pair": ["task=translation", "model.qk_norm=false", "model.num_decoder_layers=1", "task.output_bias=true"],
    "two tables": ["task=translation", *RELATIVE, "model.share_embeddings=false"],
}


@pytest.mark.parametrize("words", HELD.values(), ids=HELD)
def test_ctranslate2_computes_the_same(words, tmp_path):
    ctranslate2 = pytest.importorskip("ctranslate2")
    task = randomised(*words, "norm.eps=1e-3")  # which it would take for another number
    to_ctranslate2.write(tmp_path, task)
    name, ids, target = task.tokenizer.name, random_ids(task, 20), random_ids(task, 12)
    tokens, layout = [name(i) for i in ids], Layout.of([20])
    if "task=translation" in words:
        scores = ctranslate2.Translator(str(tmp_path)).score_batch([tokens], [[name(i) for i in target]])[0]
        opened = torch.cat([torch.tensor([task.begin]), target])
        logits = task.head(task.model(ids, layout, opened, Layout.of([13]))).log_softmax(-1)
        closed = torch.cat([target, torch.tensor([task.end])])
        expected, found = logits.gather(1, closed[:, None])[:, 0], torch.tensor(scores.log_probs)
    else:
        expected = task.head(task.model(ids, layout))
        found = torch.from_numpy(np.array(ctranslate2.Generator(str(tmp_path)).forward_batch([tokens])))[0]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


REFUSED = {
    "model.window": ["model.window=5"],
    "position is RotaryYaRN": ["position=rotary_yarn", "position.factor=2", "position.trained_length=32"],
    "feed_forward is XIELU": ["feed_forward=xielu"],
    "model.qk_norm in a seq2seq": ["task=translation"],
    "model.mup": ["model.mup=true"],
    "ctranslate2 has language models": ["task=classification"],
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_ctranslate2_has_no_option_for_is_refused(said, tmp_path):
    with pytest.raises(ValueError, match=said):
        to_ctranslate2.write(tmp_path / "out", small_task(*REFUSED[said]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["model.num_kv_heads=2", "feed_forward=swiglu", "model.window=3", "model.global_every=2"],
        ["task=classification", "model=decoder", "task.pooling=last", "position=relative"],
        pytest.param(["task=classification", "position=alibi", "task.pooling=pooler"], marks=battery),
    ],
    ids=["windows", "last", "distances"],
)
def test_onnx_computes_the_same_for_any_number_and_length_of_texts(words, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    task = randomised(*words)
    to_onnx.write(tmp_path, task)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for lengths in ([1], [9], [1, 1, 1], [30, 2, 7, 1]):
        texts = [random_ids(task, length) for length in lengths]
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        (found,) = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        layout = Layout.of(lengths)
        expected = task.model(torch.cat(texts), layout)
        if "task=classification" in words:
            rows = task.head.indices(layout)
            expected = task.head(expected if rows is None else expected[rows], layout)
            torch.testing.assert_close(torch.from_numpy(found), expected, atol=2e-5, rtol=0)
        else:
            torch.testing.assert_close(torch.from_numpy(found)[mask != 0], task.head(expected), atol=2e-5, rtol=0)


@pytest.mark.parametrize("format, said", [("gguf", "gguf is not written"), ("onxx", "did you mean onnx?")])
def test_a_format_that_is_not_there_is_told(format, said, tmp_path):
    done = call("scripts/export.py", f"run={STORED / 'language_modeling'}", "to=out", f"format={format}", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr
    assert not list(tmp_path.iterdir())
