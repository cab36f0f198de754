"""Quizzes of the course, in a terminal: `transformer-lab quiz module1`."""

from pathlib import Path


def main(name: str = "", *, seed: int | None = None, verify: str | None = None) -> None:
    """Ask a quiz of the course, mark it and keep the mark.

    name: a lab, for practice, which explains each answer at once; or a module, graded, of 10 questions
    seed: the same seed asks the same questions; without one, new ones are drawn
    verify: a course.json that a learner has handed in, or a folder of them: compute every mark again
    """
    from transformer_lab.course.lab import quizzes

    known = quizzes()
    if verify is not None:
        check_marks(Path(verify))
        return
    if name not in known:
        from transformer_lab.data.sources.base import no_such_name

        if not name:
            raise ValueError(f"quiz: which one? There are {', '.join(known)}")
        raise no_such_name("quiz", name, known, "no such quiz")
    quiz = known[name].draw(seed)
    print(f"{name}, seed {quiz.seed}: {len(quiz.asked)} questions; an empty line passes one over")
    try:
        graded = quiz.ask()
    except EOFError:
        raise ValueError("quiz: it is asked in a terminal; in a notebook lab.quiz() shows it") from None
    except KeyboardInterrupt:
        raise SystemExit(
            f"\nNothing is kept; transformer-lab quiz {name} seed={quiz.seed} asks the same again"
        ) from None
    print(f"\n{graded if known[name].graded else graded.verdict}")


def check_marks(place: Path) -> None:
    """Compute again each mark in a file, or in each file of a folder; exit code 1 where one is another."""
    from transformer_lab.course import progress
    from transformer_lab.course.lab import quizzes
    from transformer_lab.course.quizzing import marked_again

    files = sorted(place.rglob("*.json")) if place.is_dir() else [place]
    if not all(file.is_file() for file in files) or not files:
        raise ValueError(f"verify={place}: no such file, or no .json in it")
    known, other = quizzes(), 0
    for file in files:
        for mark in progress.read(file).marks:
            wrong = marked_again(mark, known[mark.quiz]) if mark.quiz in known else "no such quiz here"
            other += bool(wrong)
            print(f"{file}: {mark.when} {mark.quiz}, seed {mark.seed}: {wrong or f'{mark.right} right, as written'}")
    if other:
        raise SystemExit(1)
