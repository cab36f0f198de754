"""How well a trained model does on a split, or on a file of your own: `python scripts/evaluate.py run=RUN_DIR`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the package beside this file, whatever is installed

from transformer_lab.commands.evaluate import main
from transformer_lab.composition.script import answer

if __name__ == "__main__":
    answer(main)
