"""One small run from the command line, and everything a user does with it afterwards."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import TINY, settings
from tests.programs import ROOT, Program, call
from transformer_lab.finished.contents import contents
from transformer_lab.run.folder import best_checkpoint, taken
from transformer_lab.run.train import train
from transformer_lab.training import callbacks
from transformer_lab.training.saved import damage, read_weights


@pytest.fixture(scope="module")
def texts(place):
    return place / "beginnings"


@pytest.fixture(scope="module")
def run(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    small = ["tokenizer.vocab_size=400", "model.dim=32", "model.num_layers=2", "task.context=64"]
    length = ["tokens_per_step=1024", "max_steps=40", "validate_every_steps=20"]
    text = ["data=text", f"data.path={texts}"]
    done = call("train.py", *text, *small, *length, "run_dir=run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout


def test_it_shows_what_it_does_and_what_to_do_next(run):
    _, shown = run
    for word in (
        "parameters",
        "vocabulary",
        "train",
        "validation",
        "tokens per step",
        "steps",
        "device",
        "precision",
        "attention kernel",
        "sdpa (auto)",
        "bits per byte",
        "scripts/predict.py",
        "scripts/evaluate.py",
        "tensorboard --logdir run",
    ):
        assert word in shown


def test_the_folder_holds_what_is_promised(run):
    folder, _ = run
    for name in ("config.yaml", "log.txt", "tokenizer.json", "metrics.json", "tensorboard"):
        assert (folder / name).exists()
    for link in ("last", "best"):
        assert damage(folder / "checkpoints" / link) is None
    metrics = json.loads((folder / "metrics.json").read_text())
    took = {"steps", "tokens", "seconds", "tokens_per_second"}
    assert set(metrics) == {"validation", "best_by", "test", "intervals", *took}
    assert set(metrics["test"]) == {"loss", "perplexity", "bits_per_byte"}
    # A step takes 16 of the corpus' blocks, the last one of an epoch what is left.
    assert metrics["steps"] == 40 and 0.8 * 40 * 1024 < metrics["tokens"] <= 40 * 1024
    assert not [path for path in folder.rglob("*") if path.suffix in (".ckpt", ".pt", ".pkl")]


def test_tensorboard_has_the_curves_and_samples(run):
    events = EventAccumulator(str(run[0] / "tensorboard"))
    events.Reload()
    scalars = {"train/loss", "train/learning_rate", "train/gradient_norm", "train/tokens_per_second", "val/loss"}
    assert scalars <= set(events.Tags()["scalars"])
    assert "samples/text_summary" in events.Tags()["tensors"]
    losses = [point.value for point in events.Scalars("train/loss")]
    assert losses[-1] < losses[0]


def test_evaluate_repeats_the_figures_of_the_run(run):
    folder, _ = run
    metrics = json.loads((folder / "metrics.json").read_text())
    for split in ("test", "validation"):
        done = call("scripts/evaluate.py", f"run={folder}", f"split={split}", cwd=folder.parent)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)[split] == metrics[split]


def test_predict_continues_prompts_from_the_line_a_file_and_a_pipe(run, tmp_path):
    folder, _ = run
    common = [f"run={folder}", "max_new_tokens=8", "seed=3"]
    one = call("scripts/predict.py", *common, "prompt=Return the", "num_samples=2")
    assert one.returncode == 0, one.stderr
    assert one.stdout.startswith("Return the") and one.stdout.count("Return the") >= 2
    (tmp_path / "prompts.txt").write_text("Return the\nclass A\n")
    call("scripts/predict.py", *common, f"file={tmp_path}/prompts.txt", f"output={tmp_path}/out.txt")
    piped = call("scripts/predict.py", *common, "input=-", input="Return the\nclass A\n")
    assert (tmp_path / "out.txt").read_text() == piped.stdout and len(piped.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    "words, said",
    [
        (["prompt=a", "temperature=-1"], "temperature"),
        (["prompt=a", "input=-"], "prompt"),
        (["promt=a"], "prompt"),
        (["file=nowhere.txt"], "nowhere.txt"),
        (["file=-"], "file=-:1: a NUL"),
        (["prompt=a", "max_new_tokens=1000"], "max_new_tokens"),
    ],
)
def test_predict_answers_mistakes_in_one_line(run, words, said):
    done = call("scripts/predict.py", f"run={run[0]}", *words, input="a\0")
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_used_folder_is_not_written_into(run):
    before = sorted((run[0] / "checkpoints").iterdir())
    done = call("train.py", f"run_dir={run[0]}", cwd=run[0].parent)
    assert done.returncode == 2 and "resume=auto" in done.stderr and len(done.stderr.splitlines()) == 1
    assert sorted((run[0] / "checkpoints").iterdir()) == before


def test_a_run_that_has_ended_is_not_made_shorter(run, texts):
    config = yaml.safe_load((run[0] / "config.yaml").read_text())
    config |= {"resume": "auto", "max_steps": 20, "run_dir": str(run[0]), "cache_dir": str(run[0].parent / "cache")}
    before = (run[0] / "metrics.json").read_text()
    with pytest.raises(ValueError, match="max_steps: the run has 40 steps already, and would end at 20"):
        train(**config)
    assert (run[0] / "metrics.json").read_text() == before


def test_show_tells_what_a_checkpoint_holds_and_whether_it_is_whole(run, tmp_path):
    done = call("scripts/show.py", f"run={run[0]}")
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    weights = read_weights(run[0] / "checkpoints" / "best")
    assert "40 │ whole" in shown and "last, best" in shown and "best checkpoint: step 40" in shown
    assert f"│ all │ {sum(x.numel() for x in weights.values()):,} │" in shown and "dim: 32" in shown
    shutil.copytree(run[0], tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "checkpoints" / "best" / "config.yaml").write_text("model: {}")
    done = call("scripts/show.py", f"run={tmp_path / 'run'}")
    assert done.returncode == 0 and "config.yaml has 9 bytes" in done.stdout
    assert "newest whole checkpoint: step 20" in " ".join(done.stdout.split())


SMALL = [word for word in TINY if not word.startswith(("data", "schedule"))]


def test_callbacks_of_lightning_and_early_stopping(texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stop = [
        "callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
        "callbacks.stop.monitor=val/loss",
        "callbacks.stop.patience=1",
        "callbacks.stop.min_delta=100",
    ]
    words = ["data=text", f"data.path={texts}", *SMALL, "validate_every_steps=5", "run_dir=run", *stop]
    train(**settings(*words, "max_steps=60"))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 10
    assert call("scripts/predict.py", "run=run", "prompt=a", cwd=tmp_path).returncode == 0


def test_overfit_learns_one_step_by_heart_and_keeps_the_newest_and_the_best(texts, tmp_path):
    words = ["data=text", f"data.path={texts}", *SMALL, "debug=overfit", "checkpoint.every_steps=30"]
    done = call("train.py", *words, "run_dir=run", "checkpoint.keep=2", "hardware.workers=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["validation"]["loss"] < 0.5 < metrics["test"]["loss"]
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["best", "last", "step-00000180", "step-00000200"]


def test_an_interrupted_run_says_how_to_go_on(texts, tmp_path):
    words = ["data=text", f"data.path={texts}", *SMALL, "checkpoint.every_steps=5", "run_dir=run"]
    process = Program("train.py", *words, "max_steps=100000", cwd=tmp_path)
    while not (tmp_path / "run" / "checkpoints" / "last").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "resume=auto" in " ".join(shown.split())
    words += ["resume=auto", "max_steps=3000", "validate_every_steps=1000", "schedule=constant"]
    refused = call("train.py", *words, cwd=tmp_path)  # other settings than the run had
    assert refused.returncode == 2 and "another run" in refused.stderr


def test_a_second_ctrl_c_ends_an_interrupted_run_without_a_traceback(texts, tmp_path):
    words = ["data=text", f"data.path={texts}", *SMALL, "checkpoint.every_steps=5", "run_dir=run"]
    command = [sys.executable, str(ROOT / "train.py"), *words, "max_steps=100000"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = ""
    while line := process.stdout.readline():
        said += line
        if "Saved step 5:" in line:
            process.send_signal(signal.SIGINT)
        if "Interrupted;" in line:
            time.sleep(0.006)  # Python has begun to end
            process.send_signal(signal.SIGINT)
    assert process.wait() in (128 + signal.SIGINT, -signal.SIGINT) and "Interrupted;" in said
    assert "Traceback" not in said


def test_an_epoch_holds_every_token_once(texts, tmp_path, monkeypatch):
    words = [
        "data=text",
        f"data.path={texts}",
        *SMALL,
        "tokens_per_step=4000",
        "max_steps=null",
        "max_epochs=2",
    ]
    monkeypatch.chdir(tmp_path)
    train(**settings(*words, "validate_every_steps=5", "schedule=constant", "run_dir=run"))
    (store,) = (tmp_path / "outputs" / "cache").glob("store-*")
    tokens = (store / "train.tokens.values").stat().st_size // 2  # 16 bits each
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["tokens"] == 2 * tokens


def test_going_on_from_before_damaged_checkpoints_keeps_the_good_ones(texts, tmp_path, monkeypatch):
    words = ["data=text", f"data.path={texts}", *SMALL, "validate_every_steps=10", "schedule=constant"]
    words += ["run_dir=run", "resume=auto"]
    monkeypatch.chdir(tmp_path)
    train(**settings(*words, "max_steps=20", "checkpoint.every_steps=5"))
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / "step-00000015").mkdir(exist_ok=True)  # one more, newer than the good one it goes on from
    good, hurt = checkpoints / "step-00000010", checkpoints / "step-00000020"
    hurt.rename(good)  # what step 20 left is now the newest whole one …
    hurt.mkdir()  # … and step 20 is damaged
    train(**settings(*words, "max_steps=25", "checkpoint.every_steps=5"))
    assert "damaged and passed over" in (tmp_path / "run" / "log.txt").read_text()
    assert damage(checkpoints / "last") is None and damage(checkpoints / "best") is None


def test_what_is_in_a_run_is_shown_also_where_its_best_checkpoint_is_damaged(texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["data=text", f"data.path={texts}", *SMALL, "validate_every_steps=5", "run_dir=run"]
    train(**settings(*words, "max_steps=10", "checkpoint.every_steps=5", "checkpoint.keep=2"))
    (tmp_path / "run" / "checkpoints" / "best" / "model.safetensors").write_bytes(b"no weights")
    shown = contents("run", "best")
    best, other = (5, 10) if (tmp_path / "run/checkpoints/best").resolve().name.endswith("5") else (10, 5)
    states = {step: state for step, state, *_ in shown.checkpoints}
    assert states[other] == "whole" != states[best]
    assert shown.tables["newest whole checkpoint"]["step"] == other and shown.parameters
    for path in (tmp_path / "run" / "checkpoints").glob("step-*"):
        (path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"run: no checkpoint of run is whole \(step 5: .*; step 10: .*\)"):
        contents("run", "best")
    with pytest.raises(ValueError, match=r"^run: all 2 checkpoints in run/checkpoints are damaged$"):
        best_checkpoint("run")


def test_where_there_is_no_terminal_the_log_tells_of_progress_in_whole_lines(texts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(callbacks, "SILENCE", 0.0)
    words = ["data=text", f"data.path={texts}", *SMALL, "validate_every_steps=10", "run_dir=run"]
    train(**settings(*words, "max_steps=10", "log_every_steps=5"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines if re.match(r"[\d:]+ step ", line)] == [
        f"{n}/10" for n in [*range(1, 11), 10]
    ]
    assert any("tokens/s" in line and "loss" in line for line in lines)


def test_runs_that_begin_in_one_second_have_folders_of_their_own_and_leave_none_if_nothing_comes_of_them(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt), taken(None, "name", None) as one, taken(None, "name", None) as other:
        assert one != other and one.is_dir() and other.is_dir()
        (other / "config.yaml").touch()  # something has come of this one
        raise KeyboardInterrupt
    assert [path for path in tmp_path.rglob("*") if path.is_dir()] == [
        tmp_path / "outputs",
        tmp_path / "outputs/name",
        tmp_path / other,
    ]
    with pytest.raises(ValueError, match="run_dir: run is in use"), taken("run", "", None):
        locked = "from transformer_lab.run.folder import taken\nwith taken('run', '', None): pass"
        done = subprocess.run([sys.executable, "-c", locked], capture_output=True, text=True)
        raise ValueError(done.stderr.splitlines()[-1].removeprefix("ValueError: "))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (["attention=varlen"], "attention"),
        (["max_steps=null", "max_minutes=1"], "schedule"),
        (["schedule._target_=transformer_lab.models.layers.norms.RMSNorm", "~schedule.decay_fraction"], "schedule"),
        (["cache_dir=README.md/x"], "cache_dir"),
        (["cache_dir=/proc/x"], "cache_dir"),
        (["task.context=1"], "task.context"),
        (["-m", "position=rotary,none", "run_dir=README.md"], "run_dir"),
        (["callbacks.c._target_=lightning.pytorch.callbacks.ModelCheckpoint"], "callbacks.c"),
        (["callbacks.c._target_=lightning.pytorch.callbacks.EMAWeightAveraging"], "callbacks.c"),
        (["model.num_layers=10000000"], "model.num_layers"),
        (["model.dim=10000000"], "model: its weights and tables alone take"),
        (["tokenizer.vocab_size=1000000000000"], "tokenizer.vocab_size"),
        (["average=ema", "average.decay=1.0"], "average.decay"),
    ],
)
def test_what_cannot_be_is_answered_in_one_line_before_any_data_is_read(words, said):
    done = call("train.py", *words, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {said}"), done.stderr
    assert "Traceback" not in done.stderr and "Docstrings" not in done.stdout


SLOW = ("lightning", "torch._dynamo", "matplotlib", "datasets")  # to import: seconds
ASKED = "import runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__'); print(*sys.modules)"


@pytest.mark.parametrize("words", [["predict.py", "prompt=a"], ["evaluate.py", "split=validation"]], ids=lambda x: x[0])
def test_what_is_done_with_a_finished_run_imports_nothing_that_trains(run, words):
    folder, _ = run
    script, *more = words
    done = subprocess.run(
        [sys.executable, "-c", ASKED, str(ROOT / "scripts" / script), f"run={folder}", *more],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = done.stdout.splitlines()[-1].split()
    assert "torch" in imported and not set(SLOW) & set(imported)
