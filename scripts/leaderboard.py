"""The trials of a sweep, best first: `python scripts/leaderboard.py sweep=FOLDER`, at any time."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the package beside this file, whatever is installed

from transformer_lab.commands.leaderboard import main
from transformer_lab.composition.script import answer

if __name__ == "__main__":
    answer(main)
