"""Pictures are matplotlib's, in its own style whatever lies in the folder that one is in."""

from pathlib import Path
from typing import Any


def new_figure(**options: Any) -> Any:
    """An empty figure; the options are those of `matplotlib.figure.Figure`."""
    import matplotlib  # here, for it costs half a second
    from matplotlib.figure import Figure

    if Path("matplotlibrc").exists():  # matplotlib has obeyed it: in a stranger's folder it could ask for LaTeX
        matplotlib.rcdefaults()
    return Figure(**options)
