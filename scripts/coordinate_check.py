"""Whether activations stay of one size in models of every width: `python scripts/coordinate_check.py`.

The check of muP (Yang et al., 2022, arXiv:2203.03466, appendix D.1): a few steps of AdamW at one learning rate, and
after each how large what the parts write is, on average.
"""

from pathlib import Path
from typing import Any, Literal

from transformer_lab.composition.script import answer

TASKS = {"decoder": "language_modeling", "encoder": "mlm_nsp", "seq2seq": "translation"}
WIDTHS = (64, 128, 256, 512)
STEPS, TOKENS = 4, 512
CHECKED = (
    "optimizer=adamw",
    "optimizer.lr=0.01",
    "optimizer.weight_decay=0",
    "model.residual_init=scaled",
    "model.qk_norm=false",
)


def main(
    *, model: Literal["decoder", "encoder", "seq2seq"] = "decoder", output: str = "outputs/coordinate_check.png"
) -> None:
    """Draw the size of activations by width after each step, with muP and without.

    model: whose
    output: the picture
    """
    from transformer_lab.figures import new_figure

    figure = new_figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, mup in zip(axes, (False, True), strict=True):
        found = {width: sizes(*learner(model, width, mup)) for width in WIDTHS}
        for step in range(STEPS + 1):
            for style, part in zip(("-", "--", ":"), found[WIDTHS[0]][0], strict=False):
                label = f"{part}, step {step}"
                axis.plot(WIDTHS, [found[width][step][part] for width in WIDTHS], style, color=f"C{step}", label=label)
        axis.set(xscale="log", yscale="log", xlabel="width", title="muP" if mup else "without")
        axis.minorticks_off()
        axis.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
    axes[0].set_ylabel("mean absolute value")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right", fontsize="x-small")
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=120)
    print(f"written: {output}")


def learner(model: str, width: int, mup: bool) -> tuple[Any, Any, Any]:
    """A task on the data that it has by default, its optimizer and a batch: the same for all widths."""
    from benchmarks.setting import config

    from transformer_lab.composition.build import build, build_optimizer
    from transformer_lab.run.assembly import build_loaders
    from transformer_lab.run.preparation import prepare_task
    from transformer_lab.training.progress import Progress

    values = config(
        f"task={TASKS[model]}",
        f"model.dim={width}",
        f"model.mup={str(mup).lower()}",
        "hardware=cpu",
        f"tokens_per_step={TOKENS}",
        *CHECKED,
    )
    made = prepare_task(values)
    loaders, _ = build_loaders(values, made.task, made.store, build(values["hardware"]), Progress())
    return made.task, build_optimizer(values["optimizer"], made.task), loaders.steps[0].micro_batches[0]


def sizes(task: Any, optimizer: Any, batch: Any) -> list[dict[str, float]]:
    """Before the first step and after each: the mean absolute value of what blocks, attention and the head write."""
    seen: dict[str, float] = {}

    def note(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            seen[name] = float(output.detach().abs().mean())

        return hook

    block = getattr(task.model, "decoder", task.model).blocks[-1]
    block.register_forward_hook(note("last block"))
    block.attention.layer.register_forward_hook(note("its attention"))
    loss = task.head.loss

    def with_logits(hidden: Any, *more: Any) -> Any:
        seen["logits"] = float(task.head(hidden).detach().abs().mean())
        return loss(hidden, *more)

    task.head.loss = with_logits
    found = []
    for _ in range(STEPS + 1):
        total = sum(task(batch).losses.values()) / sum(batch.num_targets.values())
        found.append(dict(seen))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return found


if __name__ == "__main__":
    answer(main)
