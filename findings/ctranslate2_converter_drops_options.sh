#!/usr/bin/env bash
# What: CTranslate2 4.8.5 converts a Qwen3 whose first layers see a window only to one whose layers see everything, and
#   a GPT-2 whose norms have an epsilon of 0.1 to one with 1e-5, both without a word.
# Expected: an option of config.json that the converter does not carry over is refused, as an unknown activation is.
#   Seen: logits of texts longer than the window differ by more than 0.01 (within it by less than 1e-4), and those of
#   the GPT-2 by more than 1e-3 (with 1e-5 by less than 1e-4).
# Exits with 1 as soon as that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HUB_OFFLINE=1  # nothing is asked of a hub
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "transformers==5.24.0" "ctranslate2==4.8.5" "numpy==2.3.5"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import sys
from importlib.metadata import version

import ctranslate2
import numpy as np
import tokenizers
import torch
import transformers

names = ["</s>", "<unk>", *(f"t{number}" for number in range(30))]
words = {name: number for number, name in enumerate(names)}
inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()


def difference(place, model, length):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.eval().save_pretrained(place)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="</s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(place)
    ids = torch.randint(2, 32, (1, length))
    ctranslate2.converters.TransformersConverter(place).convert(f"{place}/converted")
    generator = ctranslate2.Generator(f"{place}/converted")
    found = np.array(generator.forward_batch([[names[token] for token in ids[0]]]))
    return float((torch.from_numpy(found) - model(ids).logits).abs().max())


def qwen():
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, use_sliding_window=True, sliding_window=4,
        layer_types=["sliding_attention", "full_attention"], bos_token_id=0, eos_token_id=0,
    ))


def gpt2(epsilon):
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=32, layer_norm_epsilon=epsilon,
        bos_token_id=0, eos_token_id=0,
    ))


short, long = difference("short", qwen(), 4), difference("long", qwen(), 20)
usual, other = difference("usual", gpt2(1e-5), 10), difference("other", gpt2(1e-1), 10)
print(f"Qwen3, window 4: logits of 4 tokens differ by {short:.1g}, of 20 tokens by {long:.1g}")
print(f"GPT-2: with an epsilon of 1e-5 by {usual:.1g}, with 0.1 by {other:.1g}")
print("transformers", version("transformers"), "ctranslate2", version("ctranslate2"))
sys.exit(0 if short < 1e-4 and long > 1e-2 and usual < 1e-4 and other > 1e-3 else 1)
PYTHON
