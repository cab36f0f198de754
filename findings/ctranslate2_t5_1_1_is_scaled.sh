#!/usr/bin/env bash
# What: a T5 of version 1.1, or a Flan-T5, whose output matrix is one of its own, is converted by CTranslate2 4.8.5 to
#   another model, without a word. transformers 5.24.0 sets tie_word_embeddings to true for every T5 and keeps in
#   scale_decoder_outputs whether outputs are scaled; CTranslate2's converter takes the former for the latter.
# Expected: the scores of the model that was converted, as for the first version, or an error.
#   Seen: log-probabilities of a tied one differ by less than 1e-4, those of an untied one by more than 0.1.
# Exits with 1 as soon as that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HUB_OFFLINE=1  # nothing is asked of a hub
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "transformers==5.24.0" "ctranslate2==4.8.5" "numpy==2.3.5"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import json
import sys
from importlib.metadata import version
from pathlib import Path

import ctranslate2
import tokenizers
import torch
import transformers

names = ["<pad>", "</s>", "<unk>", *(f"t{number}" for number in range(29))]
words = {name: number for number, name in enumerate(names)}
inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
source, target = ["t1", "t5", "t9", "</s>"], ["t3", "t4", "t7"]
difference = {}
for tied in (True, False):
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=32, d_model=16, d_kv=8, num_heads=2, d_ff=32, num_layers=1,
        feed_forward_proj="gated-gelu", tie_word_embeddings=tied, decoder_start_token_id=0,
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    place = f"tied-{tied}"
    model.save_pretrained(place)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(place)
    ids, opened = (torch.tensor([[words[w] for w in some]]) for some in (source, ["<pad>", *target]))
    closed = torch.tensor([words[w] for w in [*target, "</s>"]])
    scores = model(input_ids=ids, decoder_input_ids=opened).logits[0].log_softmax(-1)[torch.arange(4), closed]
    ctranslate2.converters.TransformersConverter(place).convert(f"{place}/converted")
    found = ctranslate2.Translator(f"{place}/converted").score_batch([source], [target])[0].log_probs
    difference[tied] = (torch.tensor(found) - scores).abs().max().item()
    said = json.loads(Path(place, "config.json").read_text())
    print(
        f"tied {tied}: config.json says tie_word_embeddings {said['tie_word_embeddings']}, scale_decoder_outputs "
        f"{said['scale_decoder_outputs']}; converted, log-probabilities differ by {difference[tied]:.1g}"
    )
print("transformers", version("transformers"), "ctranslate2", version("ctranslate2"))
sys.exit(0 if difference[True] < 1e-4 and difference[False] > 0.1 else 1)
PYTHON
