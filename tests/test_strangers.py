"""A folder of somebody else's, just downloaded: nothing in it is imported, and nothing in it leads out of it."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import settings
from tests.programs import latest
from transformer_lab.finished.loaded_run import evaluate_run, load_run
from transformer_lab.run.train import train
from transformer_lab.sweeps.leaderboard import Leaderboard
from transformer_lab.terminal import cell, one_line, plain, without_markup

ROOT = Path(__file__).parent.parent
# Names that the libraries below try to import, of packages that are not there; and Python's own.
TRIED = [
    "transformers",
    "torchvision",
    "torchaudio",
    "wandb",
    "mlflow",
    "tensorflow",
    "jax",
    "polars",
    "comet_ml",
    "neptune",
    "litmodels",
    "lightning_cloud",
    "torch_xla",
    "deepspeed",
    "bitsandbytes",
    "pydot",
    "google_crc32c",
    "matplotlib_inline",
    "IPython",
    "sklearn",
    "scipy",
    "librosa",
    "soundfile",
    "PIL_",
    "faiss",
    "pyspark",
    "struct",
    "socket",
    "signal",
    "selectors",
    "tempfile",
    "pickle",
    "queue",
    "hydra_plugins/canary",
]
ESCAPE, LINK = "\x1b]0;pwned\x07", "[a](http://x) <b>"


@pytest.fixture
def trap(tmp_path):
    """A folder that leaves a mark as soon as one of its modules is imported; and where the mark would be."""
    folder, mark = tmp_path / "downloaded", tmp_path / "mark"
    for name in TRIED:
        module = folder / name / "__init__.py"
        module.parent.mkdir(parents=True)
        module.write_text(f"open({str(mark)!r}, 'a').write({name!r} + ' ')")
    (folder / "matplotlibrc").write_text("text.usetex: True\n")
    return folder, mark


def call(script, *words, **more):
    return subprocess.run([sys.executable, str(ROOT / script), *latest(words)], capture_output=True, text=True, **more)


@pytest.mark.parametrize(
    "script, more",
    [
        ("train.py", ["hardware=ddp", "hardware.accelerator=cpu"]),  # ranks are processes of their own
        ("scripts/evaluate.py", ["split=validation"]),
        pytest.param("scripts/predict.py", ["prompt=a"], marks=pytest.mark.battery),
        pytest.param("scripts/show.py", [], marks=pytest.mark.battery),
        pytest.param("train.py", ["-m", "seed=1,2"], marks=pytest.mark.battery),
    ],
)
def test_nothing_of_the_folder_that_one_is_in_is_imported(sound, tiny, place, trap, script, more):
    folder, mark = trap
    given = [*tiny, "run_dir=run"] if script == "train.py" else [f"run={sound}"]
    given += [f"cache_dir={place}/cache"] if "evaluate" in script else []
    done = call(script, *given, *more, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert not mark.exists(), mark.read_text()


def test_extensions_are_found_where_one_is_once_they_are_typed_and_nothing_beside_them(tiny, trap):
    folder, mark = trap
    (folder / "mine.py").write_text("from transformer_lab.models.layers.norms import RMSNorm as Mine\n")
    (folder / "settings" / "experiment").mkdir(parents=True)
    (folder / "settings" / "experiment" / "mine.yaml").write_text("# @package _global_\nextensions: [mine]\n")
    refused = call("train.py", *tiny, f"hydra.searchpath=[file://{folder}/settings]", "experiment=mine", cwd=folder)
    assert refused.returncode == 2 and "named on the command line, extensions=[mine]" in refused.stderr
    assert call("train.py", *tiny, "extensions=[mine]", "--cfg", "job", cwd=folder).returncode == 0
    assert not mark.exists()


INSIDE = [
    ".lock",
    "config.yaml",
    "log.txt",
    "tokenizer.json",
    "facts.json",
    "metrics.json",
    "tensorboard",
    "checkpoints",
    "checkpoints/last",
    "checkpoints/step-00000009",
    "checkpoints/.step-00000004.partial",
    ".config.yaml.partial",
]


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("name", INSIDE)
def test_a_link_that_leads_out_of_a_run_is_refused_and_nothing_behind_it_is_touched(sound, tiny, tmp_path, name):
    run, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(sound, run, symlinks=True)
    path = run / name
    if path.is_dir() and not path.is_symlink():
        shutil.move(path, outside)
    elif "." in Path(name).name and not name.endswith("partial"):
        outside.write_text("mine")
    else:
        outside.mkdir()
        (outside / "mine").write_text("mine")
    path.unlink(missing_ok=True)
    path.symlink_to(outside)
    before = outside.read_bytes() if outside.is_file() else snapshot(outside)
    for more in (["resume=auto", "max_steps=6"], []):
        with pytest.raises(ValueError, match=r"^run_dir: .* (is a link that leads out|is not empty)") as error:
            train(**settings(*tiny, f"run_dir={run}", *more))
        assert "\n" not in str(error.value)
    assert before == (outside.read_bytes() if outside.is_file() else snapshot(outside))


def test_what_links_lead_to_within_a_run_is_replaced_and_not_written(sound, tiny, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(sound, run, symlinks=True)
    other = tmp_path / "other"
    other.write_text("mine")
    for name in ("config.yaml", "log.txt", "metrics.json"):  # a second name of a file is no link that could be seen
        (run / name).unlink()
        os.link(other, run / name)
    (run / "notes").write_text("mine")
    (run / "tokenizer.json").unlink()
    (run / "tokenizer.json").symlink_to("notes")
    train(**settings(*tiny, f"run_dir={run}", "resume=auto", "max_steps=6"))
    assert other.read_text() == "mine" and (run / "notes").read_text() == "mine"
    assert json.loads((run / "metrics.json").read_text())["steps"] == 6


def test_a_pipe_in_a_run_is_refused_before_anybody_waits_for_it(sound, tiny, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(sound, run, symlinks=True)
    (run / "log.txt").unlink()
    os.mkfifo(run / "log.txt")
    with pytest.raises(ValueError, match=r"log\.txt is neither a file nor a folder"):
        train(**settings(*tiny, f"run_dir={run}", "resume=auto", "max_steps=6"))


def test_a_best_checkpoint_that_leads_elsewhere_is_passed_over(sound, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(sound, run, symlinks=True)
    elsewhere = shutil.copytree(run / "checkpoints" / "step-00000002", tmp_path / "step-00000007")
    (run / "checkpoints" / "best").unlink()
    (run / "checkpoints" / "best").symlink_to(elsewhere)
    assert load_run(str(run), []).task.predict(["a"])
    shutil.rmtree(elsewhere)
    assert load_run(str(run), []).task.predict(["a"])


def test_data_that_only_the_run_names_are_not_read(sound, place, tmp_path):
    loaded = load_run(str(sound), [])
    expected = evaluate_run(loaded, "validation", "cpu").metrics  # prepared already: that is no place of the run's
    loaded.config["cache_dir"] = str(tmp_path / "cache")
    with pytest.raises(ValueError, match=r"data\.path: .* add data\.path=.* to read it"):
        evaluate_run(loaded, "validation", "cpu")
    assert not (tmp_path / "cache").exists()
    assert evaluate_run(loaded, "validation", "cpu", {"path": f"{place}/beginnings"}).metrics == expected
    loaded.config["data"] = {
        "_target_": "transformer_lab.data.sources.hub.Hub",
        "dataset": "some/set",
        "validation": 0.1,
        "test": 0.1,
    }
    loaded.config["cache_dir"] = str(tmp_path / "another")
    with pytest.raises(ValueError, match=r"data\.dataset: .* add data\.dataset=some/set"):
        evaluate_run(loaded, "validation", "cpu")


def test_what_a_terminal_a_dashboard_or_a_spreadsheet_would_obey_is_written_out():
    assert plain(f"a{ESCAPE}\tb\nc\u202ed") == "a\\x1b]0;pwned\\x07\tb\nc\\u202ed"
    assert one_line("a\nb\rc") == "a\\nb\\rc"
    assert without_markup(f"{LINK}|") == "\\[a\\](http://x) &lt;b&gt;\\|"
    assert [cell(value) for value in ("=1+1", "-x", "a", -1.5)] == ["'=1+1", "'-x", "a", -1.5]


def test_names_of_others_reach_the_terminal_as_text(sound, tiny, tmp_path):
    run = tmp_path / f"run{ESCAPE}"
    shutil.copytree(sound, run, symlinks=True)
    for checkpoint in (run / "checkpoints").glob("step-*"):
        (checkpoint / "config.yaml").write_text(f'"{ESCAPE!r}": "\\x1b]0;pwned\\x07"\n')
    for script, *given in (["scripts/show.py", f"run={run}"], ["train.py", f"data=text{ESCAPE}"]):
        done = call(script, *given)
        assert "\x1b" not in done.stdout + done.stderr and "pwned" in done.stdout + done.stderr, (script, done)


def test_a_leaderboard_holds_neither_formulas_nor_links(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "leaderboard.csv").symlink_to(outside)
    line = {
        "rank": 1,
        "trial": "000",
        "values": {"name": "=cmd()"},
        "metrics": {"validation loss": -1.5},
        "steps": 1,
        "state": "failed",
        "reason": f"@x {LINK}",
        "intervals": {},
    }
    Leaderboard(["name"], ["validation loss"], [line], {}).write(tmp_path)
    assert outside.read_text() == "mine"
    (_, row) = csv.reader((tmp_path / "leaderboard.csv").open(newline=""))
    assert row == ["1", "000", "'=cmd()", "-1.5", "1", f"'@x {LINK}"]
    assert (
        "<b>" not in (tmp_path / "leaderboard.md").read_text()
        and "[a]" not in (tmp_path / "leaderboard.md").read_text()
    )
