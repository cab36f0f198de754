"""From the sources of the labs, `lab.py`, their notebooks and pictures: `python labs/build.py [LAB …]`.

What stands between `# BLANK what to do` and `# END` is written by the learner: `lab.ipynb` has lab.todo("what to do")
there, and `solved.ipynb` what the source has. Between `# YOURS text` and `# END` the learner finds a comment.
"""

import hashlib
import re
import sys
from pathlib import Path

import jupytext
import nbformat

from transformer_lab.course.lab import module_of

LABS = Path(__file__).parent
BLANK = re.compile(r"^( +)# BLANK (.+)\n(?:.*\n)*?\1# END$", re.M)
YOURS = re.compile(r"^# YOURS (.+)\n(?:.*\n)*?# END$", re.M)
MARKS = re.compile(r"^ *# (?:BLANK .*|YOURS .*|END)\n?", re.M)


def with_blanks(source: str) -> str:
    source = BLANK.sub(lambda found: f'{found[1]}lab.todo("{found[2]}")', source)
    return YOURS.sub(lambda found: f"# {found[1]}", source)


def solved(source: str) -> str:
    return MARKS.sub("", source)


def notebook(source: str) -> str:
    """As a notebook without outputs: the same source gives the same file."""
    made = jupytext.reads(source, fmt="py:percent")
    for number, cell in enumerate(made.cells):
        cell.source = cell.source.strip()
        cell.id = hashlib.sha256(f"{number}\n{cell.source}".encode()).hexdigest()[:8]
    made.metadata = nbformat.NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    nbformat.validate(made)
    return nbformat.writes(made) + "\n"


def built(folder: Path) -> dict[str, str]:
    """The notebooks of a lab, by their file names. Raises ValueError for a mark that belongs to nothing."""
    source = (folder / "lab.py").read_text(encoding="utf-8")
    texts = {"lab.ipynb": with_blanks(source), "solved.ipynb": solved(source)}
    for name, text in texts.items():
        if left := MARKS.search(text):
            raise ValueError(
                f"{folder / 'lab.py'}: {left[0].strip()!r} is left in {name}: a blank stands in a function"
            )
    return {name: notebook(text) for name, text in texts.items()}


def pictures(folder: Path) -> dict[str, object]:
    """The figures of a lab's reading, by their file names."""
    if not (folder / "figures.py").is_file():
        return {}
    return {f"{name}.png": draw() for name, draw in module_of(folder / "figures.py").FIGURES.items()}


def main(names: list[str]) -> None:
    for folder in sorted(LABS.glob("[0-9]*_*")):
        if names and folder.name.partition("_")[2] not in names:
            continue
        for name, text in built(folder).items():
            (folder / name).write_text(text, encoding="utf-8")
        for name, figure in pictures(folder).items():
            (folder / "images").mkdir(exist_ok=True)
            figure.savefig(folder / "images" / name, dpi=110)  # type: ignore[attr-defined]
        print(folder.name)


if __name__ == "__main__":
    main(sys.argv[1:])
