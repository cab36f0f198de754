#!/usr/bin/env bash
# What: an MPT of transformers 5.24.0 takes no notice of expansion_ratio, no_bias, alibi, qk_ln and logit_scale in its
#   config: whatever they say, the feed-forward layer is four times as wide, nothing has a bias, positions are ALiBi's,
#   queries and keys have no norm, and logits no scale. The configuration documents all five.
# Expected: another model, or an error, for a value that is not served.
#   Seen: the same names and shapes of tensors, and the same logits, with all five set.
# Exits with 1 as soon as that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HUB_OFFLINE=1  # nothing is asked of a hub
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "transformers==5.24.0" "numpy==2.3.5"
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import sys

import torch
import transformers


def model(**options):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "n_heads": 2, "n_layers": 1, "vocab_size": 32}
    return transformers.MptForCausalLM(transformers.MptConfig(**sizes, **options)).eval()


usual = model()
other = model(expansion_ratio=2, no_bias=False, logit_scale=0.5, attn_config={"alibi": False, "qk_ln": True})
shapes = [{name: tuple(x.shape) for name, x in one.state_dict().items()} for one in (usual, other)]
ids = torch.arange(12)[None]
same = torch.equal(usual(ids).logits, other(ids).logits)
print("transformers", transformers.__version__)
print("feed-forward width:", shapes[1]["transformer.blocks.0.ffn.up_proj.weight"][0], "of", 16)
print("the same tensors:", shapes[0] == shapes[1], "- the same logits:", same)
sys.exit(0 if shapes[0] == shapes[1] and same else 1)
PYTHON
