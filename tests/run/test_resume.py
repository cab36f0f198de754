"""A run that is killed, at any instant and as often as you like, and started again is the run that was not killed."""

import itertools
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import curves, fingerprint, settings
from tests.programs import Program, call, latest
from transformer_lab.data.module import DataModule
from transformer_lab.finished.loaded_run import evaluate_run, load_run
from transformer_lab.run.train import train
from transformer_lab.training.averages import Ema
from transformer_lab.training.module import Training
from transformer_lab.training.optimizers import product_dtype
from transformer_lab.training.saved import damage, read_training, read_weights
from transformer_lab.training.signals import Signals

ROOT = Path(__file__).parent.parent.parent
SMALL = [
    "tokenizer=bytes",
    "model.dim=32",
    "model.num_layers=1",
    "model.dropout=0.1",
    "tokens_per_step=256",
    "hardware.micro_batch_tokens=160",
    "max_steps=60",
    "validate_every_steps=15",
    "checkpoint.every_steps=7",
    "log_every_steps=4",
    "pictures.layers=[]",
    "schedule=cosine",
    "schedule.warmup_steps=5",
    "allow_overlap=true",
]
TASKS = {
    "language_modeling": ["data=text", "data.path=beginnings", "task.context=32"],
    "mlm_nsp": ["task=mlm_nsp", "data=text", "data.path=beginnings", "task.context=32"],
    "classification": ["task=classification", "data=labeled", "data.path=lines.tsv", "task.context=40"],
    "translation": [
        "task=translation",
        "data=parallel",
        "data.path=lines.tsv",
        "data.source=text",
        "data.target=back",
        "task.context=20",
        "data.validation=0.02",
        "data.test=0.02",
        "task.beam_size=2",
    ],
}


@pytest.fixture(scope="module", params=["language_modeling"])
def command(request, place):
    def words(run_dir, *more):
        data = [word.replace("path=", f"path={place}/") for word in TASKS[request.param]]
        return ["train.py", *data, *SMALL, f"cache_dir={place / 'cache'}", f"run_dir={run_dir}", *more]

    return words


def own(words):
    """The same as a Python of its own."""
    return [sys.executable, str(ROOT / words[0]), *latest(words[1:])]


def run(words):
    done = call(*words)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def undisturbed(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    started = time.monotonic()
    run(command(folder))
    return folder, time.monotonic() - started


def disturb(command, folder, kills, seconds, draw):
    """Kill the run at `kills` random instants of its life, then let it finish."""
    done = 0
    while done < kills:
        process = Program(*command(folder, "resume=auto"))
        time.sleep(draw.uniform(0, 1) * seconds)
        done += kill(process)
        if (folder / "metrics.json").exists():
            break
    run(command(folder, "resume=auto"))
    return done


def kill(process):
    """Whether it was still alive."""
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


TIMED = re.compile("tokens_per_second|mfu|megabytes")  # what depends on the machine at that moment


def same(one, other):
    assert fingerprint(one) == fingerprint(other)
    assert curves(one) == curves(other)
    tables = [(folder / "curves.csv").read_text().splitlines() for folder in (one, other)]
    assert [row for row in tables[0] if not TIMED.search(row)] == [row for row in tables[1] if not TIMED.search(row)]
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, other)]
    assert metrics[0]["validation"] == metrics[1]["validation"] and metrics[0]["test"] == metrics[1]["test"]


def test_a_killed_run_is_the_same_run(command, undisturbed, tmp_path):
    folder, _ = undisturbed
    process = Program(*command(tmp_path / "run"))
    while not (tmp_path / "run" / "checkpoints" / "last").exists():  # with something to go on from
        assert process.poll() is None
        time.sleep(0.01)
    assert kill(process)
    run(command(tmp_path / "run", "resume=auto"))
    same(folder, tmp_path / "run")
    assert "Going on after step" in (tmp_path / "run" / "log.txt").read_text()


