"""A question is a function of a seed: one right answer, known misconceptions, and marks that can be computed again."""

import json
from random import Random

import pytest

from tests.labs.conftest import LABS
from tests.programs import call
from transformer_lab.course.lab import quizzes
from transformer_lab.course.quizzing import LETTERS, Question, same

KINDS = [(name, kind) for name, quiz in quizzes().items() if not quiz.graded for kind in quiz.kinds]
IDS = [f"{name}-{kind.__name__}" for name, kind in KINDS]
seeds = pytest.mark.parametrize("seeds", [50, pytest.param(500, marks=pytest.mark.battery)])


@seeds
@pytest.mark.parametrize("name, kind", KINDS, ids=IDS)
def test_a_question_has_one_right_answer(name, kind, seeds):
    texts = set()
    for seed in range(seeds):
        first, again = (kind(Random(f"{seed} {kind.__name__}")) for _ in range(2))
        assert first == again and first.text.strip() and first.why
        texts.add((first.text, first.answer))
        values = [first.answer, *first.wrong]
        assert not any(same(x, y) for i, x in enumerate(values) for y in values[:i])
        if isinstance(first.answer, str):
            assert len(values) == 4 and all(isinstance(value, str) for value in values)
        else:
            assert first.wrong
    assert len(texts) > 1, "another seed asks something else"


def test_a_misconception_that_comes_to_the_answer_is_left_out():
    question = Question("2 + 2?", 4, "", {2 * 2: "a product", 22: "side by side", -4: "its opposite"})
    assert question.wrong == {22: "side by side", -4: "its opposite"}


@pytest.mark.parametrize("name", quizzes())
def test_guessing_does_not_pass(name):
    """Always the same letter, and a number that is often right; or always the longest option."""
    quiz, scores = quizzes()[name], {}
    for seed in range(40):
        asked = quiz.draw(seed).asked
        numbers = ["0.5", "1", "2", "4"]
        for guess in [*LETTERS[:4], "longest", "shortest"]:
            for number in numbers:
                typed = []
                for one in asked:
                    by_length = sorted(range(len(one.options)), key=lambda i, one=one: len(str(one.options[i])))
                    letter = {"longest": by_length[-1:], "shortest": by_length[:1]}.get(guess, [LETTERS.find(guess)])
                    typed.append(LETTERS[letter[0]] if one.options else number)
                right = sum(one.right(text) for one, text in zip(asked, typed, strict=True))
                scores.setdefault((guess, number), []).append(right / len(asked))
    assert max(sum(each) / len(each) for each in scores.values()) <= 0.35


@pytest.mark.parametrize("name", quizzes())
def test_right_answers_are_right_and_misconceptions_are_explained(name):
    quiz = quizzes()[name].draw(7)
    assert quiz.asked == quizzes()[name].draw(7).asked
    graded = quiz.grade(*quiz.solved())
    assert graded.passed and graded.right == len(quiz.asked)
    for one in quiz.asked:
        for value, why in one.question.wrong.items():
            typed = LETTERS[one.options.index(value)] if one.options else str(value)
            assert not one.right(typed) and why in one.explained(typed)


@pytest.mark.parametrize(
    "answers, said", [([], "0 for"), (["z"] * 13, "answer 1: 'z' is not")], ids=["too few", "no answers"]
)
def test_what_is_no_answer_is_told(answers, said, course):
    with pytest.raises(ValueError, match=said):
        LABS["attention"].quiz(seed=1).grade(*answers)
    assert not course.exists()


def test_a_mark_can_be_computed_again(course, tmp_path):
    graded = quizzes()["module1"].draw(5)
    graded.grade(*graded.solved()[:-1], "")
    done = call("transformer_lab/__main__.py", "quiz", f"verify={tmp_path}", cwd=tmp_path)
    assert done.returncode == 0 and "9 right, as written" in done.stdout
    with pytest.raises(ValueError, match="have been marked"):
        graded.grade(*graded.solved())
    kept = json.loads(course.read_text())
    kept["marks"][0]["right"] = 10
    course.write_text(json.dumps(kept))
    done = call("transformer_lab/__main__.py", "quiz", f"verify={course}", cwd=tmp_path)
    assert done.returncode == 1 and "10 is written and 9 of 10 are right" in done.stdout


def test_a_quiz_in_a_terminal_explains_and_is_kept(course, tmp_path):
    quiz = LABS["attention"].quiz(seed=2)
    done = call(
        "transformer_lab/__main__.py",
        "quiz",
        "attention",
        "seed=2",
        cwd=tmp_path,
        input="\n".join([*quiz.solved(), ""]),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("right: ") == len(quiz.asked) and done.stdout.rstrip().endswith("13 of 13 right")
    done = call("transformer_lab/__main__.py", "course", cwd=tmp_path)
    assert "13 of 13" in done.stdout and "Next: scores, in labs/01_attention/lab.ipynb" in done.stdout


@pytest.mark.parametrize(
    "words, said",
    [
        (["quiz"], "which one? There are prerequisites, attention"),
        (["quiz", "modul1"], "did you mean module1?"),
        (["quiz", "attention", "seed=x"], "seed: expected"),
        (["quiz", "attention"], "asked in a terminal"),
        (["quiz", "verify=nowhere"], "no such file"),
    ],
)
def test_a_mistake_gets_one_line(words, said, tmp_path, course):
    done = call("transformer_lab/__main__.py", *words, cwd=tmp_path, input="")
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_a_file_that_is_no_progress_is_told_and_kept(course, tmp_path):
    course.write_text("[]")
    done = call("transformer_lab/__main__.py", "course", cwd=tmp_path)
    assert done.returncode == 2 and "course.json: not what a course has kept" in done.stderr
    assert course.read_text() == "[]"
