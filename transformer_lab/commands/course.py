"""How far a learner is: `transformer-lab course`."""

from transformer_lab.course.progress import Mark


def main() -> None:
    """Show the labs of the course, what is done, what is next, and the marks."""
    from rich.table import Table

    from transformer_lab.course import progress
    from transformer_lab.course.lab import lab, lab_folders, quizzes
    from transformer_lab.terminal import console as screen

    done = progress.read()
    marks: dict[str, list[Mark]] = {}
    for mark in done.marks:
        marks.setdefault(mark.quiz, []).append(mark)
    table = Table("", "exercises", "best of the quiz", title="The course", title_justify="left")
    following = ""
    for name, folder in lab_folders().items():
        exercises = lab(name).exercises
        passed = done.passed.get(name, {}).keys() & exercises.keys()
        left = [one for one in exercises if one not in passed]
        if left and not following:
            following = f"Next: {left[0]}, in {folder.parent.name}/{folder.name}/lab.ipynb"
        table.add_row(folder.name, f"{len(passed)} of {len(exercises)}", _best(marks.get(name, [])))
    for name, quiz in quizzes().items():
        if quiz.graded:
            table.add_row(name, "", _best(marks.get(name, []), passes=True))
            if not following and not any(mark.passed for mark in marks.get(name, [])):
                following = f"Next: transformer-lab quiz {name}"
    console = screen()
    console.print(table)
    console.print(following or "All of it is done.", highlight=False)
    console.print(f"Kept in {progress.file()}", highlight=False, soft_wrap=True)


def _best(marks: list[Mark], passes: bool = False) -> str:
    if not marks:
        return "–"
    best = max(marks, key=lambda mark: mark.right / max(len(mark.answers), 1))
    return f"{best.right} of {len(best.answers)}{', passed' if passes and best.passed else ''}"
