"""A config problem is told in one line that names it, all of them at once, and nothing of a stranger's is built."""

import ast
import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra import main as hydra_main
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging
from omegaconf import OmegaConf

from tests.conftest import settings
from transformer_lab.composition import command_line
from transformer_lab.composition.checks import handed, problems
from transformer_lab.composition.command_line import Command, preflight
from transformer_lab.composition.configs import CONFIGS
from transformer_lab.composition.help_page import option_page
from transformer_lab.composition.kinds import expected
from transformer_lab.composition.script import arguments
from transformer_lab.composition.signatures import Parameter, signature
from transformer_lab.composition.targets import REFUSED, refuse_callbacks

OPTIONS = [(file.parent.name, file.stem) for file in sorted(CONFIGS.glob("*/*.yaml"))]
SECTIONS = [(group, option) for group, option in OPTIONS if group not in ("debug", "experiment", "sweep")]


@pytest.fixture(autouse=True)
def no_tracebacks(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")


@pytest.fixture
def config():
    """The config of `python train.py` without further words."""
    return settings()


@pytest.fixture
def told(capsys):
    """The problems that the command line answers with; none if it lets the words pass."""

    def told(*words):
        try:
            preflight(list(words))
        except SystemExit as stop:
            assert stop.code == 2
        out, err = capsys.readouterr()
        assert out == "" and "Traceback" not in err
        return [line.removeprefix("error: ") for line in err.splitlines()]

    return told


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A user's own folder: a package that no one may import for a check, and configs that name it."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/__init__.py").write_text("raise RuntimeError('a check must not run this')\n")
    (tmp_path / "own/parts.py").write_text(OWN)
    (tmp_path / "position").mkdir()
    (tmp_path / "position/own.yaml").write_text("# A scheme of one's own\n_target_: own.parts.Scheme\nbase: 3\n")
    (tmp_path / "experiment").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


OWN = """
from dataclasses import dataclass, field
from typing import Annotated, Literal, Optional
from transformer_lab.keys import Above, Between
from own.other import Far
from torch import nn

Kind = Literal["a", "b"]
Positive = Annotated[int, Above(0)]
LEAST = 3

class Scheme(nn.Module):
    def __init__(self, *, dim: int, num_heads: int, base: int, kind: Kind = "a", scale: float | None = None): ...

class Child(Scheme):
    pass

class Marked(nn.Module):
    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        causal: bool,
        a: Annotated[int, Above(0), "a note"] = 1,
        b: Annotated[float, Between(low=0, high=1)] | None = None,
        c: Positive = 1,
        d: "Annotated[int, Above(bound=2)]" = 3,
        e: Annotated[int, Above(LEAST)] = 4,
    ): ...

class Wider(Scheme):
    def __init__(self, *, width: int, **kwargs):
        super().__init__(dim=width, **kwargs)

class Bare(nn.Module):
    pass

@dataclass(frozen=True)
class Record(Child):
    path: str
    columns: list[str] = field(default_factory=list)

def function(*, a: int): ...
"""


# --- what is accepted ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "option"), SECTIONS)
def test_every_shipped_option_fits_its_constructor(group, option):
    config = settings(f"{group}={option}")
    assert [problem for problem in problems(config) if not problem.missing] == []


def test_an_argument_that_no_yaml_mentions_is_set_like_any_other(config):
    assert "dropout" not in config["model"]
    rewritten = preflight(["model.dropout=0.1", "-m", "position=alibi,none", "seed=1,2"]).words
    assert rewritten == ["-m", "++model.dropout=0.1", "position=alibi,none", "++seed=1,2"]


def test_words_for_hydra_pass_untouched():
    assert preflight(["-sc", "query=bash"]) == Command(["-sc", "query=bash"])
    assert preflight(["hydra.verbose=true", "~model.qk_norm"]) == Command(["hydra.verbose=true", "~model.qk_norm"])


@pytest.mark.parametrize("words", [[], ["experiment=bert", "feed_forward=swiglu", "model.dim=64"], ["~model.qk_norm"]])
def test_a_single_run_has_the_config_that_hydra_would_make(words):
    rewritten, config, _ = preflight(words)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        assert config == OmegaConf.to_container(compose("train", rewritten), resolve=True)


# --- what is refused -------------------------------------------------------------------------------------


def test_all_problems_are_told_together(told):
    lines = {
        "nope": "nope: expected key=value",
        "position=rotray": "position=rotray: no such option of position; did you mean rotary?",
        "modle=decoder": "modle: no such key; did you mean model?",
        "max_stpes=3": "max_stpes: no such key; did you mean max_steps?",
        "model.dmi=3": "model.dmi: no such option of Decoder; did you mean model.dim?",
        "+taks.context=3": "taks.context: no such key; did you mean task.context?",
        "dropout=0.1": "dropout: no such key; did you mean model.dropout?",
        "norm.dim=64": "norm.dim: is filled in by the build; leave it out",
        "seed=abc": "seed: expected int, found 'abc'",
        "max_epochs=0": "max_epochs: expected more than 0, found 0",
        "gradient_clip=nan": "gradient_clip: expected a finite number or null, found nan",
        "name=${task.nmae}": "name: Interpolation key 'task.nmae' not found",
        "checkpoint.every_steps=0": "checkpoint.every_steps: expected more than 0, found 0",
        "optimizer.lr=0.1,0.2": "optimizer.lr: several values; add -m to run one after the other, or write a list in "
        "[brackets]",
        "tokens_per_step=1,2": "tokens_per_step: several values; add -m to run one after the other, or write a list in "
        "[brackets]",
        "hydra.run.dir=/tmp": "hydra.run.dir: expected '.', found '/tmp'; Hydra itself writes nothing",
    }
    assert sorted(told(*lines)) == sorted(lines.values())


def test_a_run_needs_an_end(told):
    assert told("max_steps=null") == [
        "max_steps: the run would never end; set one of max_steps, max_epochs, max_tokens, max_minutes"
    ]
    assert told("max_steps=null", "max_minutes=0.5") == []


def test_flags_are_known(told):
    assert told("-m", "seed=1,2", "--cfg", "job") == ["--cfg: of one run; without -m"]
    assert told("--mulitrun") == ["--mulitrun: no such flag; did you mean --multirun?"]
    assert told("--experimental-rerun=x.pkl")[0].startswith("--experimental-rerun: refused")


def test_a_required_key_is_explained_by_its_comment(told):
    assert told("data=text") == ["data.path: required, not set (a file, a folder or a glob)"]


def test_what_hydra_cannot_read_is_told_with_the_way_to_write_it(told):
    assert told("pictures.layers=[0") == ["pictures.layers=[0: [ and ] do not match"]
    assert told("name='a b") == ["name='a b: the text does not end with its '"]
    for name in ("résumé (1).txt", "a=b", "it's", 'the "new" one', "C:\\new=1"):
        (line,) = told(f"name={name}")
        (word,) = shlex.split(line.split("quotes only: ")[1])
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            assert compose("train", [word]).name == name


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("int", [1, -1], [1.0, True, "1", None, [1]]),
        ("float", [1, 1e-3], [float("nan"), float("inf"), True, "1e-3", None]),
        ("bool", [True], [1, "true", None]),
        ("str", [""], [1, None, ["a"]]),
        ("int | None", [1, None], ["", 1.5]),
        ("Optional[float]", [1, None], ["x"]),
        ("Literal['a', 'b']", ["a"], ["c", None]),
        ("Literal[1]", [1], [True]),
        ("list[str]", [[], ["a"]], ["a", [1], {}]),
        ("tuple[int, float]", [[1, 0.5]], [[1], [0.5, 1]]),
        ("dict[str, int]", [{}, {"a": 1}], [{"a": "b"}, []]),
        ("Callable[[int], int]", [1, None, {}], []),
    ],
)
def test_types(kind, right, wrong):
    parameter = Parameter(ast.parse(kind, mode="eval").body, required=True)
    assert [value for value in right if expected(parameter, value)] == []
    assert [value for value in wrong if not expected(parameter, value)] == []


