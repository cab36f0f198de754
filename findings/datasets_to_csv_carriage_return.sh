#!/usr/bin/env bash
# What: a text with a carriage return in it, as old Mac files and some web pages have them, written by Dataset.to_csv of
#   the library datasets (through pandas) and read back by load_dataset("csv"): one row becomes two, the first of them
#   without a label. The writer quotes cells with a line feed, and not those with a carriage return alone, which every
#   reader takes for the end of a row. Nothing is said.
# Expected: as many rows as were written. Seen with datasets 5.2.0 and pandas 3.1.1: "written: 2 rows, read: 3 rows".
# Exits with 1 as soon as that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "datasets==5.2.0" "pandas==3.1.1"
HF_HOME="$folder" "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import datasets

folder = sys.argv[1]
datasets.disable_progress_bars()
rows = {"text": ["one line\ranother line", "a text"], "label": ["good", "bad"]}
written = datasets.Dataset.from_dict(rows)
written.to_csv(f"{folder}/rows.csv")
read = datasets.load_dataset("csv", data_files=f"{folder}/rows.csv", split="train", cache_dir=f"{folder}/cache")
print(f"written: {len(written)} rows, read: {len(read)} rows: {read['text'][:]}, {read['label'][:]}")
sys.exit(0 if (len(written), len(read)) == (2, 3) else 1)
PYTHON
