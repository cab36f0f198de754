"""The words after `python train.py`: composed as Hydra will, checked before it does, explained by `--help`."""

import os
import re
import shlex
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from transformer_lab.composition.checks import (
    fail,
    full_error,
    nearest,
    problems,
    sweeper_keys,
    sweeper_problems,
    unknown,
)
from transformer_lab.composition.help_page import comments, page
from transformer_lab.composition.importing import importable
from transformer_lab.composition.signatures import UNKNOWN, shown
from transformer_lab.renamed import config_of_today

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"
LAUNCHERS = {"joblib": "hydra-joblib-launcher", "submitit": "hydra-submitit-launcher"}
COMBINATIONS = 32  # of a sweep, checked one by one; of a larger one every value (see `Space.samples`)


def preflight(argv: list[str], *, configs: Path = CONFIGS) -> tuple[list[str], Any]:
    """The words for Hydra, and the config of a single run; None where Hydra itself is to act, as in a sweep.

    Where that cannot be built, every problem in a line, and exit code 2.
    """
    if any(word.lower() == "debug=true" for word in argv):  # `debug` is a group too: sanity, overfit
        os.environ["HYDRA_FULL_ERROR"] = "1"
    words = [word for word in argv if word.lower() not in ("debug=true", "debug=false")]
    try:
        line = CommandLine(words, configs)
        if line.args.help:
            with suppress(BrokenPipeError):  # of a reader that has seen enough
                print(line.help(), flush=True)
            raise SystemExit(0)
        if line.args.hydra_help or line.args.shell_completion or line.args.info or line.args.cfg:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Hydra prints, and that is all: to `| head`, for instance
        if line.args.hydra_help or line.args.shell_completion or line.args.info:
            return words, None
        words = line.rewritten()
        line.check()
    except Exception as error:
        if full_error():
            raise
        fail([one_line(error)])
    if line.found:
        fail(dict.fromkeys(line.found))
    if line.multirun:
        from transformer_lab.sweeps.sweeper import register

        register()
    hydra = line.multirun or line.args.cfg or any(key.startswith("hydra") for key in line.given)
    return words, None if hydra else line.config()


def defaults() -> dict[str, Any]:
    """The config of a run of which nothing is named."""
    found: dict[str, Any] = plain(CommandLine([], CONFIGS)._compose([]), "", [])
    return found