def test_in_a_sweep_every_combination_is_checked_before_the_first(told, monkeypatch):
    assert told("-m", "position=none,learned", "position.max_length=64") == [
        "position.max_length: no such option of Position; there are none"
    ]
    monkeypatch.setattr(command_line, "COMBINATIONS", 4)  # more than that: every value once
    assert told("-m", "model.dim=32,64,abc,128", "seed=range(0,2000)") == ["model.dim: expected int, found 'abc'"]


def test_debug_shows_the_traceback(monkeypatch):
    with pytest.raises(Exception, match=r"hydra\.nonsense"):
        preflight(["hydra.nonsense=1", "debug=true"])
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


# --- files of the user's own -------------------------------------------------------------------------------


def test_signatures_are_read_without_running_anything(package):
    scheme = signature("own.parts.Scheme").parameters
    assert [name for name, x in scheme.items() if x.required] == ["dim", "num_heads", "base"]
    assert signature("own.parts.Child").parameters == scheme
    assert set(signature("own.parts.Wider").parameters) == {"width", "num_heads", "base", "kind", "scale"}
    assert signature("own.parts.Bare").parameters == {}
    record = signature("own.parts.Record").parameters
    assert record["path"].required and not record["columns"].required and "dim" in record
    assert expected(scheme["kind"], "c") == "'a' or 'b'"
    assert signature("own.parts.Kind") is signature("own.parts.Far") is signature("own.parts.Missing") is None


