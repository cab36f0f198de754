"""Sixty slips of one line that the tests notice: `python -m tests.mutants`, or some by a part of their file's name.

Each is made in a copy of the package, and the tests named beside it are run on that copy until one of them fails. A
mutant that all of them pass is a hole in the tests: it is named, and the exit code is 1.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PYTEST = [sys.executable, "-m", "pytest", "-n", "0", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=first"]


class Mutant(NamedTuple):
    file: str  # of the package
    before: str  # stands in it once
    after: str
    tests: str  # where it is noticed


KERNELS, POSITIONS, TASKS = "models/layers/kernels", "models/layers/positions", "tasks"
MODELS = "models/test_layers.py models/test_attention.py models/test_positions.py models/test_architectures.py"
MUTANTS = [
    Mutant("layout.py", "np.repeat(offsets[:-1], sizes)", "np.repeat(offsets[1:], sizes)", "models/test_attention.py"),
    # Attention
    Mutant(
        f"{KERNELS}/reference.py", "allowed &= distance >= 0", "allowed &= distance > 0", "models/test_attention.py"
    ),
    Mutant(
        f"{KERNELS}/reference.py", "distance.abs() < window", "distance.abs() <= window", "models/test_attention.py"
    ),
    Mutant(f"{KERNELS}/reference.py", "q.shape[-1] ** -0.5", "q.shape[-1] ** -1", "models/test_attention.py"),
    Mutant(
        f"{KERNELS}/reference.py",
        "allowed &= queries.sequence[:, None] == keys.sequence[None, :]",
        "pass",
        "models/test_attention.py",
    ),
    Mutant(f"{KERNELS}/reference.py", "scores = scores + added", "scores = scores - added", "models/test_attention.py"),
    Mutant(
        f"{KERNELS}/groups.py",
        'allowed=None if rules["causal"] else allowed',
        "allowed=None",
        "models/test_attention.py",
    ),
    Mutant(f"{KERNELS}/groups.py", "hidden = hidden | ~allowed", "pass", "models/test_attention.py"),
    Mutant(f"{KERNELS}/groups.py", ".index_fill_(0, padding, 0)", "", "models/test_attention.py"),
    Mutant(f"{KERNELS}/groups.py", "hidden &= ~hidden.all(-1, keepdim=True)", "pass", "models/test_attention.py"),
    Mutant(f"{KERNELS}/matmul.py", ".index_fill_(0, own.padding, 0)", "", "models/test_attention.py"),
    Mutant(f"{KERNELS}/matmul.py", "begin - self.window + 1", "begin - self.window + 2", "models/test_attention.py"),
    Mutant(f"{KERNELS}/matmul.py", "if part.first:", "if True:", "models/test_attention.py"),
    Mutant("models/layers/norms.py", "value=-1", "value=0", "models/test_layers.py"),
    Mutant("models/layers/feed_forward.py", ".mul_(2)", "", "models/test_layers.py"),
    Mutant("models/layers/attention.py", '"window": self.window', '"window": None', "models/test_attention.py"),
    Mutant(
        "models/layers/attention.py",
        "turned = position.rotate(turned, layout.positions)",
        "pass",
        MODELS,
    ),
    Mutant(
        "models/layers/attention.py",
        "return q if self.scale == 1 else q * self.scale",
        "return q",
        "models/test_mup.py",
    ),
    Mutant(
        "models/layers/attention.py",
        "self.keys(memory.hidden, memory.layout, position)",
        "self.keys(memory.hidden, memory.layout, None)",
        "models/test_attention.py",
    ),
    Mutant(
        "models/layers/cache.py",
        "if not self.even or window is not None or added is not None:",
        "if not self.even:",
        MODELS,
    ),
    Mutant("models/layers/cache.py", "cross.select(sequences)", "cross.select(sequences * 0)", MODELS),
    Mutant("models/layers/cache.py", "len(chosen) == count and bool(", "bool(len(chosen) == count) or bool(", MODELS),
    Mutant("models/layers/cache.py", "None if layout.equal else real[:, None, None]", "None", MODELS),
    # Published models
    Mutant("interop/weights.py", "lambda x: x / factor", "lambda x: x", "interop"),
    Mutant(
        "interop/weights.py",
        "lambda x: x.unflatten(axis, (-1, width // 2, 2)).transpose(axis + 1, axis + 2).flatten(axis, axis + 2)",
        "lambda x: x",
        "interop",
    ),
    Mutant("interop/options.py", "if not private and key not in known", "if False", "interop"),
    Mutant("interop/reading.py", "if Path(name).name != name:", "if False:", "interop"),
    Mutant("interop/windows.py", "every is not None and number % every == first", "every is not None", "interop"),
    Mutant("interop/families.py", "None if width * heads == dim else width", "None", "interop"),
    Mutant(
        "interop/rotary.py", '"position.local_base": near["position.base"]', '"position.local_base": None', "interop"
    ),
    Mutant("interop/vocabulary.py", 'bool(said.get("do_lower_case", True))', "True", "interop"),
    Mutant("interop/vocabulary.py", "else OTHER + name", "else name", "interop"),
    Mutant("interop/published.py", "if path and Path(path).name != path:", "if False:", "interop"),
    Mutant("finished/to_onnx.py", "causal, window) & mask[:, None, None]", "causal, window)", "interop"),
    Mutant(
        "data/store.py", "iter(tokenizer.reading.encode_batch(read))", "iter(tokenizer.encode_batch(read))", "interop"
    ),
    Mutant("interop/hub.py", "and not Path(found[1]).exists()", "", "interop"),
    Mutant("run/transfer.py", "if key not in MAY_DIFFER and", "if key in MAY_DIFFER and", "run/test_transfer.py"),
    # Positions
    Mutant(f"{POSITIONS}/alibi.py", "return -self.slopes", "return self.slopes", "models/test_layers.py"),
    Mutant(
        f"{POSITIONS}/relative.py", "half if offset > 0 else 0", "half if offset < 0 else 0", "models/test_positions.py"
    ),
    Mutant(
        f"{POSITIONS}/rotary.py",
        "torch.view_as_complex(pairs) * torch.view_as_complex(turn)",
        "torch.view_as_complex(pairs) * torch.view_as_complex(turn).conj()",
        "models/test_layers.py",
    ),
    Mutant(f"{POSITIONS}/rotary.py", "Rotary(**self.sizes, base=self.local_base)", "self", "models/test_positions.py"),
    Mutant(
        f"{POSITIONS}/sinusoidal.py",
        "(turns.sin(), turns.cos())",
        "(turns.cos(), turns.sin())",
        "models/test_layers.py",
    ),
    Mutant(f"{POSITIONS}/rotary_ntk.py", "width / (width - 2)", "1", "models/test_positions.py"),
    # Layers and stack
    Mutant(
        "models/blocks.py",
        "return x + self.dropout(self.layer(self.norm(x), *context))",
        "return x + self.dropout(self.layer(x, *context))",
        MODELS,
    ),
    Mutant(
        "models/blocks.py",
        "return self.norm(x + self.dropout(self.layer(x, *context)))",
        "return x + self.norm(self.dropout(self.layer(x, *context)))",
        MODELS,
    ),
    Mutant("models/layers/feed_forward.py", "return positive * positive", "return positive", MODELS),
    Mutant(
        "models/layers/feed_forward.py",
        "F.silu(self.gate(x)) * self.up(x)",
        "F.silu(self.up(x)) * self.gate(x)",
        MODELS,
    ),
    Mutant("models/layers/attention.py", "bias=bias if out_bias is None else out_bias", "bias=bias", MODELS),
    Mutant("models/layers/dropout.py", "256 / (256 - dropped)", "1.0", "models/test_layers.py"),
    Mutant("models/stack.py", "index % global_every == global_first", "index % global_every == 1", MODELS),
    Mutant("models/stack.py", '"scaled": len(every) ** -0.5', '"scaled": 1.0', MODELS),
    # Heads and losses
    Mutant(
        "models/token_loss.py", "weight_grad.addmm_(p.T, states)", "weight_grad.addmm_(p.T, states, beta=0)", MODELS
    ),
    Mutant(
        "models/token_loss.py",
        "p.scatter_add_(1, targets, p.new_full((), smoothing - 1.0)",
        "p.scatter_add_(1, targets, p.new_full((), -1.0)",
        "models/test_layers.py",
    ),
    Mutant(
        "models/heads.py",
        "return layout.offsets[1:].long() - 1",
        "return layout.offsets[1:].long() - 2",
        "models/test_layers.py",
    ),
    Mutant(
        "models/heads.py",
        "return layout.sums(hidden) / layout.lengths[:, None]",
        "return layout.sums(hidden) / layout.longest",
        "models/test_layers.py",
    ),
    # Generation
    Mutant(
        "models/generation.py",
        "before = ranked.cumsum(-1) - ranked",
        "before = ranked.cumsum(-1)",
        "models/test_generation.py",
    ),
    Mutant(
        "models/generation.py",
        "log_p / ((5 + length) / 6)",
        "log_p / ((6 + length) / 6)",
        "models/test_architectures.py",
    ),
    Mutant("models/generation.py", "sampling.seed + index", "sampling.seed", "models/test_generation.py"),
    Mutant(
        "models/generation.py", "rows += [place * scores.shape[1] + parent", "rows += [place * scores.shape[1]", MODELS
    ),
    # Data
    Mutant("data/packing.py", "fitting = rooms >> length", "fitting = 0", "data/test_packing.py"),
    Mutant("data/packing.py", "ends - reached), dtype", "ends - starts), dtype", "data tasks"),
    Mutant(
        "data/plan.py",
        "epoch, place = divmod(number, self.steps_per_epoch)",
        "epoch, place = 0, number % self.steps_per_epoch",
        "data/test_plan.py",
    ),
    Mutant(
        "data/plan.py",
        "while (outside := shuffled >= self.num_units).any():",
        "if (outside := shuffled >= self.num_units).any():",
        "data/test_plan.py",
    ),
    Mutant(
        "data/steps.py",
        "self.plan.step(number)[self.rank :: self.world_size]",
        "self.plan.step(number)",
        "training/test_training.py run/test_ranks.py",
    ),
    Mutant(
        "data/steps.py",
        "self.plan.key(number // self.plan.steps_per_epoch)",
        "self.plan.key(0)",
        "data training/test_training.py",
    ),
    Mutant(
        "data/masking.py",
        "self.probability * per_sequence[own]",
        "self.probability * len(tokens)",
        "data/test_masking.py",
    ),
    Mutant(
        "data/masking.py",
        "hidden[indices[kind < MASKED]] = self.mask",
        "hidden[indices] = self.mask",
        "data/test_masking.py",
    ),
    Mutant("data/segments.py", "np.count_nonzero(counts) == 1", "False", "data/test_segments.py"),
    Mutant("data/sentences.py", "if WIDE.match(mark):", "if False:", "data/test_languages.py"),
    Mutant("data/tokenizers.py", r"[\p{L}\p{M}\u200c\u200d]*|", r"\p{L}*|", "data/test_languages.py"),
    Mutant("data/overlap.py", "folded - self.exact", "folded", "data/test_store.py test_cells.py"),
    # Tasks
    Mutant(f"{TASKS}/language_modeling.py", "before[at == 0] = self.end", "pass", "tasks data"),
    Mutant(
        f"{TASKS}/language_modeling.py",
        "loss / math.log(2) / corpus.bytes_per_token",
        "loss / corpus.bytes_per_token",
        "training/test_evaluation.py",
    ),
    Mutant(f"{TASKS}/translation.py", "target[1:] = labels[:-1]", "target[:] = labels", f"tasks {MODELS}"),
    Mutant(
        f"{TASKS}/translation.py",
        "(begins + sources.lengths)[targets.sequence]",
        "(begins + sources.lengths - 1)[targets.sequence]",
        f"tasks training/test_evaluation.py {MODELS}",
    ),
    Mutant(
        f"{TASKS}/mlm_nsp.py",
        "types[ranges(begins, counts + 1)] = 1",
        "types[ranges(begins, counts)] = 1",
        "data/test_segments.py",
    ),
    Mutant(
        f"{TASKS}/classification_report.py",
        "cells = (true * size + said).long()",
        "cells = (true + size * said).long()",
        "tasks/test_classification.py",
    ),
    Mutant(
        f"{TASKS}/classification_report.py",
        "f1[:-1][ordered[:-1] == ordered[1:]] = 0",
        "f1[:-1][ordered[:-1] != ordered[1:]] = 0",
        "tasks/test_classification.py",
    ),
    Mutant(
        f"{TASKS}/regression.py",
        "counts.cumsum(0) - counts / 2",
        "counts.cumsum(0) - counts",
        "tasks/test_regression.py",
    ),
    Mutant(
        f"{TASKS}/regression.py", 'losses["values"] * self.deviation**2', 'losses["values"]', "tasks/test_regression.py"
    ),
    # Scores and how sure they are
    Mutant(
        "training/evaluation.py",
        "drawn = np.bincount(draws.integers(count, size=count)",
        "drawn = np.bincount(draws.integers(count, size=count // 4)",
        "training/test_intervals.py",
    ),
    Mutant(
        "scores.py",
        "[(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]",
        "[1 - CONFIDENCE, CONFIDENCE]",
        "training/test_intervals.py",
    ),
    Mutant(
        "finished/comparison.py",
        'np.array(other["resamples"][name]) - np.array(values)',
        'np.array(values) - np.array(other["resamples"][name])',
        "training/test_intervals.py",
    ),
    Mutant(
        "data/packing.py",
        'places, side="right") - 1',
        'places, side="left") - 1',
        "training/test_evaluation.py",
    ),
    # Training
    Mutant(
        "training/module.py",
        "loss / num_targets[name] for name",
        "loss / len(step.micro_batches) for name",
        "training/test_training.py",
    ),
    Mutant(
        "training/module.py",
        "torch.default_generator.manual_seed(seed)",
        "pass",
        "run/test_resume.py training/test_training.py",
    ),
    Mutant(
        "training/module.py",
        "rank(metrics, self.best_by) > rank(",
        "rank(metrics, self.best_by) < rank(",
        "run/test_best.py",
    ),
    Mutant("training/optimizers.py", "math.sqrt(max(1, rows / columns))", "1", "training/test_optimizers.py"),
    Mutant(
        "training/optimizers.py",
        "(0.0, [p for p in every if p.ndim < 2])",
        "(weight_decay, [p for p in every if p.ndim < 2])",
        "training/test_optimizers.py",
    ),
    Mutant(
        "training/optimizers.py", "layer_decay**depth", "layer_decay ** (top - depth)", "training/test_optimizers.py"
    ),
    Mutant(
        "training/schedules.py",
        "return (step + 1) / self.warmup_steps",
        "return step / self.warmup_steps",
        "training/test_schedules.py",
    ),
    Mutant(
        "training/schedules.py",
        "(1 - math.cos(math.pi * ahead)) / 2",
        "1 - math.cos(math.pi * ahead / 2)",
        "training/test_schedules.py",
    ),
    Mutant("training/averages.py", "1 - kept)", "kept)", "run/test_resume.py"),
    Mutant(
        "training/checkpoints.py",
        "whole >= self.keep",
        "whole > self.keep",
        "training/test_checkpoints.py",
    ),
    Mutant("scores.py", "-metrics[by] if by.endswith(LOSSES) else metrics[by]", "metrics[by]", "run/test_best.py"),
    # Words and configs
    Mutant(
        "composition/checks.py",
        "case Above(bound) if value <= bound:",
        "case Above(bound) if value < bound:",
        "composition",
    ),
    Mutant(
        "composition/earlier_runs.py",
        "if role.get(key) is not Role.PROCESS}",
        "}",
        "composition/test_earlier_runs.py",
    ),
    Mutant(
        "composition/earlier_runs.py",
        "        elif role[group] not in fixed:",
        "        else:",
        "composition/test_earlier_runs.py",
    ),
    Mutant("composition/words.py", "found[1] * 2", "found[1]", "test_api.py"),
]


def noticed(mutant: Mutant, place: Path) -> bool:
    """Whether a test fails on a copy of the project, at `place`, with this slip in it."""
    file = place / "transformer_lab" / mutant.file
    text = file.read_text(encoding="utf-8")
    assert text.count(mutant.before) == 1, f"{mutant.file}: {mutant.before} does not stand there once"
    file.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")
    try:
        words = [*PYTEST, *(f"tests/{name}" for name in mutant.tests.split())]
        done = subprocess.run(
            words, cwd=place, env=os.environ | {"PYTHONPATH": str(place)}, capture_output=True, text=True
        )
    finally:
        file.write_text(text, encoding="utf-8")
    if not re.search(r"\d (passed|failed)", done.stdout):  # no test has been asked
        raise RuntimeError(done.stdout + done.stderr)
    return done.returncode == 1


def main(parts: list[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not parts or any(part in mutant.file for part in parts)]
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(cores) as threads:
        free: Queue[Path] = Queue()
        for core in range(cores):
            free.put(Path(folder) / str(core))
            shutil.copytree(
                ROOT, Path(folder) / str(core), ignore=shutil.ignore_patterns(".*", "outputs", "__pycache__")
            )

        def judge(mutant: Mutant) -> bool:
            place = free.get()
            try:
                return noticed(mutant, place)
            finally:
                free.put(place)

        missed = 0
        for mutant, found in zip(chosen, threads.map(judge, chosen), strict=True):
            missed += not found
            print("noticed" if found else "MISSED ", f"{mutant.file}: {mutant.before} -> {mutant.after}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} are noticed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
