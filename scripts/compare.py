"""Several runs side by side: `python scripts/compare.py runs=RUN_DIR,RUN_DIR`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the package beside this file, whatever is installed

from transformer_lab.commands.compare import main
from transformer_lab.composition.script import answer

if __name__ == "__main__":
    answer(main)