class CommandLine:
    def __init__(self, words: list[str], configs: Path) -> None:
        from hydra import version
        from hydra._internal.utils import get_args_parser
        from hydra.core.utils import JobRuntime, setup_globals

        version.setbase("1.3")
        setup_globals()
        JobRuntime().set("name", "train")
        parser = get_args_parser()
        flags = [flag for action in parser._actions for flag in action.option_strings]
        strange = [w for w in words if re.match(r"--?[a-z]", w) and w.partition("=")[0] not in flags]
        if strange:
            fail(unknown(word, "flag", flags, ["--help", "--multirun", "--cfg"]) for word in strange)
        parser.error = lambda message: fail([message])  # type: ignore[method-assign]
        self.args = parser.parse_intermixed_args(words)
        if self.args.experimental_rerun:
            raise ValueError("--experimental-rerun: refused; the file it reads can run anything")
        self.flags = list(words)
        for word in self.args.overrides:
            self.flags.remove(word)
        self.multirun = self.args.multirun or "hydra.mode=MULTIRUN" in words
        self.primary = self.args.config_name or "train"
        self.found: list[str] = []
        self.given: dict[str, str] = {}  # of each key, its word as it was typed
        self.words: dict[str, list[str]] = {}  # of each key: its word, and what that means in a sweep
        self.wrong: set[str] = set()  # groups with an option that does not exist
        self.composed: Any = None  # of the words that were judged last
        self.typed: set[str] = set()  # extensions named right here
        self._open(configs.parent / self.args.config_path if self.args.config_path else configs)

    def _open(self, configs: Path) -> None:
        """Hydra's own search path and parser, so that the check reads what the run will read."""
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra._internal.utils import create_config_search_path
        from hydra.core.config_search_path import SearchPathQuery
        from hydra.core.object_type import ObjectType
        from hydra.core.override_parser.overrides_parser import OverridesParser

        path = create_config_search_path(f"file://{configs}")
        if self.args.config_dir:
            folder = f"file://{os.path.abspath(self.args.config_dir)}"
            path.prepend("command-line", folder, SearchPathQuery(provider="schema"))
        self.loader = ConfigLoaderImpl(path)
        self.parser = OverridesParser.create(config_loader=self.loader)
        where = [word for word in self.args.overrides if word.startswith("hydra.searchpath=")]
        with warnings.catch_warnings(action="ignore"):
            _, self.repo = self.loader._parse_overrides_and_create_caching_repo(self.primary, where)
        if missing := [source.path for source in self.repo.get_sources() if not source.available()]:
            fail(f"{folder}: no such folder of configs" for folder in missing)
        self.groups = [x for x in self.repo.get_group_options("", ObjectType.GROUP) if x != "hydra"]

    def rewritten(self) -> list[str]:
        """`a.b=c` becomes `++a.b=c`: whether a key exists is for the signature to say, not for the YAML."""
        words = []
        for word in self.args.overrides:
            try:
                (override,) = self.parser.parse_overrides([word])
            except Exception:
                self.found.append(f"{word}: {unreadable(word)}")
                continue
            key, value = override.key_or_group, override.value()
            typed = word
            group = self.repo.group_exists(key) and not isinstance(value, dict)
            if not (group or override.is_delete() or override.is_hydra_override()):
                word = f"++{word.lstrip('+')}"
            if (before := self.given.setdefault(key, typed)) is not typed and not override.is_delete():
                self.found.append(f"{key}: given twice, by {before} and by {typed}; keep one")
            words.append(word)
            ways = self._ways(word)
            if len(ways) > 1 and not self.multirun:
                self.found.append(f"{key}: several values; {_several(typed)}")
                self.words[word.partition("=")[0]] = ways[:1]  # to look for other mistakes
            elif key == "sweep" and not (self.multirun or self.args.cfg):
                self.found.append(f"{word}: a sweep is run with -m: python train.py -m {word} …")
            elif not group or all([self._exists(key, x.partition("=")[2]) for x in ways if "=" in x]):
                self.words[word.partition("=")[0]] = [word, *ways]
            if key == "extensions":
                self.typed |= set(re.findall(r"\w+", word.partition("=")[2]))
                importable(self.typed)
        return [*self.flags, *words]

    def _ways(self, word: str) -> list[str]:
        """What a sweep makes of a word; of an interval, its two ends."""
        (override,) = self.parser.parse_overrides([word])
        if not override.is_sweep_override():
            return [word]
        if override.is_discrete_sweep():
            values: Iterable[Any] = islice(override.sweep_string_iterator(), 10_000)
        else:
            values = vars(override.value())["start"], vars(override.value())["end"]
        return [f"{override.get_key_element()}={value}" for value in values]

    def _exists(self, group: str, value: str) -> bool:
        for name in re.findall(r"[^\[\],\s'\"]+", value):
            folder, _, last = f"{group}/{name}".rpartition("/")
            options = self.repo.get_group_options(folder) if self.repo.group_exists(folder) else []
            if ".." in name or last.removesuffix(".yaml") not in options:
                options = self.repo.get_group_options(group)
                near = nearest(name, options)
                hint = f"did you mean {near}?" if near else f"there are {', '.join(options)}"
                if group == "hydra/launcher" and (package := LAUNCHERS.get(name.partition("_")[0])):
                    hint = f"pip install {package}"
                self.found.append(f"{group}={name}: no such option of {group}; {hint}")
                self.wrong.add(group)
        return group not in self.wrong

    def check(self) -> None:
        """Every combination of a sweep; of a large one, every value."""
        for words in self._told(self._trials) if self.multirun else [[word for word, *_ in self.words.values()]]:
            self._told(partial(self._judge, words))

    def _trials(self) -> list[list[str]]:
        """The words of some runs of a sweep, together with every value."""
        from transformer_lab.sweeps.space import Space

        first = self._compose([ways[0] for _, *ways in self.words.values()])
        params = self._sweeper(first.hydra.sweeper)
        words = [word for word, *_ in self.words.values()]
        space = Space(self.parser, params, words, self.groups)
        return [[*space.fixed.values(), *some] for some in space.samples(COMBINATIONS)]

    def _sweeper(self, section: Any) -> dict[str, Any]:
        """What files search; the section's problems are noted."""
        from omegaconf import OmegaConf

        values: Any = OmegaConf.to_container(section)
        self.found += sweeper_problems(values)
        return dict(values.get("params") or {})

    def _told(self, ask: Callable[[], list[list[str]] | None]) -> list[list[str]]:
        """What is asked for; an error is noted instead."""
        try:
            return ask() or []
        except Exception as error:
            if full_error():
                raise
            self.found.append(self._line(error))
            return []

    def _line(self, error: Exception) -> str:
        """In one line, with what the library leaves out: which file, and what may have been meant."""
        line = one_line(error)
        if isinstance(error, UnicodeDecodeError):
            files = [file for folder in self._folders() for file in folder.rglob("*.yaml")]
            line = ", ".join(str(x) for x in files if error.object in x.read_bytes()) + f": {line}"
        if match := re.search(r"Could not (?:find|override) '([\w/.]+)'", line):
            options = [f"{group}/{x}" for group in self.groups for x in self.repo.get_group_options(group)]
            near = nearest(match[1], [*self.groups, *options, *sweeper_keys()])
            line = line.partition("\n")[0].partition(". To append")[0]
            line = f"{line.rstrip('.')}; did you mean {near}?" if near else line
        return line

    def _folders(self) -> list[Path]:
        return [Path(source.path) for source in self.repo.get_sources() if source.scheme() == "file"]

    def _compose(self, words: list[str]) -> Any:
        from hydra.types import RunMode

        return self.loader.load_configuration(self.primary, words, RunMode.RUN)

    def _judge(self, words: list[str]) -> None:
        from hydra.core.hydra_config import HydraConfig

        self.composed = config = self._compose(words)
        HydraConfig.instance().cfg = config  # for ${hydra:…}
        unresolved: list[str] = []
        values = config_of_today(plain(config, "", unresolved))
        HydraConfig.instance().cfg = None
        found = [line for line in unresolved if not line.startswith("hydra.")]
        found += hydra_problems(values.pop("hydra"))
        found += problems(values, typed=self.typed, groups=self.groups)
        for line in found:
            section, _, key = line.partition(":")[0].partition(".")
            if section in self.wrong:
                continue
            if line.endswith("required, not set"):
                if self.args.cfg:  # showing a config is a way to see what it lacks
                    continue
                option = config.hydra.runtime.choices.get(section)
                _, about = comments(self._text(f"{section}/{option}")).get(key, ("", ""))
                line += f" ({about})" if about else ""
            self.found.append(line)

    def config(self) -> Any:
        """Of a single run, as Hydra would hand it over: its own part apart."""
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        HydraConfig.instance().set_config(self.composed)
        return OmegaConf.masked_copy(self.composed, [key for key in self.composed if key != "hydra"])

    def help(self) -> str:
        options = {group: self.repo.get_group_options(group) for group in self.groups}
        return page(
            self._text(self.primary),
            {group: {option: self._text(f"{group}/{option}") for option in names} for group, names in options.items()},
        )

    def _text(self, name: str) -> str:
        """The YAML of a group's option, or of the primary config, wherever it lies."""
        files = [folder / f"{name}.yaml" for folder in self._folders()]
        return next((file.read_text(encoding="utf-8") for file in files if file.is_file()), "")


