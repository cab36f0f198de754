"""What CTranslate2 makes of an exported folder. `export.py` runs this file in a process of its own, without the
package: `python read_back_ctranslate2.py FOLDER ASKED.json ANSWER.safetensors`."""

import json
import sys
from pathlib import Path

import ctranslate2
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer


def main(folder: str, asked: str, answer: str) -> None:
    wanted = json.loads(Path(asked).read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    texts = [[tokenizer.id_to_token(token) for token in ids] for ids in wanted["ids"]]
    prompts = [tokenizer.encode(prompt).tokens for prompt in wanted["prompts"]]
    new = wanted["max_new_tokens"]
    if wanted["targets"][0]:
        model = ctranslate2.Translator(folder)
        targets = [[tokenizer.id_to_token(token) for token in target[1:]] for target in wanted["targets"]]
        scores = [np.array(one.log_probs, dtype=np.float32) for one in model.score_batch(texts, targets)]
        found = {f"log_probs.{number}": one for number, one in enumerate(scores)}
        tokens = [one.hypotheses[0] for one in model.translate_batch(prompts, beam_size=1, max_decoding_length=new)]
        known = tokenizer.get_vocab()
        written = [tokenizer.decode([known[token] for token in some]) for some in tokens]
    else:
        generator = ctranslate2.Generator(folder)
        found = {f"logits.{i}": np.array(generator.forward_batch([text]))[0] for i, text in enumerate(texts)}
        # One by one: of prompts of several lengths together, it would give back a part of the longer ones, too.
        how = {"max_length": new, "sampling_topk": 1, "include_prompt_in_result": False}
        each = [generator.generate_batch([prompt], **how)[0] for prompt in prompts]
        written = [tokenizer.decode(one.sequences_ids[0]) for one in each]
    said = {
        "version": ctranslate2.__version__,
        "ids": [tokenizer.encode(text).ids for text in wanted["texts"]],
        "written": written,
    }
    save_file(found, answer, {"said": json.dumps(said)})


if __name__ == "__main__":
    main(*sys.argv[1:])
