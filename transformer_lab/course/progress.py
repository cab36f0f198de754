"""What a learner has done: one small file of his own, course.json."""

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformer_lab.folders import replace

PASSES = 0.8  # of a graded quiz
COURSE = "TRANSFORMER_LAB_COURSE"  # an environment variable: where the file lies instead


def passes(right: int, asked: int) -> bool:
    """Whether so many right answers pass a graded quiz."""
    return right >= PASSES * asked


@dataclass(frozen=True)
class Mark:
    """A quiz that was answered: what it takes to ask it again and to mark it again."""

    quiz: str
    seed: int
    answers: list[str]
    right: int
    version: str
    when: str

    @property
    def passed(self) -> bool:
        return passes(self.right, len(self.answers))


@dataclass(frozen=True)
class Progress:
    passed: dict[str, dict[str, str]] = field(default_factory=dict)  # lab -> exercise -> when
    marks: list[Mark] = field(default_factory=list)


def file() -> Path:
    if chosen := os.environ.get(COURSE):
        return Path(chosen)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "transformer_lab" / "course.json"


def read(path: Path | None = None) -> Progress:
    """What the file says; nothing where there is none. Raises ValueError for one that is no such file."""
    path = file() if path is None else path
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        passed = {str(lab): dict(one) for lab, one in found["passed"].items()}
        return Progress(passed, [Mark(**one) for one in found["marks"]])
    except FileNotFoundError:
        return Progress()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = " ".join(str(error).split())
        raise ValueError(f"{path}: not what a course has kept ({what}); move it away to begin anew") from error


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def pass_exercise(lab: str, exercise: str) -> None:
    """Note that an exercise is right; the first time counts."""
    progress = read()
    if exercise not in progress.passed.get(lab, {}):
        progress.passed.setdefault(lab, {})[exercise] = now()
        _write(progress)


def keep(mark: Mark) -> None:
    progress = read()
    progress.marks.append(mark)
    _write(progress)


def _write(progress: Progress) -> None:
    path = file()
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, json.dumps(asdict(progress), indent=1, ensure_ascii=False) + "\n")