@pytest.fixture
def go(place, tmp_path):
    """Train in this process, as the command with these words would; returns the run's folder."""

    def train_with(*words, name="run", task="language_modeling"):
        data = [word.replace("path=", f"path={place}/") for word in TASKS[task]]
        # TensorBoard sorts the files of one process and one second as words: 10, 9
        while list((tmp_path / name / "tensorboard").glob(f"*.tfevents.{int(time.time())}.*")):
            time.sleep(0.01)
        train(**settings(*SMALL, *data, f"cache_dir={place / 'cache'}", f"run_dir={tmp_path / name}", *words))
        return tmp_path / name

    return train_with


@pytest.fixture
def leave(monkeypatch):
    """`leave(at)`: let a signal arrive while these steps are taken, or `validation`s of this number go on."""

    def at(*steps, validations=(), number=signal.SIGTERM):
        take, score, seen = Training.training_step, Training.validation_step, []

        def training_step(self, step, batch_idx):
            if step.number + 1 in steps:
                os.kill(os.getpid(), number)
            return take(self, step, batch_idx)

        def validation_step(self, batch, batch_idx):
            seen.append(batch_idx)
            if batch_idx == 0 and seen.count(0) in validations:
                os.kill(os.getpid(), number)
            return score(self, batch, batch_idx)

        monkeypatch.setattr(Training, "training_step", training_step)
        monkeypatch.setattr(Training, "validation_step", validation_step)

    yield at
    monkeypatch.undo()


def step_of(folder):
    last = folder / "checkpoints" / "last"
    assert damage(last) is None
    return json.loads((last / "training.json").read_text())["progress"]["step"]


def left(go, *words, **more):
    """A run that a signal ends; its folder."""
    with pytest.raises(SystemExit) as end:
        go(*words, **more)
    assert end.value.code == 143


@pytest.mark.parametrize("task", TASKS)
def test_a_signal_ends_a_run_with_its_step_saved_and_the_rest_follows_exactly(go, leave, tmp_path, monkeypatch, task):
    whole = go(name="whole", task=task)
    leave(11, validations=(2,))  # between two validations, then in the validation after step 30
    left(go, task=task)
    assert step_of(tmp_path / "run") == 11
    left(go, "resume=auto", task=task)
    assert step_of(tmp_path / "run") == 30
    random.seed(9), np.random.seed(9), torch.manual_seed(9)  # what else the process has drawn is of no matter
    go("resume=auto", task=task)
    same(whole, tmp_path / "run")


def test_five_resumes_between_two_validations_and_two_at_one_step(go, leave, tmp_path, monkeypatch):
    whole = go(name="whole")
    for step in (16, 17, 20, 22, 29):
        leave(step)
        left(go, "resume=auto")
        assert step_of(tmp_path / "run") == step
        monkeypatch.undo()
        with monkeypatch.context() as broken, pytest.raises(TypeError):  # nothing is done, so nothing is saved
            broken.setattr(Training, "_backward", None)
            go("resume=auto")
        assert step_of(tmp_path / "run") == step
    leave(60, validations=(5,))
    left(go, "resume=auto")  # after the last step, before its validation
    assert step_of(tmp_path / "run") == 60
    monkeypatch.undo()
    go("resume=auto")
    same(whole, tmp_path / "run")


def test_a_resumed_run_stops_early_where_the_undisturbed_one_does(go, leave, monkeypatch):
    stop = [
        "callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
        "callbacks.stop.monitor=val/loss",
        "callbacks.stop.patience=2",
        "callbacks.stop.min_delta=100",
        "validate_every_steps=5",
    ]
    whole = go(*stop, name="whole")
    assert step_of(whole) == 15  # of three validations, the last two were no better
    assert "Stopped after step 15: callbacks.stop: Monitored metric val/loss did not improve" in words_of(whole)
    leave(12)  # with one of them behind it
    left(go, *stop)
    monkeypatch.undo()
    same(whole, go(*stop, "resume=auto"))


STOP = [
    "callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
    "callbacks.stop.monitor=val/loss",
    "callbacks.stop.min_delta=100",
    "validate_every_steps=5",
]


