"""From Python and from notebooks: `import transformer_lab as tl`, then `tl.train(…)`, `tl.load(…)`, `tl.config(…)`."""

import gc
import hashlib
import json
import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from transformer_lab.composition.command_line import composed
from transformer_lab.composition.problems import Refused
from transformer_lab.composition.words import written
from transformer_lab.data.examples import Split
from transformer_lab.data.steps import Batch
from transformer_lab.figures import Figures
from transformer_lab.finished.loaded_run import LoadedRun, evaluate_file, evaluate_run, load_run
from transformer_lab.folders import replace
from transformer_lab.run.folder import candidates
from transformer_lab.scores import METRICS
from transformer_lab.terminal import CACHE
from transformer_lab.training.evaluation import Evaluation


def config(*words: str, **values: Any) -> dict[str, Any]:
    """The checked config of a run, as `python train.py WORDS` would have it: dicts and lists.

    `words` are those of the command line, `"task=translation"`, `"model.dim=64"`; `values` set keys of the run,
    `max_steps=200`. Raises ValueError with all that is wrong, a line each.
    """
    every = [*words, *(f"{key}={written(value)}" for key, value in values.items())]
    if not any(word.partition("=")[0].lstrip("+") == "cache_dir" for word in every):
        every.append(f"cache_dir={written(str(_cache()))}")
    return composed(every)


def train(*words: str, data: Any = None, **values: Any) -> "Run":
    """Train a model and return the run; words and values are those of `config`.

    `data` are examples in place of a data set: texts for language modelling and MLM, `(text, label)`,
    `(text, [labels])` or `((text, text), label)` for classification, `(text, number)` for regression,
    `(source, target)` for translation; a twentieth of them validates and another one tests, or
    `"data.validation=0.2"`. They are written into the cache, so that the run can be gone on with.

    Raises ValueError for what has to be changed, in lines that name the keys; RuntimeError for a run that cannot go on;
    KeyboardInterrupt where it was interrupted, which has saved the step and says how the run goes on.
    """
    from transformer_lab.composition.build import refuse_giants, rehearse
    from transformer_lab.run.launch import launch
    from transformer_lab.run.report import close_log
    from transformer_lab.training.signals import EXIT

    found = config(*words, *(_data_words(words, data) if data is not None else ()), **values)
    task = rehearse(found)
    if found["plan"] or found["preview"]:
        raise ValueError(f"{'plan' if found['plan'] else 'preview'}: of the command line; tl.train trains")
    refuse_giants(task)
    if found["run_dir"] is None:
        found["run_dir"] = str(_free_folder(found["name"]))
    again = f"tl.train(run_dir={found['run_dir']!r}, resume='auto')"
    try:
        launch(found)
    except Refused as error:
        kind = ValueError if error.code == 2 else RuntimeError
        raise kind("\n".join(error.lines)) from None
    except SystemExit as stop:
        if stop.code != EXIT + signal.SIGINT:  # told to leave, as by SIGTERM
            raise
        raise KeyboardInterrupt(f"the step is saved; {again} goes on") from stop
    finally:
        close_log()
        gc.collect()  # Lightning's objects know each other, and the files that they have read are open until they go
    return load(found["run_dir"], extensions=found["extensions"])


def load(folder: str | os.PathLike[str], *, extensions: Sequence[str] = ()) -> "Run":
    """A finished run, from its folder, with its best weights. Raises ValueError where it cannot be used."""
    return Run(Path(folder), load_run(str(folder), list(extensions)))


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run: what it reached, and what can be done with its model."""

    folder: Path
    loaded: LoadedRun

    def __repr__(self) -> str:
        scores = self.metrics.get("test") or self.metrics["validation"]
        told = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in scores.items())
        return (
            f"Run of {self.task.name} in {self.folder}: {'test' if self.metrics.get('test') else 'validation'} {told}"
        )

    @property
    def task(self) -> Any:
        """The task with its model (`run.task.model`) and tokenizer, PyTorch modules like any other."""
        return self.loaded.task

    @property
    def config(self) -> dict[str, Any]:
        return self.loaded.config

    @property
    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds: scores of the validation and of the test, steps, tokens, seconds."""
        return dict(json.loads((self.folder / METRICS).read_text(encoding="utf-8")))

    def curve(self, *names: str) -> Any:
        """A figure of the run's curves; `names` are those of its `curves.csv`, without any the losses."""
        from transformer_lab.finished.comparison import curves_picture

        return curves_picture(self.folder, names)

    def predict(self, text: str | Sequence[str], **options: Any) -> Any:
        """What the model makes of a text: a dict, as `predict.py json=true` writes it; of several, a list of them."""
        texts = [text] if isinstance(text, str) else list(text)
        found = self.loaded.predict(texts, **options)
        return found[0] if isinstance(text, str) and len(found) == 1 else found

    def evaluate(self, split: Split = "test", *, file: str | None = None, hardware: str = "auto") -> "Scores":
        """The scores of a split of the run's data, or of all of a file."""
        if file is not None:
            return Scores(evaluate_file(self.loaded, file, hardware), file)
        return Scores(evaluate_run(self.loaded, split, hardware), split)

    def batch(self, examples: Iterable[Any]) -> "ShownBatch":
        """Examples as one batch, as the model sees them; a notebook shows it with borders, masks and segments."""
        found = [self.task.example(one) for one in examples]
        return ShownBatch(self.task, self.task.batch(found))

    def show(self, example: Any) -> str:
        """One example as the model sees it, in text."""
        return self.batch([example]).text

    def attention(self, example: Any, *, layers: Sequence[int] = (-1,), heads: Sequence[int] | None = None) -> Figures:
        """What some layers look at in an example: figures by kind of layer, of a translation the alignment, too."""
        from transformer_lab.training.pictures import attention_maps, attention_picture, chosen

        found, _ = attention_maps(self.task, self.batch([example]).batch)
        kinds = chosen(found, layers)
        return Figures({kind: attention_picture(some, heads) for kind, some in kinds.items()})