def plain(node: Any, path: str, found: list[str]) -> Any:
    """The config as dicts and lists, with a line in `found` for every interpolation that leads nowhere."""
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

    if not isinstance(node, DictConfig | ListConfig):
        return node
    values: dict[Any, Any] = {}
    keys: Iterable[Any] = node if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        here = f"{path}.{key}".lstrip(".")
        if OmegaConf.is_missing(node, key):
            values[key] = "???"
            continue
        try:
            if here.count(".") > 20:
                raise RecursionError("the value contains itself")
            values[key] = plain(node[key], here, found)
        except InterpolationToMissingValueError:  # the missing value itself is a problem, and one is enough
            values[key] = UNKNOWN
        except (OmegaConfBaseException, RecursionError) as error:
            found.append(f"{here}: {str(error).splitlines()[0]}")
            values[key] = UNKNOWN
    return values if isinstance(node, DictConfig) else list(values.values())


SETTLED: dict[str, Any] = {
    "run.dir": ".",
    "output_subdir": None,
    "sweep.dir": "outputs",
    "sweep.subdir": ".",
    "job.env_set": {},
}
HARMLESS = {"logging.StreamHandler", "logging.NullHandler", "logging.Formatter", "ext://sys.stdout", "ext://sys.stderr"}


def hydra_problems(hydra: dict[str, Any]) -> Iterator[str]:
    """Hydra acts on its own part of a config before the run begins: a file could build and write there at will."""
    for path, value in SETTLED.items():
        found: Any = hydra
        for key in path.split("."):
            found = found.get(key)
        if found != value:
            yield f"hydra.{path}: expected {shown(value) or '{}'}, found {shown(found)}; Hydra itself writes nothing"

    def walk(path: str, key: str, value: Any) -> Iterator[str]:
        inner = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
        for name, item in inner.items():
            yield from walk(f"{path}.{name}", str(name), item)
        plugin = str(value).startswith(("hydra._internal.core_plugins.", "hydra_plugins."))
        names = key in ("class", "()") or str(value).startswith("ext://")
        if value is UNKNOWN or (key == "_target_" and not plugin) or (names and value not in HARMLESS):
            yield f"{path}: refused; Hydra would build {shown(value)} before anything is checked"

    for part in ("launcher", "sweeper", "callbacks", "job_logging", "hydra_logging"):
        yield from walk(f"hydra.{part}", part, hydra.get(part))


