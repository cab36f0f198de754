#!/usr/bin/env bash
# What: the first optimizer that is built in a process imports PyTorch's compiler, though nothing is compiled:
#   `Optimizer.add_param_group`, `zero_grad` and `state_dict` are wrapped by `torch._disable_dynamo`, which imports
#   torch._dynamo, and with it SymPy, when such a function is called for the first time. `import torch` has not.
# Expected: to hold a list of parameters needs no compiler; torch.compile imports it when it is called.
#   Seen with torch 2.13.0: "torch._dynamo: False after import torch, True after SGD(...); sympy: False, then True",
#   and hundreds of modules more, which take a second or more at the start of every training program.
# Exits with 1 as soon as that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "numpy==2.3.5"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import time

import torch

names = ("torch._dynamo", "sympy")
before, modules = [name in sys.modules for name in names], set(sys.modules)
started = time.process_time()
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
seconds = time.process_time() - started
after = [name in sys.modules for name in names]
print(f"torch {torch.__version__.partition('+')[0]}")
for name, first, then in zip(names, before, after):
    print(f"{name}: {first} after import torch, {then} after SGD(...)")
more = len(set(sys.modules) - modules)
print(f"{more} modules more, {seconds:.1f} s of CPU")
sys.exit(0 if before == [False, False] and after == [True, True] and more > 100 else 1)
PYTHON
