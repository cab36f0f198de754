#!/usr/bin/env bash
# What: `len(x)` of a tensor whose first size is the product of two dynamic ones is baked into what torch.export makes:
#   of texts and tokens laid end to end, say. Of a size that is dynamic by itself the same `len(x)` is an error, with the
#   advice to mark it otherwise. The program has a guard, which calls of it from Python meet; torch.onnx.export drops it.
# Expected: the same error ("you marked … as dynamic but your code specialized it").
#   Seen with torch 2.13.0: the export of one size raises, that of the product does not, and the program refuses another
#   size when it runs.
# Exits with 1 as soon as that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "numpy==2.3.5"
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import sys

import torch


class One(torch.nn.Module):
    def forward(self, x):
        return x.view(len(x), -1, 2)


class Product(torch.nn.Module):
    def forward(self, x):
        flat = x.flatten(0, 1)
        return flat.view(len(flat), -1, 2)


class Shape(torch.nn.Module):
    def forward(self, x):
        flat = x.flatten(0, 1)
        return flat.view(flat.shape[0], -1, 2)


def exported(module, example):
    sizes = dict.fromkeys(range(example.ndim - 1), torch.export.Dim.DYNAMIC)
    try:
        return torch.export.export(module, (example,), dynamic_shapes=(sizes,)).module()
    except Exception as error:
        return type(error).__name__


def serves(program, x):
    try:
        program(x)
        return True
    except Exception:
        return False


one, product, shape = exported(One(), torch.zeros(10, 4)), exported(Product(), torch.zeros(2, 5, 4)), exported(
    Shape(), torch.zeros(2, 5, 4)
)
print("torch", torch.__version__.partition("+")[0])
print("len of a dynamic size:", one)
print("len of a product of two: exported; another size is served:", serves(product, torch.zeros(3, 5, 4)))
print("shape[0] of it: exported; another size is served:", serves(shape, torch.zeros(3, 5, 4)))
ok = isinstance(one, str) and not isinstance(product, str)
ok = ok and not serves(product, torch.zeros(3, 5, 4)) and serves(shape, torch.zeros(3, 5, 4))
sys.exit(0 if ok else 1)
PYTHON
