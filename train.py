"""The one entry point: `python train.py --help` shows what can be chosen."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the package beside this file, whatever is installed

from transformer_lab.commands.train import main

if __name__ == "__main__":
    main()
