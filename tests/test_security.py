"""Nothing that is read is run, be it a checkpoint or a config of a stranger."""

import hashlib
import io
import json
import os
import pickle
import pickletools
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.composition.test_checks import TARGETS
from tests.conftest import settings
from tests.programs import call
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.finished.contents import contents
from transformer_lab.finished.loaded_run import evaluate_run, load_run
from transformer_lab.run.train import train

ROOT = Path(__file__).parent.parent
# What Hydra and PyTorch take as leave to run what they read.
LEAVE = {
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
    "HYDRA_INSTANTIATE_ALLOW_ALL": "1",
    "HYDRA_INSTANTIATE_ALLOWLIST": "os.system,builtins.exec,subprocess.Popen",
}


class Payload:
    """Runs a program when it is unpickled."""

    def __init__(self, canary, how):
        self.canary, self.how = canary, how

    def __reduce__(self):

        text = f"open({str(self.canary)!r}, 'w').close()"
        return {
            "exec": (exec, (text,)),
            "eval": (eval, (text,)),
            "system": (os.system, (f"touch {self.canary}",)),
            "popen": (subprocess.Popen, (["touch", str(self.canary)],)),
        }[self.how]


def legacy(payload):
    file = io.BytesIO()
    torch.save({"a": payload}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def saved(payload):
    file = io.BytesIO()
    torch.save({"a": payload}, file)
    return file.getvalue()


def zipped(payload):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../canary", b"x")
        archive.writestr("archive/data.pkl", pickle.dumps(payload))
    return file.getvalue()


def arrays(payload):
    file = io.BytesIO()
    np.save(file, np.array([payload], dtype=object), allow_pickle=True)
    return file.getvalue()


WAYS = {
    **{f"pickle {n}": lambda payload, n=n: pickle.dumps(payload, n) for n in range(6)},
    "optimized pickle": lambda payload: pickletools.optimize(pickle.dumps(payload)),
    "torch.save": saved,
    "torch.save before 1.6": legacy,
    "zip": zipped,
    "numpy": arrays,
    "safetensors, a pickle behind": lambda payload: len(b"{}").to_bytes(8, "little") + b"{}" + pickle.dumps(payload),
}
FILES = [
    "model.safetensors",
    "training.safetensors",
    "training.json",
    "config.yaml",
    "tokenizer.json",
    "facts.json",
    "manifest.json",
]


def sign(checkpoint):
    """Make the manifest fit, as a forger would."""
    files = [path for path in sorted(checkpoint.iterdir()) if path.name != "manifest.json"]
    listed = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in files
    }
    (checkpoint / "manifest.json").write_text(json.dumps({"format": 1, "files": listed}))


def forged(sound, folder, name, content):
    """A copy of a run with one file of every checkpoint replaced."""
    shutil.copytree(sound, folder, symlinks=True)
    for checkpoint in (folder / "checkpoints").glob("step-*"):
        (checkpoint / name).write_bytes(content)
        if name != "manifest.json":
            sign(checkpoint)
    return folder


def read_everywhere(run, tiny, folder):
    """Hand a run to everything that reads one; it may be refused, and by a line that a user understands."""
    entries = [
        lambda: load_run(str(run), []).task.predict(["a"]),
        lambda: evaluate_run(load_run(str(run), []), "validation", "cpu"),
        lambda: contents(str(run), "best"),
        lambda: train(**settings(*tiny, f"run_dir={run}", "resume=auto", "max_steps=6")),
        lambda: train(**settings(*tiny, f"run_dir={folder}", f"init_from={run}")),
    ]
    for entry in entries:
        try:
            entry()
        except ValueError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.battery)])
def test_no_file_of_a_checkpoint_is_ever_run(sound, tiny, tmp_path, monkeypatch, every):
    for name, value in LEAVE.items():
        monkeypatch.setenv(name, value)
    canary = tmp_path / "canary"
    hows = ["exec", "eval", "system", "popen"]
    cases = [(file, way, hows[number % 4]) for number, (file, way) in enumerate((f, w) for f in FILES for w in WAYS)]
    for number, (file, way, how) in enumerate(cases[::every]):
        run = forged(sound, tmp_path / f"run{number}", file, WAYS[way](Payload(canary, how)))
        read_everywhere(run, tiny, tmp_path / f"new{number}")
        assert not canary.exists(), (file, way)
        shutil.rmtree(run)
    assert len(cases) == 84
    pickle.loads(pickle.dumps(Payload(canary, "exec")))  # the payload is one
    assert canary.exists()


def evil_states(canary):
    """What `training.json` could try: names of code, paths, depth."""
    run = {"_target_": "os.system", "_args_": [f"touch {canary}"], "command": f"touch {canary}"}
    yield {"progress": run}
    yield {"callbacks": {"EarlyStopping": run, "_instantiator": run}}
    yield {"optimizer": {"state": {"<pairs>": [[0, run]]}, "param_groups": [run]}}
    yield {"identity": {"config": run, "_instantiator": "os.system"}}
    yield {"optimizer": {"<tensor>": "../../../etc/passwd"}}
    yield {"optimizer": {"<pairs>": [[["a"], 1]]}}
    yield {"progress": {"__class__": "os", "step": "1; touch x"}}


