"""On a GPU a model learns what it learns on a CPU. Skipped where there is none, but for what is compiled."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch._dynamo
from torch._dynamo.utils import counters

from tests.conftest import CELLS, batch_for, curves, small_task
from tests.programs import latest
from transformer_lab.models.layers.kernels import flex, reference, sdpa

ROOT = Path(__file__).parent.parent
LENGTHS = [[12, 30, 7, 25, 18], [9, 31, 31, 4], [20] * 6, [1, 2, 40, 33, 8, 15, 3]]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def same_task(cell, *words):
    """Two of them, alike to the bit, without dropout."""
    calm = ["model.dropout=0", *(["task.dropout=0"] if "classification" in cell else [])]
    return [small_task(*CELLS[cell], *calm, *words) for _ in range(2)]


def loss_and_gradient(task, batch, device="cpu", dtype=torch.float32):
    """All losses of a batch together, and all gradients end to end, on the CPU in single precision."""
    task, batch = task.to(device).train(), batch.to(device)
    task.zero_grad()
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        loss = torch.stack([loss / batch.num_targets[name] for name, loss in task(batch).losses.items()]).sum()
    loss.backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in task.parameters()]
    return loss.detach().cpu().double(), torch.cat([grad.flatten() for grad in grads]).cpu().double()


def assert_alike(found, expected, share):
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= share * other.norm()


@pytest.mark.parametrize("cell", ["translation", "mlm_nsp"])  # causal and crossing blocks, and others
def test_what_is_compiled_computes_the_same(cell):
    """Traced and differentiated as for any device; here without the compiler that makes machine code of it."""
    torch._dynamo.reset()
    plain, compiled = same_task(cell)
    compiled.compile(backend="aot_eager")
    for lengths in LENGTHS[:3]:
        batch = batch_for(plain, lengths)
        assert_alike(loss_and_gradient(compiled, batch), loss_and_gradient(plain, batch), 1e-5)


@torch._dynamo.config.patch(fail_on_recompile_limit_hit=True)
def test_no_program_of_a_run_is_left_out():
    """Training, validation, training again, whole and in half precision: PyTorch gives up at some number of programs,
    and from there on runs what is new as it stands."""
    torch._dynamo.reset()
    task = small_task(*CELLS["mlm_nsp"], "model.num_layers=3", "model.dropout=0.1")
    task.compile(backend="eager")
    some = [batch_for(task, lengths) for lengths in (*LENGTHS, [9, 9], [20, 7])]
    for training in (True, False, True):
        for mixed in (False, True):
            for batch in some:
                with torch.inference_mode(not training), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                    task.train(training)(batch)


@needs_gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype, share", [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("cell", CELLS)
def test_a_gpu_computes_what_a_cpu_computes(cell, dtype, share, compiled):
    torch._dynamo.reset()
    on_cpu, on_gpu = same_task(cell, "model.dim=64", "model.num_heads=4")
    if compiled:
        on_gpu.compile()
    for lengths in LENGTHS:
        batch = batch_for(on_cpu, lengths)
        expected = loss_and_gradient(on_cpu, batch)
        assert_alike(loss_and_gradient(on_gpu, batch, "cuda", dtype), expected, share)


@needs_gpu
@pytest.mark.parametrize(
    "words",
    [
        "norm=layer",
        "position=alibi",
        "position=relative",
        "model.num_kv_heads=1",
        "model.window=8",
        "residual=post_norm",
    ],
)
def test_every_part_serves_a_compiled_model_in_bf16(words):
    torch._dynamo.reset()
    on_cpu, on_gpu = same_task("language_modeling", "model.dim=64", "model.num_heads=2", words)
    on_gpu.compile()
    for lengths in LENGTHS:
        batch = batch_for(on_cpu, lengths)
        assert_alike(loss_and_gradient(on_gpu, batch, "cuda", torch.bfloat16), loss_and_gradient(on_cpu, batch), 0.05)


@needs_gpu
@pytest.mark.parametrize("cell, kinds", [("language_modeling", 1), ("mlm_nsp", 1), ("translation", 2)])
def test_a_kind_of_block_is_compiled_once(cell, kinds):
    """… for sequences of one length and once for all others, whatever the depth of a model and the size of batches."""
    torch._dynamo.reset()
    counters.clear()
    task = small_task(*CELLS[cell], "model.dim=64", "model.num_layers=3", "model.num_heads=2", "model.dropout=0.1")
    task.model.compile(dynamic=True)
    for lengths in LENGTHS:
        loss_and_gradient(task, batch_for(task, lengths), "cuda", torch.bfloat16)
    assert counters["stats"]["unique_graphs"] <= 2 * kinds


@needs_gpu
@pytest.mark.parametrize("heads, causal, window", [((4, 4), True, None), ((4, 2), False, None), ((4, 4), True, 7)])
def test_kernels_agree_with_the_reference_in_value_and_gradient(heads, causal, window):
    from transformer_lab.layout import Layout
    from transformer_lab.models.layers.kernels import varlen

    layout = Layout.of([300, 1, 640, 17, 130]).to("cuda")
    rules = {"queries": layout, "keys": layout, "causal": causal, "window": window, "bias": lambda *_: None}
    torch.manual_seed(0)
    inputs = [torch.randn(1088, number, 32, device="cuda") for number in (heads[0], heads[1], heads[1], heads[0])]

    def run(kernel, dtype):
        q, k, v = (x.to(dtype).requires_grad_() for x in inputs[:3])
        mixed = kernel.attend(q, k, v, **rules)
        return [
            mixed.detach().double(),
            *(x.double() for x in torch.autograd.grad(mixed, (q, k, v), inputs[3].to(dtype))),
        ]

    expected = run(reference, torch.float64)
    assert_alike(run(sdpa, torch.float32), expected, 1e-5)
    for kernel in (sdpa, varlen, flex):
        assert_alike(run(kernel, torch.bfloat16), expected, 0.01)


@pytest.fixture
def run(place, tmp_path):
    """Train on a small corpus in a folder of this name; the validation losses by step."""

    def run(name, *words):
        folder = tmp_path / name
        subprocess.run(
            [
                sys.executable,
                str(ROOT / "train.py"),
                *latest(
                    [
                        "data=text",
                        f"data.path={place}/corpus",
                        "tokenizer=bytes",
                        "model.dim=64",
                        "model.num_heads=2",
                        "model.num_layers=2",
                        "task.context=64",
                        "tokens_per_step=1024",
                        "max_steps=40",
                        "validate_every_steps=20",
                        "checkpoint.every_steps=20",
                        "allow_overlap=true",
                        f"cache_dir={place / 'cache'}",
                        f"run_dir={folder}",
                        *words,
                    ]
                ),
            ],
            check=True,
            capture_output=True,
        )
        return dict(curves(folder)["val/loss"])

    return run


@needs_gpu
@pytest.mark.parametrize(
    "words",
    [
        ["attention=varlen"],
        ["model.dim=60", "model.num_heads=6"],
        ["position=alibi"],
        ["position=relative", "model.window=16"],
        ["position=alibi", "model.num_heads=8"],
    ],
)
def test_a_kernel_serves_a_run_to_its_end(words, run):
    """… that is not compiled: its batches, of many sizes, its validations, samples and pictures. Heads of 8 and of 10
    are too narrow for flex and no multiple of 8 for varlen."""
    more = ["task.packing=documents", "tokens_per_step=640"]
    expected = run("cpu", "hardware=cpu", *more, *(word for word in words if "varlen" not in word))
    for step, loss in run("gpu", "hardware=gpu", "hardware.compile=false", *more, *words).items():
        assert loss == pytest.approx(expected[step], rel=0.01)


@needs_gpu
def test_a_run_on_a_gpu_learns_what_the_run_on_the_cpu_learns(run, tmp_path):
    """… to the end, also when it was cut short and goes on, and when its steps come in parts."""
    expected = run("cpu", "hardware=cpu")
    gpu = ["hardware=gpu"]
    found = {
        "compiled": run("gpu", *gpu),
        "in fp32": run("fp32", *gpu, "hardware.precision=fp32", "hardware.compile=false"),
        "in parts": run("parts", *gpu, "hardware.micro_batch_tokens=256", "hardware.activation_checkpointing=true"),
    }
    run("cut", *gpu, "max_steps=20", "schedule=constant")
    run("whole", *gpu, "schedule=constant")
    found["cut short"] = run("cut", *gpu, "schedule=constant", "resume=auto")
    for name, losses in found.items():
        wanted = dict(curves(tmp_path / "whole")["val/loss"]) if name == "cut short" else expected
        assert losses.keys() == wanted.keys()
        for step, loss in losses.items():
            assert loss == pytest.approx(wanted[step], rel=0.01), (name, step)