def test_what_stands_at_a_parameter_holds_wherever_it_is_written(package, config):
    def told(**values):
        section = {"_target_": "own.parts.Marked", **values}
        return [str(x) for x in problems(config | {"extensions": ["own"], "position": section}, typed=["own"])]

    assert told(a=1, b=0.5, c=2, d=3, e=0) == [] and told(b=None) == []
    assert told(a=0, b=1.5, c=0, d=2) == [
        "position.a: expected more than 0, found 0",
        "position.b: expected 0 to 1, found 1.5",
        "position.c: expected more than 0, found 0",
        "position.d: expected more than 2, found 2",
    ]


def test_a_folder_of_ones_own_adds_options(package, told, capsys):
    own = [f"hydra.searchpath=[{package}]", "position=own"]
    assert told(*own, "extensions=[own]") == []
    assert told(*own, "extensions=[own]", "position.bsae=3")[0].endswith("did you mean position.base?")
    assert told(*own)[0].startswith("position._target_: refused: 'own.parts.Scheme'")
    assert told(f"hydra.searchpath=[{package}/nowhere]") == [f"{package}/nowhere: no such folder of configs"]
    with pytest.raises(SystemExit):
        preflight(["--help", f"--config-dir={package}"])
    assert "A scheme of one's own" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model:\n  dmi: 3", "model.dmi: no such option of Decoder; did you mean model.dim?"),
        ("model:\n  dim: 3\n x: [", "{file}:4: expected <block end>, but found '<block mapping start>'"),
        ("model:\n  dim: 3\n  dim: 4", "{file}:4: found duplicate key dim"),
        ("name: caf\xe9", "{file}: UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe9 in position "),
        ("model: &a\n  dim: [*a]", "a value of the config contains itself"),
        ("model:\n  dim: ${model}", "model.dim: Interpolation to parent node detected"),
        (
            "defaults: [override /modle: decoder]",
            "In 'experiment/x': Could not override 'modle'. No match in the defaults list; did you mean model?",
        ),
    ],
)
def test_a_problem_in_a_file_names_the_file_or_the_key(package, told, text, line):
    file = package / "experiment/x.yaml"
    file.write_bytes(f"# @package _global_\n{text}\n".encode("latin-1"))
    lines = told(f"--config-dir={package}", "experiment=x")
    assert len(lines) == 1 and lines[0].startswith(line.format(file=file))


