"""Translating 64 sentences with a model of random weights, which says when to end: as long as its reference.

With equal lengths everybody takes the same number of steps; with real ones, sentences that have ended may leave.
"""

import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import translation
from benchmarks.measure import Contender, Pace
from benchmarks.setting import Setting, rows
from transformer_lab.models.prepacking import prepacked_weights
from transformer_lab.training.flops import synchronize

TITLE = "decoding"
UNIT = "tokens"
SIZES = translation.SIZES
CASES = ("greedy, equal lengths", "greedy, real lengths", "beam 5, equal lengths", "beam 5, real lengths")
SENTENCES = 64


class Endless(torch.nn.Module):
    """A head that never chooses the end: the limits say when a sentence has ended."""

    def __init__(self, head: torch.nn.Module, end: int) -> None:
        super().__init__()
        self.head, self.end = head, end

    def forward(self, hidden: Tensor) -> Tensor:
        found: Tensor = self.head(hidden)
        found[:, self.end] = -float("inf")
        return found


class OurSearch:
    name, differs = "transformer_lab", ""

    def __init__(self, setting: Setting, sources: list[list[int]], limits: list[int], beams: int) -> None:
        words = (*translation.MARIAN, f"task.beam_size={beams}")
        task: Any = translation.ours(setting, "", *words).task
        self.task = task.to(setting.device).eval()
        torch.nn.init.normal_(self.task.model.embedding.weight, std=0.02)
        self.task.head = Endless(self.task.head, self.task.end)
        self.sources, self.limits, self.machine, self.device = sources, limits, setting.machine, setting.device

    def run(self, steps: int) -> Pace:
        synchronize(self.device)
        started = time.perf_counter()
        # The matrices are laid out once for all batches, as `translate` has it.
        with self.machine.autocast(), prepacked_weights(self.task, len(self.sources) * self.task.beam.size):
            for _ in range(steps):
                written = self.task.search(self.sources, self.limits)
                assert [one.length for one in written] == self.limits
        synchronize(self.device)
        return Pace(steps * sum(self.limits), time.perf_counter() - started, steps)


class Marian:
    """Hugging Face's generate(), with a processor of logits that ends each sentence in time."""

    name, differs = "transformers Marian, generate", ""

    def __init__(self, setting: Setting, sources: list[list[int]], limits: list[int], beams: int) -> None:
        from transformers import LogitsProcessor, LogitsProcessorList

        self.model = translation.marian(setting).to(setting.device).eval()
        self.machine, self.device, self.limits, self.beams = setting.machine, setting.device, limits, beams
        longest = max(map(len, sources))
        padding = self.model.config.pad_token_id
        self.ids = torch.tensor(
            [source + [padding] * (longest - len(source)) for source in sources], device=self.device
        )
        self.end = torch.tensor(limits, device=self.device).repeat_interleave(beams)
        end = self.model.config.eos_token_id

        class Ends(LogitsProcessor):  # type: ignore[misc]
            def __call__(processor, input_ids: Tensor, scores: Tensor) -> Tensor:
                now = input_ids.shape[1] > self.end
                scores[:, end] = torch.where(now, 1e9, -float("inf")).to(scores.dtype)
                return scores

        self.processors = LogitsProcessorList([Ends()])

    @torch.inference_mode()
    def run(self, steps: int) -> Pace:
        synchronize(self.device)
        started = time.perf_counter()
        with self.machine.autocast():
            for _ in range(steps):
                self.model.generate(
                    input_ids=self.ids,
                    attention_mask=(self.ids != self.model.config.pad_token_id).long(),
                    num_beams=self.beams,
                    do_sample=False,
                    max_new_tokens=max(self.limits) + 1,
                    use_cache=True,
                    logits_processor=self.processors,
                )
        synchronize(self.device)
        return Pace(steps * sum(self.limits), time.perf_counter() - started, steps)


class CTranslate2:
    """The same shape of model in C++; it can be told the length of a whole batch only.

    It works in a process of its own: where its threads and PyTorch's share one, OpenMP counts more of them than there
    are cores and lets all sleep after each operation, which takes both 1.1 to 1.5 times as long.
    """

    name, differs = "CTranslate2 fp32", "C++"

    def __init__(self, setting: Setting, sources: list[list[int]], limits: list[int], beams: int) -> None:
        from ctranslate2.converters.transformers import MarianMTLoader

        model = translation.marian(setting)
        spec = MarianMTLoader().get_model_spec(model)
        words = [f"word{number}" for number in range(model.config.vocab_size - 1)]
        spec.register_source_vocabulary(words)
        spec.register_target_vocabulary(words)
        spec.config.eos_token = spec.config.unk_token = spec.config.decoder_start_token = words[0]
        spec.validate()
        self.folder = tempfile.TemporaryDirectory()
        spec.save(self.folder.name)
        device = "cuda" if setting.device.type == "cuda" else "cpu"
        how = {"device": device, "compute_type": "float32", "intra_threads": torch.get_num_threads()}
        texts = [[words[token] for token in source] for source in sources]
        length = max(limits)
        search = {"beam_size": beams, "min_decoding_length": length, "max_decoding_length": length}
        processes = multiprocessing.get_context("spawn")
        self.steps, theirs = processes.Pipe()
        process = processes.Process(target=_translate, args=(theirs, self.folder.name, how, texts, search), daemon=True)
        process.start()
        theirs.close()  # so that its end, whatever it may be, is noticed
        assert process.pid
        self.pid, self.items = process.pid, sum(limits)
        self.steps.recv()  # it has read the model

    def run(self, steps: int) -> Pace:
        self.steps.send(steps)
        return Pace(steps * self.items, self.steps.recv(), steps)


def _translate(
    steps: Connection, folder: str, how: dict[str, Any], texts: list[list[str]], search: dict[str, Any]
) -> None:
    """Translate all as many times as is asked for, and answer with the seconds that it took, until nobody asks."""
    import ctranslate2

    translator = ctranslate2.Translator(folder, **how)
    steps.send(0.0)
    with contextlib.suppress(EOFError):
        while True:
            number = steps.recv()
            started = time.perf_counter()
            for _ in range(number):
                found = translator.translate_batch(texts, **search)
                assert {len(one.hypotheses[0]) for one in found} == {search["max_decoding_length"]}
            steps.send(time.perf_counter() - started)


def contenders(setting: Setting) -> Iterator[tuple[str, Callable[[], Contender]]]:
    equal, beams = "equal" in setting.case, 5 if "beam" in setting.case else 1
    longest, vocab_size = SIZES[setting.size][3], SIZES[setting.size][5]
    sides = translation.lengths(longest)
    size = [np.full(SENTENCES, 15)] * 2 if equal else [side[:SENTENCES] for side in sides]
    text = rows(size[0] - 1, vocab_size - 1)
    sources = [[*text[number].tolist(), 0] for number in range(SENTENCES)]
    limits = size[1].tolist()
    yield OurSearch.name, lambda: OurSearch(setting, sources, limits, beams)
    yield Marian.name, lambda: Marian(setting, sources, limits, beams)
    if equal:
        yield CTranslate2.name, lambda: CTranslate2(setting, sources, limits, beams)
