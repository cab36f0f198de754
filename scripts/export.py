"""A trained model for others: `python scripts/export.py run=RUN_DIR to=FOLDER`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the package beside this file, whatever is installed

from transformer_lab.commands.export import main
from transformer_lab.composition.script import answer

if __name__ == "__main__":
    answer(main)
