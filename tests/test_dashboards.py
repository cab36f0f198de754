"""What a run leaves for people to look at: a real TensorBoard serves it, other loggers keep it, runs are compared."""

import csv
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from functools import partial

import pytest
import torch
from tensorboard import context
from tensorboard.backend.event_processing import data_provider
from tensorboard.backend.event_processing import plugin_event_multiplexer as multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.data.server_ingester import SubprocessServerDataIngester, get_server_binary
from tensorboard.util.grpc_util import ChannelCredsType

from tests.conftest import README_BY_LETTERS, settings
from tests.programs import call
from transformer_lab.run.train import train
from transformer_lab.tasks.language_modeling import LanguageModeling
from transformer_lab.training import hardware

SMALL = (
    "model.dim=32",
    "model.num_layers=1",
    "hardware=cpu",
    "max_steps=20",
    "validate_every_steps=10",
    "checkpoint.every_steps=10",
    "cache_dir={folder}/cache",
)
LM = ("task=language_modeling", *README_BY_LETTERS)


def run(folder, name, *words):
    small = [word.format(folder=folder) for word in SMALL]
    return train(**settings(*small, f"run_dir={folder}/runs/{name}", *words))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dashboards")
    pairs = "".join(f"number {n}\tNummer {n}\n" for n in range(60))
    (folder / "pairs.tsv").write_text("en\tde\n" + pairs)
    run(folder, "language", *LM, "position=learned", "position.max_length=32", "max_steps=10")
    run(folder, "language", *LM, "position=learned", "position.max_length=32", "resume=auto")
    run(
        folder,
        "translation",
        "task=translation",
        "data=parallel",
        f"data.path={folder}/pairs.tsv",
        "data.source=en",
        "data.target=de",
        "data.validation=0.2",
        "tokenizer=characters",
        "tokens_per_step=512",
        "allow_overlap=true",
        "schedule=constant",
    )
    return folder / "runs"


@pytest.fixture(scope="module")
def ask(runs):
    """A TensorBoard on this machine alone; asks it for a path of its HTTP interface."""
    words = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs), "--port", "0", "--load_fast=false"]
    board = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        found = None
        while found is None:
            line = board.stderr.readline()
            assert line, "TensorBoard ended"
            found = re.search(r"http://localhost:\d+", line)
        address = found[0].replace("localhost", "127.0.0.1")

        def get(path, body=None):
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{address}/data/plugin/{path}", data=data, headers=headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                kind, content = answer.headers["Content-Type"], answer.read()
            return json.loads(content) if "json" in kind else content

        yield get
    finally:
        board.kill()
        board.communicate()


LANGUAGE, TRANSLATION = "language/tensorboard", "translation/tensorboard"


def test_tensorboard_serves_curves_that_go_on_after_a_resume(ask):
    tags = ask("scalars/tags")
    for run in (LANGUAGE, TRANSLATION):
        wanted = {
            "train/loss",
            "val/loss",
            "train/tokens_per_second",
            "train/mfu",
            "train/memory_megabytes",
            "train/unused_room",
            "gradients/embedding",
        }
        assert wanted <= set(tags[run]), set(tags[run])
    assert {"activations/blocks.0", "gradients/blocks.0"} <= set(tags[LANGUAGE])
    assert {"activations/encoder.blocks.0", "activations/decoder.blocks.0"} <= set(tags[TRANSLATION])
    steps = [step for _, step, _ in ask(f"scalars/scalars?run={LANGUAGE}&tag=train/loss")]
    assert steps == [10, 20]


def test_tensorboard_serves_pictures(ask):
    tags = ask("images/tags")
    assert {"attention", "position"} <= set(tags[LANGUAGE])
    assert {"encoder.attention", "decoder.attention", "alignment", "position"} <= set(tags[TRANSLATION])
    pictures = ask(f"images/images?run={TRANSLATION}&tag=alignment&sample=0")
    assert [picture["step"] for picture in pictures] == [10, 20]
    assert ask(f"images/individualImage?{pictures[-1]['query']}").startswith(b"\x89PNG")


def test_tensorboard_serves_texts(ask):
    tags = ask("text/tags")
    assert all({"batch/text_summary", "samples/text_summary"} <= set(tags[run]) for run in (LANGUAGE, TRANSLATION))
    shown = ask(f"text/text?run={TRANSLATION}&tag=samples/text_summary")[-1]["text"]
    assert "reference" in shown and "Nummer" in shown


def test_tensorboard_serves_a_row_of_hyperparameters_for_each_run_with_what_it_reached(ask):
    names = {info["name"] for info in ask("hparams/experiment", {"experimentName": ""})["hparamInfos"]}
    assert {"model.dim", "position", "optimizer.lr", "seed"} <= names and "run_dir" not in names
    column = {"metric": {"group": "", "tag": "final/validation_loss"}, "includeInResult": True}
    asked = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_UNKNOWN"],
        "sliceSize": 10,
        "colParams": [column],
    }
    groups = ask("hparams/session_groups", asked)["sessionGroups"]
    assert len(groups) == 2
    for group in groups:
        metrics = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        assert 0 < metrics["final/validation_loss"] < 10


