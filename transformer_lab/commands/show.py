"""What is in a run: `transformer-lab show run=RUN_DIR`."""

from typing import Any, Literal


def main(*, run: str, checkpoint: Literal["best", "last"] = "best", depth: int = 2, config: bool = True) -> None:
    """Show the checkpoints of a run, whether each is whole, and what one of them holds.

    run: the folder of the run
    checkpoint: the one to look into
    depth: how finely parameters are listed: 1 is the parts of the task, 2 the parts of its model
    config: show the config too
    """
    from rich.table import Table

    from transformer_lab.finished.contents import contents
    from transformer_lab.terminal import console as screen
    from transformer_lab.terminal import one_line, plain

    if depth < 1:
        raise ValueError(f"depth: {depth} is too small; at least 1")
    console = screen()
    found = contents(run, checkpoint)
    table = Table(title="Checkpoints", title_justify="left")
    for heading in ("step", "integrity", "MB", ""):
        table.add_column(heading, justify="right" if heading in ("step", "MB") else "left")
    for step, integrity, size, marks in found.checkpoints:
        table.add_row(f"{step:,}", one_line(integrity), f"{size / 1e6:.1f}", marks)
    console.print(table)
    for title, facts in found.tables.items():
        line = one_line(f"{title}: {', '.join(map(_fact, facts.items()))}")
        console.print(line, highlight=False, soft_wrap=True)
    table = Table("module", title="Parameters", title_justify="left")
    table.add_column("number", justify="right")
    table.add_column("type")
    sizes: dict[tuple[str, str], int] = {}
    for name, (size, kind) in found.parameters.items():
        key = ".".join(name.split(".")[:depth]), kind
        sizes[key] = sizes.get(key, 0) + size
    for (name, kind), size in sizes.items():
        table.add_row(one_line(name), f"{size:,}", kind)
    table.add_row("all", f"{sum(sizes.values()):,}", "")
    console.print(table)
    if config:
        console.print(plain(found.config), highlight=False, soft_wrap=True)


def _fact(fact: tuple[str, Any]) -> str:
    name, value = fact
    return f"{name.replace('_', ' ')} {f'{value:.4g}' if isinstance(value, float) else value}"