def test_a_file_cannot_use_hydra_to_act_before_the_check(package, told):
    evil = {
        "extensions": ["pip", "subprocess"],
        "hydra": {
            "callbacks": {"x": {"_target_": "os.system", "command": "touch pwned"}},
            "launcher": {"_target_": "subprocess.Popen"},
            "job_logging": {"handlers": {"x": {"()": "os.system"}, "y": {"class": "logging.FileHandler"}}},
            "hydra_logging": {"handlers": {"z": {"stream": "ext://os.system"}}},
            "sweep": {"dir": "/tmp/x"},
            "job": {"env_set": {"LD_PRELOAD": "x"}},
        },
    }
    (package / "experiment/x.yaml").write_text(f"# @package _global_\n{json.dumps(evil)}\n")
    assert [line.split(":")[0] for line in told(f"--config-dir={package}", "experiment=x")] == [
        "hydra.sweep.dir",
        "hydra.job.env_set",
        "hydra.launcher._target_",
        "hydra.callbacks.x._target_",
        "hydra.job_logging.handlers.x.()",
        "hydra.job_logging.handlers.y.class",
        "hydra.hydra_logging.handlers.z.stream",
        "extensions[0]",
        "extensions[1]",
    ]


# --- what a stranger's config could name -------------------------------------------------------------------

TARGETS = [
    "os.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.Popen",
    "subprocess.run",
    "shutil.rmtree",
    "os",
    "",
    "importlib.import_module",
    "pickle.loads",
    "torch.load",
    "torch.hub.load",
    "torch.optim.os.system",
    "runpy.run_path",
    "hydra.utils.call",
    "hydra.utils.instantiate",
    "hydra.utils.get_method",
    "omegaconf.OmegaConf.save",
    "transformer_lab.run.train.os.system",
    "transformer_lab.run.train.importlib.import_module",
    "transformer_lab.run.train.yaml",
    "transformer_lab.run.train.train",
    "transformer_lab.composition.problems.fail",
    "transformer_lab.composition.targets.Path",
    "transformer_lab..os.system",
    "transformer_lab",
    "transformer_lab.__class__",
    "transformer_lab.composition.checks.__builtins__.eval",
    "lightning.pytorch.callbacks.os.system",
    "lightning.pytorch.callbacksx.Evil",
    "lightning.pytorch.Trainer",
    None,
    ["os", "system"],
    {"_target_": "os.getcwd"},
]


def hostile():
    for target in TARGETS:
        section = {"_target_": target, "command": "touch pwned"}
        yield {"model": section}
        yield {"callbacks": {"a": section}}
        yield {"optimizer": {"_target_": "transformer_lab.training.optimizers.AdamW", "lr": section}}
        yield {"model": {"_target_": "transformer_lab.models.decoder.Decoder", "position": [{"x": section}]}}
    for key, value in {"_args_": ["touch pwned"], "_convert_": "all", "_recursive_": False, "_partial_": True}.items():
        yield {"callbacks": {"a": {"_target_": "transformer_lab.models.decoder.Decoder", key: value}}}
        yield {"extra": {key: value}}


def test_nothing_but_known_parts_is_built(config):
    sections = list(hostile())
    assert len(sections) > 100 and problems(config) == []
    assert [section for section in sections if not problems(config | section)] == []
    for target in TARGETS:  # the name itself is refused, not only what comes with it
        found = problems(config | {"callbacks": {"a": {"_target_": target}}})
        assert "callbacks.a._target_" in [problem.path for problem in found], target


def test_a_strangers_config_names_the_package_only(config, package):
    config["callbacks"] = {"a": {"_target_": "lightning.pytorch.callbacks.Timer"}}
    config["extensions"] = ["own"]
    config["position"] = {"_target_": "own.parts.Scheme", "base": 3}
    found = problems(config, allowed=("transformer_lab",))
    assert sorted(problem.path for problem in found) == ["callbacks.a._target_", "position._target_"]
    assert len(problems(config, allowed=("transformer_lab", "own"))) == 1


# --- the program and the scripts -----------------------------------------------------------------------------


