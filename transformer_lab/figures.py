"""Pictures are matplotlib's, in its own style whatever lies in the folder that one is in; any script can be read."""

import logging
import warnings
from base64 import b64encode
from functools import cache
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
BOXES = "Last Resort"  # how the font is called that has a box for every letter


def new_figure(**options: Any) -> Any:
    """An empty figure, which a notebook shows; the options are those of `matplotlib.figure.Figure`."""
    import matplotlib  # here, for it costs half a second
    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            return png(self)

    if Path("matplotlibrc").exists():  # matplotlib has obeyed it: in a stranger's folder it could ask for LaTeX
        matplotlib.rcdefaults()
    matplotlib.rcParams["text.parse_math"] = False  # what stands between two dollar signs is no formula
    return Shown(**options)


def png(figure: Any) -> bytes:
    image = BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()


class Figures(dict[str, Any]):
    """Figures by their names; a notebook shows all of them."""

    def _repr_html_(self) -> str:
        images = {name: b64encode(png(figure)).decode() for name, figure in self.items()}
        return "".join(f'<p>{escape(name)}</p><img src="data:image/png;base64,{x}">' for name, x in images.items())


def legible(figure: Any) -> Any:
    """The figure, its texts in fonts that have their letters, where such are installed; where not, a line says so."""
    from matplotlib.text import Text

    warnings.filterwarnings("ignore", message="Glyph .* missing from")  # else one for each letter in each picture
    texts = figure.findobj(Text)
    families = _families(frozenset(ord(letter) for text in texts for letter in text.get_text() if letter.isprintable()))
    for text in texts:
        text.set_fontfamily(families)
    return figure


@cache
def _families(letters: frozenset[int]) -> list[str]:
    """matplotlib's own font, and others that together have most of the letters that it lacks."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    chosen = list(rcParams["font.family"])
    missing = letters - _has(findfont(FontProperties(family=chosen)))
    files = {font.fname: font.name for font in fontManager.ttflist if not font.name.startswith(BOXES)}
    while missing and files:
        best = max(sorted(files), key=lambda file: len(missing & _has(file)))
        if not missing & _has(best):
            break
        missing -= _has(best)
        chosen.append(files[best])
    if missing:
        _say_lacking("".join(map(chr, sorted(missing)[:10])))
    return chosen


@cache
def _has(file: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    try:
        return frozenset(get_font(file).get_charmap())
    except (OSError, RuntimeError):  # a font that cannot be read
        return frozenset()


told: list[str] = []  # the letters of the one warning


def _say_lacking(letters: str) -> None:
    if not told:
        told.append(letters)
        log.warning("Pictures show boxes for letters that no font here has, such as %s: Noto Sans has them", letters)
