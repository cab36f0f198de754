"""A run that is killed, at any instant and as often as you like, and started again is the run that was not killed."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import curves, fingerprint

ROOT = Path(__file__).parent.parent
SMALL = ["tokenizer=bytes", "model.dim=32", "model.num_layers=2", "model.dropout=0.1", "tokens_per_step=512",
         "hardware.micro_batch_tokens=200", "max_steps=60", "validate_every_steps=15", "checkpoint.every_steps=7",
         "log_every_steps=4", "schedule=cosine", "schedule.warmup_steps=5", "allow_overlap=true"]  # fmt: skip
TASKS = {
    "language_modeling": ["data=text", "data.path=corpus", "task.context=32"],
    "mlm_nsp": ["task=mlm_nsp", "data=text", "data.path=corpus", "task.context=32"],
    "classification": ["task=classification", "data=labeled", "data.path=lines.tsv", "task.context=40"],
    "translation": ["task=translation", "data=parallel", "data.path=lines.tsv", "data.source=text", "data.target=back",
                    "task.context=40", "data.validation=0.02", "data.test=0.02", "task.beam_size=2"],
}  # fmt: skip


@pytest.fixture(scope="module", params=["language_modeling"])
def command(request, place):
    def words(run_dir, *more):
        data = [word.replace("path=", f"path={place}/") for word in TASKS[request.param]]
        return [sys.executable, str(ROOT / "train.py"), *data, *SMALL, f"cache_dir={place / 'cache'}",
                f"run_dir={run_dir}", *more]  # fmt: skip

    return words


def run(words):
    subprocess.run(words, check=True, capture_output=True)


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
        process = subprocess.Popen(command(folder, "resume=auto"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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


def same(one, other):
    assert fingerprint(one) == fingerprint(other)
    assert curves(one) == curves(other)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, other)]
    assert metrics[0]["validation"] == metrics[1]["validation"] and metrics[0]["test"] == metrics[1]["test"]


@pytest.mark.parametrize("command", ["language_modeling", "mlm_nsp"], indirect=True)
def test_a_killed_run_is_the_same_run(command, undisturbed, tmp_path):
    folder, _ = undisturbed
    process = subprocess.Popen(command(tmp_path / "run"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "run" / "checkpoints" / "last").exists():  # with something to go on from
        assert process.poll() is None
        time.sleep(0.01)
    assert kill(process)
    run(command(tmp_path / "run", "resume=auto"))
    same(folder, tmp_path / "run")
    assert "Going on after step" in (tmp_path / "run" / "log.txt").read_text()


def test_a_run_of_the_same_seed_is_the_same_run_and_another_seed_is_not(command, undisturbed, tmp_path):
    folder, _ = undisturbed
    run(command(tmp_path / "again"))
    run(command(tmp_path / "other", "seed=2"))
    same(folder, tmp_path / "again")
    assert fingerprint(folder) != fingerprint(tmp_path / "other")


def test_a_finished_run_can_be_extended_and_another_run_is_refused(command, undisturbed, tmp_path):
    folder = tmp_path / "run"
    constant = ("schedule=constant",)
    words = [word for word in command(folder) if not word.startswith("schedule")]
    run([*words, *constant, "max_steps=20"])
    run([*words, *constant, "max_steps=60", "resume=auto"])
    whole = [word for word in command(tmp_path / "whole") if not word.startswith("schedule")]
    run([*whole, *constant])
    assert fingerprint(folder) == fingerprint(tmp_path / "whole")
    assert curves(folder)["train/loss"] == curves(tmp_path / "whole")["train/loss"]
    refused = subprocess.run([*words, *constant, "resume=auto", "model.dim=64"], capture_output=True, text=True)
    assert refused.returncode == 2 and "model.dim was 32, is 64" in refused.stderr


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