def without_newest(folder):
    """As a kill in the next instant would have left it: what came after the checkpoint before is gone."""
    kept = sorted((folder / "checkpoints").glob("step-*"))
    shutil.rmtree(kept[-1])
    for link in ("last", "best"):
        (folder / "checkpoints" / link).unlink()
        (folder / "checkpoints" / link).symlink_to(kept[-2].name)
    (folder / "metrics.json").unlink(missing_ok=True)


def test_a_checkpoint_that_coincides_with_a_validation_holds_what_callbacks_have_counted_of_it(go):
    words = [*STOP, "callbacks.stop.patience=3", "checkpoint.every_steps=5"]
    whole = go(*words, name="whole")
    assert step_of(whole) == 20  # of four validations, the last three were no better
    run = go(*words)
    without_newest(run)
    assert step_of(run) == 15
    same(whole, go(*words, "resume=auto"))


def test_a_run_that_a_callback_has_stopped_stays_stopped_until_the_callback_is_another(go):
    words = [*STOP, "callbacks.stop.patience=1"]
    run = go(*words)
    before = fingerprint(run)
    go(*words, "resume=auto")
    go(*words, "resume=auto", "max_steps=100", "schedule.warmup_steps=5")
    assert fingerprint(run) == before and "It has ended already, after step 10; a callback" in words_of(run)
    more = [*STOP, "callbacks.stop.patience=3"]
    same(go(*more, name="whole"), go(*more, "resume=auto"))


def test_an_error_in_a_validation_leaves_callbacks_as_they_were_before_it(go, monkeypatch):
    words = [*STOP, "callbacks.stop.patience=3", "callbacks.stop.check_on_train_epoch_end=false"]
    whole = go(*words, name="whole")

    def broken(self, trainer, pl_module):
        if pl_module.progress.step == 10:
            raise ZeroDivisionError

    monkeypatch.setattr(Signals, "on_validation_end", broken)  # behind the callback that has counted
    with pytest.raises(ZeroDivisionError):
        go(*words)
    monkeypatch.undo()
    same(whole, go(*words, "resume=auto"))


def test_an_average_of_the_weights_is_what_is_validated_kept_and_exported(go, leave, monkeypatch):
    words = ["average=ema", "average.decay=0.9"]
    whole = go(*words, name="whole")
    leave(11, validations=(2,))  # between two validations, then in a validation, while the model has the averages
    left(go, *words)
    left(go, *words, "resume=auto")
    monkeypatch.undo()
    run = go(*words, "resume=auto")
    same(whole, run)
    last = read_weights(run / "checkpoints" / "last")
    latest = read_training(run / "checkpoints" / "last")["weights"]
    assert latest.keys() == last.keys() and any((last[name] != latest[name]).any() for name in last)
    metrics = json.loads((run / "metrics.json").read_text())
    assert evaluate_run(load_run(str(run), []), "validation", "cpu").metrics == metrics["validation"]
    plain = go(name="plain")  # training itself does not know of the average
    assert curves(plain)["train/loss"] == curves(run)["train/loss"]
    trained = read_weights(plain / "checkpoints" / "last")
    assert all(torch.equal(trained[name], latest[name]) for name in latest)
    with pytest.raises(ValueError, match="this would be another run: average"):
        go("resume=auto")


def test_an_average_is_the_weighted_mean_of_the_weights_of_all_steps():
    layer = torch.nn.Linear(3, 2)
    seen, average = [], Ema(decay=0.5)
    expected = {name: weight.detach().clone() for name, weight in layer.named_parameters()}
    average.begin(layer)
    for step in range(1, 6):
        with torch.no_grad():
            layer.weight.add_(torch.randn(2, 3))
        kept = min(0.5, (1 + step) / (10 + step))
        expected = {n: kept * old + (1 - kept) * dict(layer.named_parameters())[n] for n, old in expected.items()}
        average.update(layer, step)
        seen.append(layer.weight.detach().clone())
    average.swap(layer)
    torch.testing.assert_close(layer.weight.detach(), expected["weight"].detach())
    average.swap(layer)
    assert torch.equal(layer.weight, seen[-1])


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_every_signal_that_asks_a_run_to_leave_saves_its_step(go, leave, tmp_path, name):
    number = getattr(signal, name)
    leave(3, number=number)
    with pytest.raises(SystemExit) as end:
        go("max_steps=5")
    assert end.value.code == 128 + number and step_of(tmp_path / "run") == 3


