"""What transformers makes of an exported folder. `export.py` runs this file in a process of its own, without the
package: `python read_back_transformers.py FOLDER ASKED.json ANSWER.safetensors`."""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file


@torch.inference_mode()
def main(folder: str, asked: str, answer: str) -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    wanted = json.loads(Path(asked).read_text(encoding="utf-8"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, wanted["class"]).from_pretrained(folder, dtype=torch.float32).eval()
    found: dict[str, torch.Tensor] = {}
    for number, (ids, target) in enumerate(zip(wanted["ids"], wanted["targets"], strict=True)):
        more = {"decoder_input_ids": torch.tensor([target])} if target else {}
        out = model(torch.tensor([ids]), **more)
        names = [name for name in ("logits", "prediction_logits", "seq_relationship_logits") if name in out]
        found |= {f"{name}.{number}": out[name][0].contiguous() for name in names}
    written = []
    for prompt in wanted["prompts"]:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        every = model.generate(ids, max_new_tokens=wanted["max_new_tokens"], do_sample=False, num_beams=1)[0]
        before = 0 if model.config.is_encoder_decoder else ids.shape[1]
        written.append(tokenizer.decode(every[before:], skip_special_tokens=True))
    said = {
        "version": transformers.__version__,
        "ids": [tokenizer(text).input_ids for text in wanted["texts"]],
        "written": written,
    }
    save_file(found, answer, {"said": json.dumps(said)})


if __name__ == "__main__":
    main(*sys.argv[1:])
