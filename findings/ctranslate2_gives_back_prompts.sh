#!/usr/bin/env bash
# What: Generator.generate_batch(prompts, include_prompt_in_result=False) of CTranslate2 4.8.5 gives back a part of those
#   prompts that are longer than the shortest of the batch: as many tokens of it as it is longer come first, in place of
#   new ones, so that a text is continued differently in company than alone.
# Expected: what it says, new tokens only, whoever else is in the batch.
#   Seen: of ["t1"] and ["t1", "t2", "t3", "t4"], three tokens each: the second begins with "t2", "t3", "t4"; alone, it is
#   three new tokens.
# Exits with 1 as soon as that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ctranslate2==4.8.5" "numpy==2.3.5"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import ctranslate2
import numpy as np
from ctranslate2.specs import transformer_spec

draw, tokens, width = np.random.default_rng(0), 16, 8
names = ["<unk>", "<s>", "</s>", *(f"t{number}" for number in range(tokens - 3))]


def drawn(*shape):
    return draw.normal(size=shape).astype(np.float32)


def norm(spec):
    spec.gamma, spec.beta = np.ones(width, np.float32), np.zeros(width, np.float32)


spec = transformer_spec.TransformerDecoderModelSpec.from_config(1, 2)
decoder, (layer,) = spec.decoder, spec.decoder.layer
decoder.embeddings.weight, decoder.scale_embeddings = drawn(tokens, width), False
decoder.position_encodings.encodings, decoder.projection.weight = drawn(64, width), drawn(tokens, width)
layer.self_attention.linear[0].weight = drawn(3 * width, width)
layer.self_attention.linear[1].weight = drawn(width, width)
layer.ffn.linear_0.weight, layer.ffn.linear_1.weight = drawn(4 * width, width), drawn(width, 4 * width)
for place in (decoder.layer_norm, layer.self_attention.layer_norm, layer.ffn.layer_norm):
    norm(place)
spec.register_vocabulary(names)
spec.config.unk_token = "<unk>"
spec.validate()
spec.optimize()
spec.save(".")
generator = ctranslate2.Generator(".")
prompts = [["t1"], ["t1", "t2", "t3", "t4"]]
how = {"max_length": 3, "sampling_topk": 1, "include_prompt_in_result": False, "end_token": "<unk>"}
together = [one.sequences[0] for one in generator.generate_batch(prompts, **how)]
alone = [generator.generate_batch([prompt], **how)[0].sequences[0] for prompt in prompts]
print("ctranslate2", ctranslate2.__version__)
print("together:", together)
print("alone:   ", alone)
sys.exit(0 if together[0] == alone[0] and together[1] == ["t2", "t3", "t4"] != alone[1] else 1)
PYTHON