def test_a_signal_while_training_is_set_up_ends_the_run_as_any_other_does(go, monkeypatch):
    make = DataModule.train_dataloader

    def train_dataloader(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return make(self)

    monkeypatch.setattr(DataModule, "train_dataloader", train_dataloader)
    left(go, "max_steps=5")


def test_a_signal_that_is_ignored_from_the_start_stays_so(go, leave):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        leave(3, number=signal.SIGHUP)
        assert step_of(go("max_steps=5")) == 5
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_to_all_processes_of_a_run_with_loader_workers_saves_its_step(command, tmp_path):
    words = command(tmp_path / "run", "hardware.workers=2", "max_steps=100000", "checkpoint.every_steps=20")
    process = subprocess.Popen(
        own(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    while not (tmp_path / "run" / "checkpoints" / "last").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # as `timeout`, Slurm and containers send it
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in said and "error" not in said, said
    told = f"it goes on after step {step_of(tmp_path / 'run')} with: "
    (line,) = (line for line in (tmp_path / "run" / "log.txt").read_text().splitlines() if told in line)
    _, program, *words = shlex.split(line.partition(told)[2])  # as it stands, from here
    assert Path(program).resolve() == ROOT / "train.py"
    goes_on = call("train.py", *words, f"max_steps={step_of(tmp_path / 'run') + 1}")
    assert goes_on.returncode == 0 and "Going on after step" in goes_on.stdout, goes_on.stderr
    with pytest.raises(ProcessLookupError):  # nobody is left
        os.killpg(process.pid, 0)


def test_whoever_stops_reading_a_run_ends_it_with_its_step_saved(command, tmp_path):
    process = subprocess.Popen(
        own(command(tmp_path / "run", "max_steps=100000")), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while "Saved step 7" not in process.stdout.readline():
        assert process.poll() is None
    process.stdout.close()  # as `| head` does
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGPIPE and said == ""
    assert "after step" in words_of(tmp_path / "run") and step_of(tmp_path / "run") > 7


# Settings that no other test resumes; those that need another run or a file are told by a word.
SETTINGS = {
    "frozen": ["init_from=START", "model.num_layers=2", "freeze_layers=1", "optimizer.layer_decay=0.9"],
    "several labels": ["task=classification", "task.multi_label=true", "data.separator=_"],
    "decoder translates": ["task=translation", "model=decoder"],
    "words and order": ["task=mlm_nsp", "task.whole_words=true", "task.sentence_task=order"],
    "documents": ["task.packing=documents"],
    "workers and checkpointing": ["hardware.workers=2", "hardware.activation_checkpointing=true"],
    "AdamW unclipped": ["optimizer=adamw", "gradient_clip=null"],
    "bf16": ["hardware.precision=bf16"],
    "epochs": ["max_steps=null", "max_epochs=1", "tokens_per_step=8192"],
    "csv": ["logger=csv"],
    "average": ["average=ema"],
    "early stopping": [*STOP, "callbacks.stop.patience=4", "callbacks.stop.check_on_train_epoch_end=false"],
}


@pytest.mark.battery
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_nobody_lists_resume_exactly(go, leave, place, monkeypatch, name):
    """R1 in further settings: interrupted between validations and in a validation; and killed behind a checkpoint."""
    words = [word.replace("START", str(place / "start")) for word in SETTINGS[name]]
    if "init_from" in words[0] and not (place / "start").exists():
        shutil.copytree(go(name="start"), place / "start", symlinks=True)
    if name == "bf16" and product_dtype(torch.device("cpu")) != torch.bfloat16:
        pytest.skip("no bf16 on this CPU")
    task = next((word.removeprefix("task=") for word in words if word.startswith("task=")), "language_modeling")
    read = (lambda folder: {}) if name == "csv" else curves
    whole = go(*words, name="whole", task=task)
    leave(11, validations=(2,))
    left(go, *words, task=task)
    left(go, *words, "resume=auto", task=task)
    monkeypatch.undo()
    run = go(*words, "resume=auto", task=task)
    assert fingerprint(whole) == fingerprint(run) and read(whole) == read(run)
    without_newest(run)
    assert fingerprint(whole) == fingerprint(go(*words, "resume=auto", task=task))


@pytest.mark.battery
@pytest.mark.parametrize("name", SETTINGS)
def test_kills_in_settings_that_nobody_lists(go, place, tmp_path, name):
    """R1 in further settings: kill -9 at four random instants."""
    words = [word.replace("START", str(place / "start")) for word in SETTINGS[name]]
    if "init_from" in words[0] and not (place / "start").exists():
        shutil.copytree(go(name="start"), place / "start", symlinks=True)
    task = next((word.removeprefix("task=") for word in words if word.startswith("task=")), "language_modeling")

    def command(folder, *more):
        data = [word.replace("path=", f"path={place}/") for word in TASKS[task]]
        return ["train.py", *SMALL, *data, f"cache_dir={place / 'cache'}", f"run_dir={folder}", *words, *more]

    started = time.monotonic()
    run(command(tmp_path / "whole"))
    seconds, draw, kills = time.monotonic() - started, random.Random(name), 0
    while kills < 4:
        folder = tmp_path / f"run{kills}"
        kills += disturb(command, folder, 4 - kills, seconds, draw)
        assert fingerprint(tmp_path / "whole") == fingerprint(folder)


GRID = list(itertools.product((0.0, 0.1), (0, 2), (100000, 130), (22, 30, 60)))


def test_every_way_to_train_resumes_exactly(go, leave, tmp_path, monkeypatch, request):
    several(go, leave, tmp_path, monkeypatch, [GRID[4], GRID[19]])


@pytest.mark.battery
def test_every_way_to_train_resumes_exactly_in_full(go, leave, tmp_path, monkeypatch):
    """R2: dropout, loader workers, micro-batches, and where it was interrupted."""
    several(go, leave, tmp_path, monkeypatch, GRID)


def several(go, leave, tmp_path, monkeypatch, grid):
    for number, (dropout, workers, tokens, step) in enumerate(grid):
        words = [f"model.dropout={dropout}", f"hardware.workers={workers}", f"hardware.micro_batch_tokens={tokens}"]
        whole = go(*words, name=f"whole{number}")
        leave(step)
        left(go, *words, name=f"run{number}")
        monkeypatch.undo()
        go(*words, "resume=auto", name=f"run{number}")
        same(whole, tmp_path / f"run{number}")


def test_a_run_by_an_optimizer_of_pytorch_is_scheduled_and_resumes_exactly(go, leave, monkeypatch):
    words = ["optimizer=adamw", "optimizer._target_=torch.optim.SGD", "optimizer.lr=0.1", "optimizer.momentum=0.9"]
    whole = go(*words, name="whole")
    leave(11, validations=(2,))
    left(go, *words)
    left(go, *words, "resume=auto")
    monkeypatch.undo()
    run = go(*words, "resume=auto")
    same(whole, run)
    rates = dict(curves(run)["train/learning_rate"])
    assert max(rates.values()) == pytest.approx(0.1, rel=0.01) and rates[60] < 0.001
    assert load_run(str(run), []).task.predict(["a"])


def test_a_run_of_the_same_seed_is_the_same_run_and_another_seed_is_not(go):
    whole = go(name="whole")
    same(whole, go(name="again"))
    assert fingerprint(whole) != fingerprint(go("seed=2", name="other"))


def test_a_finished_run_is_extended_to_what_a_longer_one_is(go):
    for schedule in ("constant", "inverse_sqrt"):
        words = [f"schedule={schedule}"]
        go(*words, "max_steps=20", name=schedule)
        run = go(*words, "max_steps=60", "resume=auto", name=schedule)
        whole = go(*words, "max_steps=60", name=f"{schedule}-whole")
        assert fingerprint(run) == fingerprint(whole)
        assert curves(run)["train/loss"] == curves(whole)["train/loss"]
        assert "another learning rate" not in words_of(run)


def words_of(run):
    return " ".join((run / "log.txt").read_text().split())


def test_an_extension_that_stretches_the_schedule_says_so(go):
    go("max_steps=20")
    run = go("max_steps=60", "resume=auto")
    assert "was to end at step 20, and now at 60: 14 of its 20 steps so far had another" in words_of(run)


def test_another_learning_rate_is_refused_and_possible_on_purpose(go):
    go("max_steps=20")
    changed = ["optimizer.lr=0.001", "schedule=constant", "gradient_clip=0.5", "max_steps=24", "log_every_steps=1"]
    with pytest.raises(ValueError, match="resume=changed goes on all the same"):
        go(*changed, "resume=auto")
    run = go(*changed, "resume=changed")
    assert "Going on with a change: optimizer.lr was 0.02, is 0.001" in words_of(run)
    assert curves(run)["train/learning_rate"][-1] == (24, pytest.approx(0.001))
    with pytest.raises(ValueError, match=r"model\.dim was 32, is 64$"):
        go(*changed, "model.dim=64", "resume=changed")


OTHERS = {
    "text": ["data.path=lines.tsv"],
    "tokenizer": ["tokenizer=characters"],
    "model.dim": ["model.dim=64"],
    "model.num_layers": ["model.num_layers=3"],
    "model.num_heads": ["model.num_heads=2"],
    "norm": ["norm=layer"],
    "position": ["position=alibi"],
    "feed_forward": ["feed_forward=gelu"],
    "task.context": ["task.context=16"],
    "seed": ["seed=2"],
    "tokens_per_step": ["tokens_per_step=512"],
    "optimizer": ["optimizer=adamw"],
    "residual": ["residual=sandwich_norm"],
    "model.dropout": ["model.dropout=0.2"],
}


def test_what_would_be_another_run_is_refused_in_one_line(go, place):
    run = go("max_steps=15")
    before = fingerprint(run)
    for key, words in OTHERS.items():
        words = [word.replace("path=", f"path={place}/") for word in words]
        with pytest.raises(ValueError, match=f"this would be another run: .*{key}") as error:
            go(*words, "resume=auto")
        assert "\n" not in str(error.value)
    assert fingerprint(run) == before


@pytest.mark.battery
@pytest.mark.parametrize("command", TASKS, indirect=True)
def test_twenty_kills(command, undisturbed, tmp_path):
    """R1: 20 kills of each task, spread over several runs as each of them can bear."""
    folder, seconds = undisturbed
    draw, kills = random.Random(1), 0
    while kills < 20:
        other = tmp_path / f"run{kills}"
        kills += disturb(command, other, 20 - kills, seconds, draw)
        same(folder, other)


@pytest.mark.battery
def test_twenty_signals(command, tmp_path):
    """F6: SIGTERM or SIGINT at 20 random instants of training: the exit code, a whole checkpoint, the rest exact."""
    longer = "max_steps=400"
    run(command(tmp_path / "whole", longer))
    seconds = json.loads((tmp_path / "whole" / "metrics.json").read_text())["seconds"]
    draw, sent, started = random.Random(2), 0, 0
    while sent < 20:
        other, started = tmp_path / f"run{started}", started + 1
        while sent < 20:
            number = draw.choice([signal.SIGTERM, signal.SIGINT])
            log = other / "log.txt"
            before = log.read_text().count("attention kernel") if log.exists() else 0
            process = Program(*command(other, longer, "resume=auto"))
            while not log.exists() or log.read_text().count("attention kernel") == before:
                time.sleep(0.01)
            time.sleep(0.3 + draw.uniform(0, 0.7) * seconds)  # the table comes a moment before the first step
            process.send_signal(number)
            said = "".join(process.communicate(timeout=60))
            if process.returncode == 0:
                break  # it was done before
            # Once its metrics are written, a run is done and SIGTERM ends Python as it always does.
            assert process.returncode in (128 + number, -number) and "Traceback" not in said, said
            if f"{number.name}: saving after this step" in said:  # else it was in the test after training
                assert f"Interrupted; it goes on after step {step_of(other)} with: python" in " ".join(said.split())
                sent += 1
        run(command(other, longer, "resume=auto"))
        same(tmp_path / "whole", other)