def test_a_typo_is_answered_without_torch_and_writes_nothing(tmp_path):
    program = Path(CONFIGS.parent / "train.py")
    command = [sys.executable, "-X", "importtime", program, "modle.dim=3"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    lines = [line for line in run.stderr.splitlines() if not line.startswith("import time:")]
    assert (run.returncode, lines) == (2, ["error: modle.dim: no such key; did you mean model.dim?"])
    assert not {"torch", "lightning"} & {line.split("|")[-1].strip() for line in run.stderr.splitlines()}
    assert list(tmp_path.iterdir()) == []


def test_help_shows_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        preflight(["--help"])
    words = capsys.readouterr().out.split()
    assert stop.value.code == 0
    assert {option for _, option in OPTIONS} <= set(words)
    assert "resume=null" in words


@pytest.mark.parametrize(("group", "option"), SECTIONS)
def test_help_of_an_option_shows_all_that_it_takes(group, option):
    section, text = settings(f"{group}={option}")[group], (CONFIGS / group / f"{option}.yaml").read_text()
    if section is None:
        return
    page = option_page(f"{group}={option}", text, section, inner := handed(group, {group: section}))
    assert page.startswith(f"{group}={option}: ")
    taken = set(signature(section["_target_"]).parameters) - inner
    assert set(re.findall(rf"^  {group}\.(\w+) \(", page, re.M)) == taken
    written = yaml.safe_load(text)
    for key in {x for some in (written, *written.values()) if isinstance(some, dict) for x in some} & taken:
        assert re.search(rf"^  {group}\.{key} \(.*\) = \S.*\n      \S", page, re.M), key  # its value, and its comment


def test_help_says_of_an_argument_that_no_yaml_has_what_its_docstring_says(capsys, told):
    with pytest.raises(SystemExit):
        preflight(["--help", "task=classification"])
    page = capsys.readouterr().out
    assert page.startswith("task=classification: ")
    assert "  task.multi_label (bool) = false\n      With `multi_label`, a text may belong to any number" in page
    assert told("--help", "task=clasification") == [
        "task=clasification: no such option of task; did you mean classification?"
    ]
    assert told("--help", "taks") == ["taks: no such group; did you mean task?"]


@pytest.mark.parametrize(
    "line, offered",
    [
        ("python train.py task=classification task.", {"task.multi_label=", "task.class_weights=", "task.context="}),
        ("python train.py task=classification task.mul", {"task.multi_label="}),
        ("python train.py model.drop", {"model.dropout="}),
        ("python train.py task=clas task.mul", set()),  # whose options are not known yet
        ("python train.py task.context=3", set()),
    ],
)
def test_a_shell_is_offered_arguments_that_no_yaml_has(line, offered, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setattr(sys, "argv", ["train.py", "-sc", "query=bash"])
    hydra_main(version_base="1.3", config_path=str(CONFIGS), config_name="train")(print)()  # what Hydra offers alone
    alone = set(capsys.readouterr().out.split())
    assert preflight(["-sc", "query=bash"]).words == ["-sc", "query=bash"]
    more = set(capsys.readouterr().out.split())
    assert offered <= more | alone and not more & alone
    if offered:
        assert all(word.startswith(line.split(" ")[-1]) for word in more)


def test_an_unknown_option_of_a_section_is_answered_with_those_of_the_section(told):
    (line,) = told("task.x=1", "task=classification")
    assert line.startswith("task.x: no such option of Classification; there are class_weights, context, ")


def mistyped(word, draw):
    """As fingers do it: two letters swapped, one left out, twice or another; an underscore forgotten; a letter more."""
    at = draw.randrange(len(word) - 1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return draw.choice(
        [
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + draw.choice(letters) + word[at + 1 :],
            word.replace("_", draw.choice(["", "-"]), 1),
            word + draw.choice(letters),
        ]
    )


def test_of_500_mistyped_arguments_that_no_yaml_has_the_right_one_is_named():
    tasks = {"seq2seq": "translation", "encoder": "mlm_nsp"}
    found = []
    for group, option in SECTIONS:
        words = [f"{group}={option}", *([f"task={tasks[option]}"] if group == "model" and option in tasks else [])]
        section = settings(*words)[group]
        if section is None:
            continue
        taken = set(signature(section["_target_"]).parameters) - handed(group, {group: section})
        text = (CONFIGS / group / f"{option}.yaml").read_text()
        known = {name for name in taken if re.search(rf"^ *{name}:", text, re.M)}
        found += [(words, group, name, taken) for name in sorted(taken - known)]
    draw, right, total = random.Random(1), 0, 0
    while total < 500:
        words, group, name, taken = draw.choice(found)
        wrong = mistyped(name, draw)
        if wrong in taken:
            continue
        config = settings(*words)
        config[group][wrong] = 1
        right += any(
            f"{group}.{wrong}: " in (line := str(x)) and f"mean {group}.{name}?" in line for x in problems(config)
        )
        total += 1
    assert right >= 0.95 * total


def test_a_script_reads_its_arguments_like_the_command_line(capsys):
    def main(*, run: str, prompt: str = "", steps: int = 3, data: dict | None = None):
        """Does a thing.

        run: where it lies
        """

    given = arguments(main, ["run=outputs/x", "prompt=Once: a", "steps=4", "data.path=a", "data.column=b"])
    assert given == {"run": "outputs/x", "prompt": "Once: a", "steps": 4, "data": {"path": "a", "column": "b"}}
    assert arguments(main, ["run=7"]) == {"run": "7"}
    assert arguments(main, ["run=7", "data.delimiter=:", "data.a.b=["])["data"] == {"delimiter": ":", "a": {"b": "["}}
    for words, status in ((["stesp=3", "steps=x"], 2), (["--help"], 0)):
        with pytest.raises(SystemExit) as stop:
            arguments(main, words)
        assert stop.value.code == status
    out, err = capsys.readouterr()
    assert "Does a thing." in out and "run=…" in out and "where it lies" in out
    assert err.splitlines() == [
        "error: stesp: no such argument; did you mean steps?",
        "error: steps: expected int, found 'x'",
        "error: run: required, not set",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "EMAWeightAveraging",
        "StochasticWeightAveraging",
        "LearningRateFinder",
        "OnExceptionCheckpoint",
        "BatchSizeFinder",
        "ModelPruning",
    ],
)
def test_a_callback_that_would_change_or_save_a_run_behind_its_back_is_refused_with_what_to_use(name):
    (problem,) = problems(settings(f"callbacks.c._target_=lightning.pytorch.callbacks.{name}"))
    assert str(problem).startswith(f"callbacks.c._target_: refused: {name}: ") and REFUSED[name] in str(problem)


def test_a_refused_callback_is_known_under_any_name():
    callback = type("Mine", (EMAWeightAveraging,), {})()
    with pytest.raises(ValueError, match=r"callbacks\.mine\._target_: refused; Mine is a .*WeightAveraging: .*average"):
        refuse_callbacks({"mine": callback})
    refuse_callbacks({"stop": EarlyStopping("val/loss")})


@pytest.mark.parametrize(
    "words, said",
    [
        (["model.dim=32", "model.dim=64"], "model.dim: given twice, by model.dim=32 and by model.dim=64; keep one"),
        (["model=encoder", "model=decoder"], "model: given twice, by model=encoder and by model=decoder; keep one"),
        (["-m", "seed=1,2", "seed=3"], "seed: given twice, by seed=1,2 and by seed=3; keep one"),
        (
            ["data=text", "data.path=notes/a,b.txt"],
            "data.path: several values; for one that has a comma in it, write 'data.path=\"notes/a,b.txt\"'",
        ),
        (
            ["model.dim=32,64"],
            "model.dim: several values; add -m to run one after the other, or write a list in [brackets]",
        ),
    ],
)
def test_a_key_given_twice_or_with_several_values_is_told_in_one_line(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        preflight(words)
    assert end.value.code == 2 and capsys.readouterr().err == f"error: {said}\n"


def test_a_path_with_a_comma_is_taken_as_it_was_answered():
    config = preflight(["data=text", 'data.path="notes/a,b.txt"']).run
    assert config["data"]["path"] == "notes/a,b.txt"
