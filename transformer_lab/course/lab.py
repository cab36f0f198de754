"""A lab of the course: its exercises, and what the learner has written of them."""

import os
from collections.abc import Callable
from functools import cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from transformer_lab.course import progress
from transformer_lab.course.checking import Blank, Exercise, Verdict, check
from transformer_lab.course.quizzing import Quiz, QuizKinds
from transformer_lab.data.sources.base import no_such_name

FAST = "LABS_FAST"  # an environment variable: a few steps of training, to see that everything runs


def labs_folder() -> Path:
    """Where the labs lie: beside the package, in a clone. Raises ValueError elsewhere."""
    folder = Path(__file__).parents[2] / "labs"
    if not (folder / "README.md").is_file():
        where = "git clone https://github.com/transformer-lab/transformer-lab"
        raise ValueError(f"labs: they come with a clone ({where}), where pip install -e '.[labs]' finds them")
    return folder


def lab_folders() -> dict[str, Path]:
    """The labs by their names, in their order."""
    return {
        folder.name.partition("_")[2]: folder
        for folder in sorted(labs_folder().iterdir())
        if all((folder / file).is_file() for file in ("checks.py", "quiz.py", "lab.ipynb"))
    }


def quizzes() -> dict[str, QuizKinds]:
    """All quizzes by their names: for practice of what is taken for granted and of each lab; of each module, graded."""
    prerequisites = module_of(labs_folder() / "prerequisites.py")
    found = {"prerequisites": QuizKinds("prerequisites", prerequisites.QUESTIONS)}
    found |= {name: lab(name).questions for name in lab_folders()}
    modules = module_of(labs_folder() / "modules.py")
    for name, labs in modules.MODULES.items():
        kinds = [kind for one in labs for kind in found[one].kinds]
        found[name] = QuizKinds(name, kinds, count=modules.COUNT, graded=True)
    return found


def lab(name: str) -> "Lab":
    """The lab of this name, as `labs/01_attention` is called "attention". Raises ValueError where there is none."""
    folders = lab_folders()
    if name not in folders:
        raise no_such_name("lab", name, folders, "no such lab")
    return Lab(name, folders[name])


class Lab:
    """`check` judges what was written; what has passed is then found under its name, `lab.scores`, and until then the
    framework's own is found there, so that the rest of a notebook goes on."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self._written: dict[str, Any] = {}

    def __repr__(self) -> str:
        done = progress.read().passed.get(self.name, {})
        return f"Lab {self.name}: {len(done.keys() & self.exercises.keys())} of {len(self.exercises)} exercises done"

    @cached_property
    def exercises(self) -> dict[str, Exercise]:
        found: list[Exercise] = module_of(self.folder / "checks.py").EXERCISES
        return {one.name: one for one in found}

    @property
    def fast(self) -> bool:
        return os.environ.get(FAST, "0") not in ("", "0")

    def steps(self, count: int) -> int:
        """How many steps to train for: `count`, or a few, where the environment variable LABS_FAST is 1."""
        return min(count, 10) if self.fast else count

    def todo(self, what: str) -> NoReturn:
        """Stands where something is to be written."""
        raise Blank(what)

    def check(self, written: Callable[..., Any]) -> Verdict:
        """Compare what was written with the framework's own; it is known by its name."""
        name = getattr(written, "__name__", repr(written))
        if name not in self.exercises:
            raise no_such_name("check", name, self.exercises, "no such exercise in this lab")
        self._written.pop(name, None)
        verdict = check(self.exercises[name], written)
        if verdict.passed:
            self._written[name] = written
            progress.pass_exercise(self.name, name)
        return verdict

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self.exercises:
            raise AttributeError(f"lab {self.name!r} has no exercise {name!r}")
        return self._written.get(name, self.exercises[name].right)

    def quiz(self, seed: int | None = None) -> Quiz:
        """The practice quiz: every question once, with other numbers for another seed."""
        return self.questions.draw(seed)

    @cached_property
    def questions(self) -> QuizKinds:
        return QuizKinds(self.name, module_of(self.folder / "quiz.py").QUESTIONS)


def module_of(file: Path) -> ModuleType:
    """What a file of a lab defines: such a file is in no package."""
    spec = spec_from_file_location(f"{file.parent.name}.{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
