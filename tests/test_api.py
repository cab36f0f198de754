"""In Python and in a notebook a run is what it is on the command line: checked, shown, gone on with, closed."""

import gc
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

import transformer_lab as tl
from transformer_lab.composition.command_line import preflight
from transformer_lab.layout import Layout

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
SMALL = [
    "tokenizer=bytes",
    "model.dim=32",
    "model.num_layers=1",
    "task.context=64",
    "tokens_per_step=256",
    "schedule=constant",
    "pictures.layers=[]",
]
SENTENCES = "The boat {0} came home. It was late. All slept. Nobody knew {0}."
EXAMPLES = {
    "language_modeling": [SENTENCES.format(i) for i in range(100)],
    "mlm_nsp": [SENTENCES.format(i) for i in range(100)],
    "classification": [(f"a good thing {i}", "good") for i in range(50)]
    + [(f"a bad one {i}", "bad") for i in range(50)],
    "translation": [(f"{i} apples", f"apples {i}") for i in range(100)],
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRANSFORMER_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    return tmp_path


def trained(task, *words, **values):
    limits = {"max_steps": 4, "validate_every_steps": 2} | values
    return tl.train(f"task={task}", *SMALL, *words, data=EXAMPLES[task], **limits)


def test_the_config_is_that_of_the_command_line(place):
    words = ["task=translation", "model.dim=64"]
    assert tl.config(*words, max_steps=7, callbacks={}) == preflight([*words, "max_steps=7", "callbacks={}"]).run
    for name in ("it's a \\ name, [1]", "\\'", "\\\\", "a\\\\'b"):
        assert tl.config(name=name, best_by=None)["name"] == name


def test_all_mistakes_are_told_at_once_and_nothing_is_written(place):
    with pytest.raises(ValueError, match="did you mean") as error:
        tl.train("modle=decoder", "model.dim=abc", max_stpes=3)
    assert sorted(str(error.value).splitlines()) == [
        "max_stpes: no such key; did you mean max_steps?",
        "model.dim: expected int, found 'abc'",
        "modle: no such key; did you mean model?",
    ]
    for wrong in (["position=rotray"], ["--help"], ["model.dim=30"]):
        with pytest.raises(ValueError, match=r"did you mean rotary|expected key=value|not divisible"):
            tl.train(*wrong)
    with pytest.raises(ValueError, match=r"^data\[0\]: .*translation reads \(source, target\)"):
        tl.train("task=translation", data=["one text"])
    assert not list(place.rglob("*.yaml"))


@pytest.mark.parametrize("task", EXAMPLES)
def test_a_run_on_a_list_of_examples(place, task, capsys):
    run = trained(task)
    assert run.folder.is_dir() and run.metrics == json.loads((run.folder / "metrics.json").read_text())
    assert re.fullmatch(rf"Run of {task} in outputs/{task}/\S+: test .*loss \S+.*", repr(run))
    example = EXAMPLES[task][0]
    assert run.evaluate("test") == run.metrics["test"]
    prompt = "The boat <mask> home." if task == "mlm_nsp" else "two apples"
    assert run.predict([prompt])[0] == run.predict(prompt) and run.predict(prompt)["text"]
    batch = run.batch([example])
    assert batch.text == run.show(example) == repr(batch)
    html = batch._repr_html_()
    shown = re.sub(r"<[^>]+>", "", html)
    assert "apples" in shown or "boat" in shown or "good" in shown
    assert ('title="hidden"' in html) == ('title="second"' in html) == (task == "mlm_nsp")
    figures = run.attention(example)
    assert len(figures) == (3 if task == "translation" else 1)
    for figure in (*figures.values(), run.curve("val/loss")):
        assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"has no curve train/lss; there are .*val/loss"):
        run.curve("train/lss")


def test_a_run_goes_on_in_python_and_a_second_one_finds_its_data_prepared(place, capsys):
    run = trained("classification")
    reached = run.metrics["test"]
    capsys.readouterr()
    longer = tl.train(run_dir=str(run.folder), resume="auto", max_steps=6)
    assert longer.metrics["steps"] == 6 and longer.folder == run.folder
    again = trained("classification")
    assert again.folder != run.folder and "Tokenizing" not in capsys.readouterr().out
    assert again.metrics["test"] == reached