def _several(word: str) -> str:
    """What may have been meant by a word with several values: runs, a list, or one path with a comma in its name."""
    key, _, value = word.lstrip("+").partition("=")
    if "/" in value or "." in value.rpartition(",")[2] or Path(value).exists():
        return f"for one that has a comma in it, write {_in_quotes(key, value)}"
    return "add -m to run one after the other, or write a list in [brackets]"


def unreadable(word: str) -> str:
    """Why Hydra cannot read a word, and how it is written."""
    key, equals, value = word.partition("=")
    if not equals:
        return "expected key=value"
    for opening, closing in ("[]", "{}", "()"):
        if value.count(opening) != value.count(closing):
            return f"{opening} and {closing} do not match"
    if value[:1] in ("'", '"'):
        return f"the text does not end with its {value[0]}"
    return f"has characters that stand in quotes only: {_in_quotes(key, value)}"


def _in_quotes(key: str, value: str) -> str:
    """As it is written in a shell."""
    text = value.replace('"', r"\"")
    return shlex.quote(f'{key}="{text}"')


def one_line(error: BaseException) -> str:
    """What a library says in many lines; of a YAML error, file and line first."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark:
        file = Path(mark.name)
        file = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
        return f"{file}:{mark.line + 1}: {getattr(error, 'problem', '')}"
    if isinstance(error, RecursionError):
        return "a value of the config contains itself"
    text = re.split(r"\nSee |\n(?:Config )?[Ss]earch path:|\s+full_key:", str(error))[0]
    if error.__cause__:
        text += f" ({str(error.__cause__).splitlines()[0]})"
    ours = type(error) is ValueError or type(error).__module__.startswith("hydra")
    return ("" if ours else f"{type(error).__name__}: ") + " ".join(text.split())
