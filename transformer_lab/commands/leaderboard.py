"""The trials of a sweep, best first: `transformer-lab leaderboard sweep=FOLDER`, at any time."""

from pathlib import Path


def main(*, sweep: str) -> None:
    """Print the trials of a sweep, best first, and write them to leaderboard.csv and leaderboard.md in its folder.

    sweep: the sweep's folder
    """
    from transformer_lab.folders import refuse_links
    from transformer_lab.sweeps.leaderboard import Leaderboard
    from transformer_lab.terminal import console

    refuse_links(Path(sweep), "sweep")
    found = Leaderboard.read(Path(sweep))
    console().print(found.table())
    found.write(Path(sweep))
