"""What README and docs show is so: each command line is one, each Python block runs, each link leads somewhere.

The blocks of docs/python.md are run by test_api.py, those of docs/adding.md by test_extension.py and test_tagging.py.
"""

import json
import re
import shlex
import threading
import urllib.request
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

import transformer_lab as tl
from transformer_lab.commands import COMMANDS
from transformer_lab.composition.command_line import preflight
from transformer_lab.composition.script import arguments

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
# Lines of a shell that are neither composed nor checked here, by how they begin.
ELSEWHERE = {
    "pip install": "the first step of .ci/run",
    "pip wheel": "its last",
    "pytest": "the second",
    "make": "its third; the Makefile's other targets are long",
    "python -m tests.mutants": "long",
    "tensorboard": "not a program of ours; tests/test_dashboards.py serves a run with it",
    "torchrun": "needs two machines; tests/run/test_machines.py has two networks",
    "srun": "needs Slurm; tests/run/test_ranks.py sets its variables",
    "cd": "the shell's own",
    "python ~/transformer_lab/train.py": "a user's own folder, made and used by tests/test_extension.py",
    "python scripts/benchmark.py": "an hour; tests/test_benchmark.py runs it small",
}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def commands():
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                yield from ((page.name, one.strip()) for one in line.split("&&") if one.strip() and one[0] != "#")


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_every_line_of_a_shell_is_a_command_that_exists(page, capsys):
    for _, line in (found for found in commands() if found[0] == page):
        if any(line.startswith(f"{known} ") or line == known for known in ELSEWHERE):
            continue
        program, script, *words = shlex.split(line, comments=True)
        name = Path(script).stem
        assert program in ("python", "transformer-lab") and name in COMMANDS, line
        try:
            if name == "train":
                preflight(words)
            else:
                arguments(import_module(f"transformer_lab.commands.{name}").main, words)
        except SystemExit:
            pytest.fail(f"{line}\n{capsys.readouterr().err}")


def test_no_exception_is_for_nothing():
    lines = [line for _, line in commands()]
    assert [known for known in ELSEWHERE if not any(line.startswith(known) for line in lines)] == []


def test_every_link_between_pages_leads_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRANSFORMER_LAB_CACHE", str(tmp_path / "cache"))


def test_readme_in_python(place, monkeypatch):
    """As it stands, but for fewer steps of a smaller model on two packages."""
    small = ["tokenizer=bytes", "model.dim=32", "model.num_layers=1", "tokens_per_step=256", "schedule=constant"]
    small += ["pictures.layers=[]", "data.packages=[json,email]"]
    trained = partial(tl.train, *small)
    monkeypatch.setattr(tl, "train", lambda *words, **values: trained(*words, **values | {"max_steps": 2}))
    (block,) = blocks(ROOT / "README.md", "python")
    names = {}
    exec(block, names)
    assert names["run"].metrics["steps"] == 2


def test_a_model_is_served_and_exported_as_the_page_says(place):
    names = {}
    for block in blocks(ROOT / "docs" / "answers.md", "python"):
        exec(block.replace("8000", "0"), names)  # a port that is free
    server = names["server"]
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    asked = urllib.request.Request(
        f"http://127.0.0.1:{server.server_port}", json.dumps(["invoice 7", "page 7"]).encode()
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        labels = [one["label"] for one in json.load(answer)]
    thread.join()
    server.server_close()
    assert labels == [one["label"] for one in names["run"].predict(["invoice 7", "page 7"])]
    held = sum(parameter.numel() for parameter in names["run"].task.parameters())
    assert sum(weight.numel() for weight in names["weights"].values()) == held and "".join(names["pieces"])
