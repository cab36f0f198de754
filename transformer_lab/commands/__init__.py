"""What can be typed: `transformer-lab train`, `predict`, `evaluate` …; in a clone, train.py and scripts/ are so too."""

import inspect
import os
import sys
from importlib import import_module
from importlib.metadata import version

from transformer_lab.terminal import WINDOWS

if sys.platform == "win32":
    sys.exit(f"error: {WINDOWS}")

USAGE = """Usage: transformer-lab COMMAND KEY=VALUE …

    train        train a model, or run a sweep with -m
    predict      what a trained model makes of a text or a file
    evaluate     how well it does on a split or a file
    export       a folder of it that others can read
    show         what is in a run
    compare      several runs side by side
    leaderboard  the trials of a sweep
    course       how far you are with the labs
    quiz         ask a quiz of them: transformer-lab quiz attention

transformer-lab COMMAND --help says what each takes; eval "$(transformer-lab -sc install=bash)" completes with <TAB>.
"""
COMMANDS = ("train", "predict", "evaluate", "export", "show", "compare", "leaderboard", "course", "quiz")


def main() -> None:
    """The command `transformer-lab`."""
    from transformer_lab.composition.problems import fail, unknown
    from transformer_lab.composition.script import answer

    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(USAGE, end="")
        return
    if name == "--version":
        print(version("transformer-lab"))
        return
    if name in ("-sc", "--shell-completion"):
        complete()
        return
    if name not in COMMANDS:
        fail([unknown(name, "command", COMMANDS)])
    sys.argv[:2] = [f"transformer-lab {name}"]
    module = import_module(f"{__name__}.{name}")
    if name == "train":
        module.main()
    else:
        answer(module.main)


def complete() -> None:
    """What can follow the words in COMP_LINE: a command, then what it takes. Without them, what `-sc` asks of Hydra."""
    program, *typed = os.environ.get("COMP_LINE", "").split(" ")
    if program and len(typed) < 2:
        print(*(name for name in COMMANDS for begun in typed if name.startswith(begun)))
    elif program and typed[0] != "train":
        taken = (
            inspect.signature(import_module(f"{__name__}.{typed[0]}").main).parameters if typed[0] in COMMANDS else ()
        )
        print(*(f"{name}=" for name in taken))
    else:
        if program:
            line = " ".join([program, *typed[1:]])
            os.environ.update(COMP_LINE=line, COMP_POINT=str(len(line)))
        import_module(f"{__name__}.train").main()
