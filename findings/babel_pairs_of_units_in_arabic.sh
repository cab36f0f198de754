#!/usr/bin/env bash
# What: babel.lists.format_list joins items as the CLDR says. For two items in the styles "unit", "unit-short" and
#   "unit-narrow" of Arabic, the CLDR has no pattern of its own for a pair, and Babel fills the pattern of a list's end
#   into that of its middle: the last item is said twice. A corpus of phrases made with it teaches a model to do so.
# Expected: each item once, in every locale and style. Seen with babel 2.19.0: "ar, unit: A، وB، وB", and in the style
#   "unit-narrow" also in Malayalam, Nepali, Tongan, Wolof and Yoruba.
# Exits with 1 as soon as that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "babel==2.19.0"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

from babel import Locale
from babel.lists import format_list

twice = {}
for code in ("en", "ar", "de", "hi", "ml", "ne", "to", "wo", "yo"):
    for style in ("standard", "or", "unit", "unit-short", "unit-narrow"):
        said = format_list(["A", "B"], style, Locale.parse(code))
        if said.count("B") != 1:
            print(f"{code}, {style}: {said}")
            twice.setdefault(style, set()).add(code)
expected = {"unit": {"ar"}, "unit-short": {"ar"}, "unit-narrow": {"ar", "ml", "ne", "to", "wo", "yo"}}
sys.exit(0 if twice == expected else 1)
PYTHON
