"""Several runs side by side: `python scripts/compare.py runs=RUN_DIR,RUN_DIR`."""

import io
from pathlib import Path

from transformer_lab.script import answer


def main(*, runs: str, metric: str = "loss", output: str = "outputs/compare") -> None:
    """Draw the curves of several runs by tokens and by time, and list what differs in their configs.

    runs: the folders of the runs, separated by commas, or a glob such as outputs/sweeps/NAME/*
    metric: of the validations
    output: where the picture (.png) and the table (.md) go
    """
    from transformer_lab.comparison import folders, picture, read, table
    from transformer_lab.folders import replace
    from transformer_lab.terminal import plain

    places = folders(runs)
    if len(places) < 2:
        raise ValueError(f"runs: {runs} is {len(places)} run; two or more can be compared")
    names = [place.name for place in places]
    unique = len(set(names)) == len(names)
    found = [read(place, place.name if unique else str(place)) for place in places]
    drawn = picture(found, metric)
    target = Path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    image = io.BytesIO()
    drawn.savefig(image, dpi=120)
    replace(target.with_suffix(".png"), image.getvalue())
    replace(target.with_suffix(".md"), f"![curves]({target.name}.png)\n\n{table(found)}\n")
    print(plain(table(found)))
    print(f"\nwritten: {target.with_suffix('.png')} and {target.with_suffix('.md').name}")


if __name__ == "__main__":
    answer(main)