def test_numbers_beside_a_model_are_no_code(sound, tiny, tmp_path):
    canary = tmp_path / "canary"
    state = json.loads((sound / "checkpoints" / "last" / "training.json").read_text())
    contents_of = [json.dumps({**state, **evil}) for evil in evil_states(canary)]
    contents_of += ["[" * 100_000, "null", "[]", '"a"', json.dumps({}), "NaN"]
    for number, content in enumerate(contents_of):
        run = forged(sound, tmp_path / f"run{number}", "training.json", content.encode())
        read_everywhere(run, tiny, tmp_path / f"new{number}")
        assert not canary.exists(), content[:100]


def test_a_config_inside_a_strangers_run_is_only_read(sound, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((sound / "checkpoints" / "last" / "config.yaml").read_text())
    evil = [{**config, "model": {"_target_": target, "command": "touch pwned"}} for target in TARGETS]
    path = [{"_target_": target, "args": "touch pwned"} for target in TARGETS]
    evil += [{**config, "data": {**config["data"], "path": program}} for program in path]
    program = {"_target_": "subprocess.Popen", "args": "touch pwned"}
    evil.append({**config, "extensions": ["subprocess", "os"], "task": program})
    texts = [yaml.safe_dump(one) for one in evil]
    texts += ["!!python/object/apply:os.system ['touch pwned']", "a: !!python/name:os.system", "- a", "&a [*a]", "{"]
    assert len(texts) > 60
    for number, text in enumerate(texts):
        run = forged(sound, tmp_path / f"run{number}", "config.yaml", text.encode())
        for entry in (lambda: load_run(str(run), []), lambda: contents(str(run), "best")):  # noqa: B023 - called at once
            try:
                entry()
            except ValueError as error:
                assert "\n" not in str(error)
        shutil.rmtree(run)
    assert list(tmp_path.iterdir()) == []


def test_sizes_that_are_not_those_of_the_weights_are_refused_before_a_model_is_built(sound, tmp_path):
    config = yaml.safe_load((sound / "checkpoints" / "last" / "config.yaml").read_text())
    for number, more in enumerate(({"num_layers": 10_000_000}, {"num_layers": 9}, {"dim": 32_000_000})):
        text = yaml.safe_dump({**config, "model": {**config["model"], **more}})
        run = forged(sound, tmp_path / f"run{number}", "config.yaml", text.encode())
        with pytest.raises(ValueError, match=r"is not what a run has saved: ValueError: ") as error:
            load_run(str(run), [])
        assert "\n" not in str(error.value)


def test_a_tokenizer_whose_pattern_cannot_be_run_is_refused_in_one_line(sound, monkeypatch):
    class PanicException(BaseException):  # what the library raises then, which is no Exception
        pass

    class Stopped:
        def __getattr__(self, name):
            raise PanicException("in the\nmiddle")

    monkeypatch.setattr(Tokenizer, "_inner", Stopped(), raising=False)
    with pytest.raises(ValueError, match=r"^the tokenizer cannot be run: in the middle$"):
        object.__new__(Tokenizer).encode("a")


def test_names_from_elsewhere_lead_nowhere_else(sound, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("../../outside", "/tmp/outside", "a/../../b"):
        train(**settings(*tiny, f"name={name}", "max_steps=1"))
    with pytest.raises(ValueError, match="no name for a folder"):
        train(**settings(*tiny, "name=.."))
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    config = yaml.safe_load((sound / "checkpoints" / "last" / "config.yaml").read_text())
    text = yaml.safe_dump({**config, "cache_dir": str(tmp_path / "outside"), "run_dir": str(tmp_path / "outside")})
    run = forged(sound, tmp_path / "run", "config.yaml", text.encode())
    command = ["scripts/evaluate.py", f"run={run}", "split=validation"]
    refused = call(*command, cwd=tmp_path)  # the run alone names its data
    path = config["data"]["path"]
    assert refused.returncode == 2 and f"add data.path={path} to read it" in refused.stderr, refused.stderr
    assert call(*command, f"data.path={path}", cwd=tmp_path).returncode == 0
    listed = json.loads((run / "checkpoints" / "last" / "manifest.json").read_text())
    listed["files"]["../../../config.yaml"] = {"bytes": 1, "sha256": ""}
    (run / "checkpoints" / "last" / "manifest.json").write_text(json.dumps(listed))
    assert "whole" not in [state for _, state, _, marks in contents(str(run), "last").checkpoints if "last" in marks]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs", "run"]


FORBIDDEN = re.compile(
    r"\b(pickle|cPickle|dill|cloudpickle|shelve|marshal)\b|torch\.load\b|\beval\(|\bexec\("
    r"|yaml\.(load|unsafe_load|full_load)\b|shell=True|extractall|os\.system|os\.popen|allow_pickle"
)


def test_nothing_in_the_source_could_run_what_it_reads():
    for file in [*(ROOT / "transformer_lab").rglob("*.py"), *(ROOT / "scripts").glob("*.py"), ROOT / "train.py"]:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            found = FORBIDDEN.search(line.replace(".eval()", "").partition("# ")[0])
            assert not found, f"{file}:{number}: {line}"