def test_what_a_killed_run_has_drawn_beyond_its_checkpoint_is_hidden_by_either_loader_of_tensorboard(tmp_path):
    words = [*LM, "log_every_steps=1", "checkpoint.every_steps=5", "schedule=constant"]
    run(tmp_path, "one", *words)
    kept = sorted((tmp_path / "runs" / "one" / "checkpoints").glob("step-*"))
    shutil.rmtree(kept[-1])  # the points behind the checkpoint before are as a kill would have left them
    time.sleep(1 - time.time() % 1)  # TensorBoard sorts files by the second of their birth
    run(tmp_path, "one", *words, "resume=auto")
    folder = str(tmp_path / "runs")
    found = multiplexer.EventMultiplexer()
    found.AddRunsFromDirectory(folder)
    found.Reload()
    server = SubprocessServerDataIngester(
        server_binary=get_server_binary(), logdir=folder, reload_interval=0, channel_creds_type=ChannelCredsType.LOCAL
    )
    server.start()
    for provider in (data_provider.MultiplexerDataProvider(found, folder), server.data_provider):
        asked = {"experiment_id": "", "plugin_name": "scalars", "downsample": 1000}
        read = partial(provider.read_scalars, context.RequestContext(), **asked)
        until = time.monotonic() + 20
        while not (runs := read()) and time.monotonic() < until:
            time.sleep(0.1)
        (curves,) = runs.values()
        assert [point.step for point in curves["train/loss"]] == list(range(1, 21))


def test_curves_as_a_table_of_which_a_resumed_run_writes_another(tmp_path):
    run(tmp_path, "a", *LM, "logger=csv", "max_steps=10")
    run(tmp_path, "a", *LM, "logger=csv", "resume=auto")
    tables = sorted((tmp_path / "runs" / "a" / "csv").glob("*/metrics.csv"))
    rows = [[row for row in csv.DictReader(table.open()) if row["train/loss"]] for table in tables]
    assert [[row["step"] for row in some] for some in rows] == [["10"], ["20"]]


@pytest.mark.parametrize("logger", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_told_in_one_line(logger):
    done = call("train.py", f"logger={logger}")
    assert done.returncode == 2
    assert done.stderr == f"error: logger: needs the package {logger}; pip install {logger}\n"


def test_runs_are_compared_by_curves_and_by_what_differs(runs, tmp_path):
    command = ["scripts/compare.py", f"output={tmp_path}/both"]
    done = call(*command, f"runs={runs}/language,{runs}/translation")
    assert done.returncode == 0, done.stderr
    assert "| `task` | LanguageModeling | Translation |" in done.stdout and "`model.num_layers`" not in done.stdout
    assert "| validation loss | " in done.stdout and "| validation bleu |  | " in done.stdout
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")
    assert "![curves](both.png)" in (tmp_path / "both.md").read_text()
    globbed = call(*command, f"runs={runs}/*", "metric=blue")
    assert globbed.returncode == 2 and globbed.stderr.startswith("error: metric: no run has blue; there are ")
    alone = call(*command, f"runs={runs}/language")
    assert alone.returncode == 2 and "two or more can be compared" in alone.stderr
    (tmp_path / "hurt").mkdir()
    (tmp_path / "hurt" / "config.yaml").write_text("a: [\n")
    hurt = call(*command, f"runs={runs}/language,{tmp_path}/hurt")
    assert hurt.returncode == 2 and hurt.stderr.startswith(f"error: runs: {tmp_path}/hurt/config.yaml is no YAML: ")
    assert len(hurt.stderr.splitlines()) == 1


def test_a_table_holds_the_curves_that_tensorboard_draws_and_runs_are_compared_by_it(runs, tmp_path):
    for name in (LANGUAGE.partition("/")[0], TRANSLATION.partition("/")[0]):
        events = EventAccumulator(str(runs / name / "tensorboard"), size_guidance={"scalars": 0})
        events.Reload()
        with (runs / name / "curves.csv").open() as file:
            rows = [(row["name"], int(row["step"]), float(row["value"])) for row in csv.DictReader(file)]
        for tag in ("train/loss", "val/loss", "train/tokens"):
            drawn = [(tag, event.step, pytest.approx(event.value, rel=1e-6)) for event in events.Scalars(tag)]
            assert drawn and [row for row in rows if row[0] == tag] == drawn
        shutil.copytree(runs / name, tmp_path / name, ignore=shutil.ignore_patterns("tensorboard"), symlinks=True)
    done = call("scripts/compare.py", f"output={tmp_path}/both", f"runs={tmp_path}/*")
    assert done.returncode == 0 and (tmp_path / "both.png").exists(), done.stderr


def test_a_run_in_half_precision_learns_as_much_and_its_samples_are_in_half_precision(tmp_path, monkeypatch):
    """… also where validations have ended: some kernels of a GPU serve nothing else."""
    monkeypatch.setattr(hardware, "product_dtype", lambda device: torch.bfloat16)  # of a CPU with bf16
    seen = []
    samples = LanguageModeling.samples
    monkeypatch.setattr(
        LanguageModeling, "samples", lambda *some: seen.append(torch.is_autocast_enabled("cpu")) or samples(*some)
    )
    expected = run(tmp_path, "whole", *LM)
    assert not any(seen)
    seen.clear()
    found = run(tmp_path, "half", *LM, "hardware.precision=bf16")
    assert seen == [True, True]
    assert found["validation"]["loss"] == pytest.approx(expected["validation"]["loss"], rel=0.01)