class Scores(dict[str, float]):
    """What was scored, by its name; a notebook shows it with its intervals, the tables and the hardest texts."""

    def __init__(self, found: Evaluation, title: str) -> None:
        super().__init__(found.metrics)
        self.found, self.title = found, title

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Of each score, between which values 95 % of its resamples lie."""
        return self.found.intervals

    @property
    def tables(self) -> dict[str, list[dict[str, Any]]]:
        return self.found.tables

    @property
    def mistakes(self) -> list[dict[str, Any]]:
        """The hardest texts, and what the model made of them."""
        return self.found.mistakes

    @property
    def pictures(self) -> Figures:
        return Figures(self.found.task.pictures(self.found.texts))

    def _repr_markdown_(self) -> str:
        from transformer_lab.training.evaluation_report import markdown

        return markdown(self.found, self.title, {})


@dataclass(frozen=True, repr=False)
class ShownBatch:
    """A batch, and how it looks."""

    task: Any
    batch: Batch

    @property
    def text(self) -> str:
        return str(self.task.show(self.batch))

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        from transformer_lab.training.pictures import pieces_of

        rows = [
            "".join(_span(piece, kind) for piece, kind in sequence) for sequence in pieces_of(self.task, self.batch)
        ]
        return (
            f'<div style="line-height: 2; font-family: monospace">{"".join(f"<div>{row}</div>" for row in rows)}</div>'
        )


def _data_words(words: Sequence[str], examples: Iterable[Any]) -> list[str]:
    """The words that name these examples, once they lie in a file of the cache: as the task reads them."""
    task = next((word.partition("=")[2] for word in words if word.startswith("task=")), "language_modeling")
    source, columns = SOURCES.get(task, ("text", ("text",)))
    lines, pairs = [], False
    for number, one in enumerate(examples):
        cells = (one,) if isinstance(one, str) else tuple(one)
        if pairs := source == "labeled" and len(cells) == 2 and isinstance(cells[0], (tuple, list)):
            cells, columns = (*cells[0], cells[1]), ("text", "second", "label")
        if len(cells) != len(columns):
            raise ValueError(f"data[{number}]: {one!r:.60}: {task} reads ({', '.join(columns)})")
        lines.append(json.dumps(dict(zip(columns, cells, strict=True)), ensure_ascii=False) + "\n")
    text = "".join(lines)
    file = _cache() / f"examples-{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
    if not file.is_file():  # what is prepared of it would be prepared anew
        file.parent.mkdir(parents=True, exist_ok=True)
        replace(file, text)
    named = [f"data.{column}={column}" for column in columns] if source == "parallel" else []
    return [f"data={source}", f"data.path={written(str(file))}", *named, *(["data.pair_columns=[text,second]"] * pairs)]


def _free_folder(name: str) -> Path:
    """A new, empty folder for a run."""
    for folder in candidates(name):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError


# What reads the examples of a task, and under which names they lie there.
SOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "classification": ("labeled", ("text", "label")),
    "regression": ("labeled", ("text", "label")),
    "translation": ("parallel", ("source", "target")),
}
COLOURS = {"text": "#e8eef7", "second": "#fdebd3", "special": "#dddddd", "hidden": "#f6c1c1"}


def _span(piece: str, kind: str) -> str:
    style = f"background: {COLOURS[kind]}; border-radius: 3px; padding: 1px 3px; margin: 1px; white-space: pre"
    return f'<span style="{style}" title="{kind}">{escape(piece)}</span>'


def _cache() -> Path:
    """One for all notebooks of a user, wherever they lie."""
    if chosen := os.environ.get(CACHE):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "transformer_lab"
