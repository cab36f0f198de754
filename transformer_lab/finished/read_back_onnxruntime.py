"""What ONNX Runtime makes of an exported folder. `export.py` runs this file in a process of its own, without the
package: `python read_back_onnxruntime.py FOLDER ASKED.json ANSWER.safetensors`."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import save_file
from tokenizers import Tokenizer


def main(folder: str, asked: str, answer: str) -> None:
    wanted = json.loads(Path(asked).read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
    inputs, outputs = [x.name for x in session.get_inputs()], [x.name for x in session.get_outputs()]
    found = {}
    every = list(range(len(wanted["ids"])))
    for texts, kind in [([one], "") for one in every] + [(every, ".side_by_side")]:
        ids, mask = filled([wanted["ids"][text] for text in texts])
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        targets = [wanted["targets"][text] or [0] for text in texts]
        given["decoder_input_ids"], of_targets = filled(targets)
        lengths = (of_targets if "decoder_input_ids" in inputs else mask).sum(1)
        for name, values in zip(outputs, session.run(outputs, {x: given[x] for x in inputs}), strict=True):
            for text, length, value in zip(texts, lengths, values, strict=True):
                found[f"{name}.{text}{kind}"] = np.ascontiguousarray(value[:length] if value.ndim == 2 else value)
    said = {
        "version": onnxruntime.__version__,
        "ids": [tokenizer.encode(text).ids for text in wanted["texts"]],
        "written": [],
    }
    save_file(found, answer, {"said": json.dumps(said)})


def filled(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids, the shorter ones filled up, and which are of a text."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(mask.shape, dtype=np.int64)
    ids[mask] = np.concatenate([np.array(row) for row in rows])
    return ids, mask.astype(np.int64)


if __name__ == "__main__":
    main(*sys.argv[1:])
