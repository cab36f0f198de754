#!/usr/bin/env bash
# What: on a CPU, each number of rows that a product in bf16 has makes code of its own, and PyTorch keeps that of more
#   than a thousand. With batches of ever other sizes, as packed or dynamically padded texts are, memory grows for
#   hundreds of steps, by more than a model takes, and looks like a leak; in fp32 it does not.
# Expected: memory that depends on the largest product, as in fp32. Seen with torch 2.13.0 on x86-64 processors with
#   AVX-512: 1,200 products (n, 256) x (256, 256), n from 400 to 1,599, whose numbers take 2 MB in all: 760 MB in bf16
#   and 1 MB in fp32. ONEDNN_PRIMITIVE_CACHE_CAPACITY=256 LRU_CACHE_CAPACITY=16, set before the first: 175 MB, in the
#   same time. Without AVX-512 nothing is shown, as bf16 is multiplied by other code there.
# Exits with 1 as soon as that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "numpy<3"
cat > "$folder/grow.py" <<'PYTHON'
import sys

import torch


def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024


if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
    sys.exit("this processor has no AVX-512")
dtype = getattr(torch, sys.argv[1])
rows, matrix = torch.ones(1600, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype)
for _ in range(3):
    rows @ matrix
before = resident()
for number in range(400, 1600):
    rows[:number] @ matrix
print(round(resident() - before))
PYTHON
python="$folder/venv/bin/python"
bf16=$("$python" "$folder/grow.py" bfloat16)
fp32=$("$python" "$folder/grow.py" float32)
bounded=$(ONEDNN_PRIMITIVE_CACHE_CAPACITY=256 LRU_CACHE_CAPACITY=16 "$python" "$folder/grow.py" bfloat16)
echo "MB for 1,200 sizes of a product: bf16 $bf16, fp32 $fp32, bf16 with both caches bounded $bounded"
test "$bf16" -gt 300 && test "$fp32" -lt 50 && test "$bounded" -lt $((bf16 / 2))