def test_nothing_of_a_run_stays_open_and_its_log_is_its_own(place):
    def opened():
        gc.collect()
        return [place for x in os.listdir("/proc/self/fd") if (place := Path("/proc/self/fd", x)).exists()]

    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    trained("language_modeling")
    before = len(opened())
    run = trained("language_modeling")
    log = (run.folder / "log.txt").read_text()
    del run
    assert len(opened()) == before
    logging.getLogger("transformer_lab.tasks").warning("of something else")
    assert next(place.rglob("log.txt")).read_text() and "something else" not in log
    assert all("something else" not in file.read_text() for file in place.rglob("log.txt"))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_training_works_in_a_thread_of_its_own(place):
    found = []
    thread = threading.Thread(target=lambda: found.append(trained("classification", "hardware.workers=0")))
    thread.start()
    thread.join()
    assert found[0].metrics["steps"] == 4


INTERRUPTED = """
import os, pathlib, signal, threading, time
import transformer_lab as tl
examples = [f"text {i} of some length" for i in range(200)]

def interrupt():
    while not pathlib.Path("run/curves.csv").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    tl.train(*SMALL, data=examples, max_steps=100000, run_dir="run")
except KeyboardInterrupt as stop:
    print("INTERRUPTED", stop)
print("alive")
"""


def test_an_interrupt_saves_the_step_and_gives_the_process_back(place):
    text = INTERRUPTED.replace("*SMALL", f"*{SMALL!r}")
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "INTERRUPTED the step is saved; tl.train(run_dir='run', resume='auto') goes on" in done.stdout
    assert done.stdout.endswith("alive\n") and list((place / "run/checkpoints").glob("step-*"))


def test_the_page_is_a_notebook_that_runs_and_shows_itself(place, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.v4.new_notebook()
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    notebook.cells = [nbformat.v4.new_code_cell(block) for block in blocks]
    notebook.cells.append(nbformat.v4.new_code_cell("!python -c \"print('x' * 3)\""))
    NotebookClient(notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(place)}}).execute()
    said = [[output for output in cell.outputs] for cell in notebook.cells]
    assert "\x1b" not in json.dumps(said), "escape sequences"
    kinds = [{kind for output in cell for kind in output.get("data", {})} for cell in said]
    assert len(blocks) > 10 and "image/png" in kinds[0] and "text/html" in kinds[0]  # loss curve and line of progress
    assert not any("next:" in output.get("text", "") for output in said[0])
    drawn = [
        i
        for i, block in enumerate(blocks)
        if re.search(r"^(run\.(attention|curve|batch)\(|scores\.pictures$)", block, re.M)
    ]
    assert [i for i, found in enumerate(kinds[1:], 1) if "image/png" in found or "text/html" in found] == drawn
    assert len(drawn) == 4 and "95% interval" in json.dumps(
        said[blocks.index('scores = run.evaluate("validation")\nscores\n')]
    )
    assert "torch.Size([8, 64])" in json.dumps(said[-4]) and "x.flatten(0, 1)" in json.dumps(said[-2])


def test_models_have_the_parts_of_the_default_run_and_layers_check_their_sizes():
    model, config = tl.Decoder(vocab_size=50, dim=32, num_layers=1, num_heads=4), tl.config()
    for part in ("position", "norm", "residual", "mixer", "feed_forward"):
        name = config[part]["_target_"].rpartition(".")[2]
        assert any(type(module).__name__ == name for module in model.modules()), name
    for sizes in ({"dim": 10}, {"num_heads": 0}, {"num_kv_heads": 3}):
        with pytest.raises(ValueError, match="does not divide"):
            tl.Attention(**{"dim": 16, "num_heads": 4} | sizes)


def test_what_a_layer_looks_at_is_what_it_computes_with():
    torch.manual_seed(0)
    layer, layout = tl.Attention(dim=16, num_heads=4, num_kv_heads=2, causal=True), Layout.of([3, 5])
    x = torch.randn(8, 16)
    weights = layer.attention_weights(x, layout)
    assert torch.allclose(weights.sum(-1), torch.ones(4, 8)) and (weights[:, :3, 3:] == 0).all()
    values = layer.value(x).unflatten(-1, (2, 4)).repeat_interleave(2, dim=1)
    by_hand = layer.out(torch.einsum("hnm,mhk->nhk", weights, values).flatten(1))
    assert torch.allclose(layer(x, layout), by_hand, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 5, 16), (16,), (1, 2, 5, 16)])
def test_what_does_not_lie_end_to_end_is_answered_with_how_it_would(shape):
    layer = tl.Attention(dim=16, num_heads=4)
    with pytest.raises(ValueError, match=r"^x: sequences lie end to end, \(N, D\)") as error:
        layer(torch.zeros(shape), Layout.of([5, 5]))
    assert ("x.flatten(0, 1) with Layout.of([5] * 2)" in str(error.value)) == (len(shape) == 3)
