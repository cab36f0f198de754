"""`transformer-lab` is what train.py and the scripts are in a clone, and says so in what it prints."""

import subprocess
import sys
from pathlib import Path

import pytest

import transformer_lab as tl
from tests.conftest import TINY
from tests.programs import call
from transformer_lab.commands import COMMANDS, main
from transformer_lab.composition.command_line import preflight


@pytest.fixture
def typed(monkeypatch, capsys, tmp_path):
    """What a command prints, and how it ends."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def typed(*words):
        monkeypatch.setattr(sys, "argv", ["/usr/bin/transformer-lab", *words])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return typed


def test_it_says_what_there_is(typed):
    code, out, _ = typed()
    assert code == 0 and all(f"    {name} " in out for name in COMMANDS) and typed("--help")[1] == out
    assert typed("--version") == (0, f"{tl.__version__}\n", "")
    assert typed("predcit", "run=x") == (2, "", "error: predcit: no such command; did you mean predict?\n")
    for name in COMMANDS:
        code, out, _ = typed(name, "--help")
        assert code == 0 and out.startswith(f"Usage: transformer-lab {name} ") and "python" not in out.splitlines()[0]


def test_a_mistake_is_told_as_by_the_scripts(typed):
    assert typed("train", "modle=3") == (2, "", "error: modle: no such key; did you mean model?\n")
    assert typed("evaluate", "rnu=x")[2] == "error: rnu: no such argument; did you mean run?\n"


def test_what_is_typed_is_what_is_printed(typed, tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"line {i} of some text" for i in range(300)))
    words = [*TINY, "data.path=text.txt", "max_steps=2", "validate_every_steps=2", "run_dir=run"]
    code, out, err = typed("train", *words)
    assert code == 0, err
    assert "  transformer-lab predict run=run 'prompt=" in out and "  transformer-lab evaluate run=run\n" in out
    assert typed("predict", "run=run", "prompt=line", "max_new_tokens=2")[1].startswith("line")
    assert '"test"' in typed("evaluate", "run=run")[1]


def test_what_is_piped_has_no_escape_sequences_though_colours_are_forced(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"line {i} of some text" for i in range(300)))
    words = [*TINY, "data.path=text.txt", "max_steps=4", "validate_every_steps=2", "run_dir=run"]
    done = call("train.py", *words, cwd=tmp_path, env={"FORCE_COLOR": "1"})
    assert done.returncode == 0 and "Going" not in done.stdout and "parameters" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_the_environment_chooses_the_cache(monkeypatch, tmp_path):
    assert preflight([]).run["cache_dir"] == "outputs/cache"
    monkeypatch.setenv("TRANSFORMER_LAB_CACHE", str(tmp_path))
    assert preflight([]).run["cache_dir"] == str(tmp_path)
    assert preflight(["cache_dir=here"]).run["cache_dir"] == "here"


def test_windows_is_told_in_one_line_that_runs_need_another_system():
    """As a Python there would say what it runs on."""
    there = "import importlib.metadata, runpy, sys; sys.platform = 'win32'; "
    program = str(Path(__file__).parent.parent / "train.py")
    for started in (f"runpy.run_path({program!r}, run_name='__main__')", "import transformer_lab.commands"):
        done = subprocess.run([sys.executable, "-c", there + started], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Windows" in done.stderr
    done = subprocess.run(
        [sys.executable, "-c", there + "import transformer_lab as tl; tl.train()"], capture_output=True
    )
    assert b"ImportError: runs need locks" in done.stderr


@pytest.mark.parametrize(
    "line, offered, other",
    [
        ("transformer-lab ", "predict", "train.py"),
        ("transformer-lab pre", "predict", "train"),
        ("transformer-lab train model=", "model=encoder", "train"),
        ("transformer-lab train task=classification task.mul", "task.multi_label=", "task.context="),
        ("transformer-lab evaluate ", "split=", "model="),
    ],
)
def test_a_shell_is_offered_commands_and_what_each_takes(typed, monkeypatch, line, offered, other):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    code, out, _ = typed("-sc", "query=bash")
    assert not code and offered in out.split() and other not in out.split()


def test_what_a_shell_is_to_run_is_for_this_command(typed):
    assert "-F hydra_bash_completion transformer-lab" in typed("-sc", "install=bash")[1]
