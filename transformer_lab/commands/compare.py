"""Several runs side by side: `transformer-lab compare runs=RUN_DIR,RUN_DIR`."""

import io


def main(*, runs: str, metric: str = "loss", output: str = "outputs/compare") -> None:
    """Draw the curves of several runs by tokens and by time, list what differs in their configs, and test whether their
    scores differ from the first one's by more than chance.

    runs: the folders of the runs, separated by commas, or a glob such as outputs/sweeps/NAME/*
    metric: of the validations
    output: where the picture (.png) and the table (.md) go
    """
    from transformer_lab.finished.comparison import folders, picture, read, table, tests
    from transformer_lab.folders import place_for, replace
    from transformer_lab.terminal import plain

    paths, target = folders(runs), place_for(output)
    if len(paths) < 2:
        raise ValueError(f"runs: {runs} is {len(paths)} run; two or more can be compared")
    names = [path.name for path in paths]
    unique = len(set(names)) == len(names)
    found = [read(path, path.name if unique else str(path)) for path in paths]
    drawn = picture(found, metric)
    image = io.BytesIO()
    drawn.savefig(image, dpi=120)
    replace(target.with_suffix(".png"), image.getvalue())
    told = "\n\n".join(filter(None, [table(found), tests(found)]))
    replace(target.with_suffix(".md"), f"![curves]({target.name}.png)\n\n{told}\n")
    print(plain(told))
    print(f"\nwritten: {target.with_suffix('.png')} and {target.with_suffix('.md').name}")
