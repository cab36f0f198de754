"""Every problem of a config at once, each in one line with its dotted path, before anything heavy is imported."""

import inspect
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from importlib.util import find_spec
from itertools import islice, product
from pathlib import Path
from typing import Any, NoReturn

from transformer_lab.signatures import UNKNOWN, Signature, expected, imported, live, module, shown, signature

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
TRAIN = "transformer_lab.compose.train"

# What the build hands over at run time, section by section: no key of a config.
PROVIDED = {
    "model": {"vocab_size", "position", "norm", "feed_forward", "attention"},
    "position": {"dim", "num_heads"},
    "norm": {"dim"},
    "feed_forward": {"dim"},
    "attention": {"q", "k", "v", "queries", "keys", "causal", "window", "bias"},
    "task": {"model", "tokenizer"},
    "optimizer": {"model"},
    "schedule": {"total_steps"},
    "checkpoint": {"folder", "files", "identity"},
}
RECIPES = {"position", "norm", "feed_forward", "attention"}  # the model calls these itself: functions will do
RESERVED = re.compile(r"_[a-z]+_")  # keys that mean something to Hydra
NAMED = {"callbacks"}  # a section of sections

# Other libraries' classes that a config may name: the package, and what they must descend from.
EXTERNAL = {
    "lightning.pytorch.callbacks": "Callback",
    "lightning.pytorch.loggers": "Logger",
    "lightning.pytorch.strategies": "Strategy",
    "torch.optim": "Optimizer",
}
LIMITS = ("max_steps", "max_epochs", "max_tokens", "max_minutes")
POSITIVE = {*LIMITS, "tokens_per_step", "gradient_clip", "every_steps", "log_every_steps", "validate_every_steps"}
COMBINATIONS = 32  # of a sweep, checked one by one; of a larger one every value, up to as many of a key


def distance(a: str, b: str) -> int:
    """How many letters to insert, delete, change or swap with their neighbour (Damerau, 1964)."""
    before, row = [], list(range(len(b) + 1))
    for i, x in enumerate(a):
        above, before, row = before, row, [i + 1]
        for j, y in enumerate(b):
            row.append(min(row[j] + 1, before[j + 1] + 1, before[j] + (x != y)))
            if i and j and x == b[j - 1] and a[i - 1] == y:
                row[-1] = min(row[-1], above[j - 1] + 1)
    return row[-1]


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name most likely meant: few typos, the right key of another section, a common beginning."""

    def rank(name: str) -> tuple[float, int]:
        elsewhere = word.rpartition(".")[2] == name.rpartition(".")[2]
        prefix = next((i for i, (x, y) in enumerate(zip(word, name, strict=False)) if x != y), len(name))
        return min(distance(word, name), 1.5 if elsewhere else 99), -prefix

    best = min(names, key=rank, default=None)
    return best if best and rank(best)[0] <= max(2, len(word) // 4) else None


def unknown(path: str, what: str, names: Collection[str], listed: Iterable[str]) -> str:
    near = nearest(path, names)
    return f"{path}: no such {what}; " + (f"did you mean {near}?" if near else f"there are {', '.join(listed)}")


def fail(found: Iterable[str]) -> NoReturn:
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    raise SystemExit(2)


def full_error() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def problems(
    config: dict[str, Any],
    *,
    allowed: Collection[str] | None = None,
    typed: Collection[str] = (),
    groups: Collection[str] = (),
) -> list[str]:
    """`allowed`: the only packages whose classes may be named, for a config of someone else's, as in a checkpoint.

    `typed`: extensions that the user named himself, on the command line. `groups`: for better suggestions.
    """
    return list(dict.fromkeys(Check(config, allowed, typed, groups).run()))


class Check:
    def __init__(self, config: dict, allowed: Collection[str] | None, typed: Collection[str], groups: Collection[str]):
        extensions = [x for x in config.get("extensions") or () if isinstance(x, str)]
        train = signature(TRAIN)
        assert train is not None
        self.train, self.config, self.typed, self.groups = train, config, typed, groups
        self.extensions = extensions if allowed is None else []
        self.allowed = ["transformer_lab", *EXTERNAL, *extensions] if allowed is None else allowed

    def run(self) -> Iterator[str]:
        for i, name in enumerate(self.extensions):
            yield from self.extension(f"extensions[{i}]", name)
        yield from self.section("", self.config, self.train)
        if all(self.config.get(key) is None for key in LIMITS):
            yield f"{LIMITS[0]}: the run would never end; set one of {', '.join(LIMITS)}"

    def section(self, path: str, values: dict[str, Any], taken: Signature) -> Iterator[str]:
        """The values against the signature of what takes them."""
        provided = PROVIDED.get(path, set())
        for key, value in values.items():
            here = f"{path}.{key}".lstrip(".")
            if path and RESERVED.fullmatch(str(key)):
                continue
            parameter = taken.parameters.get(key)
            if key in provided:
                yield f"{here}: is filled in by the build; leave it out"
            elif parameter is None and not taken.open:
                yield self.unknown(here, value, taken)
            elif value == "???":
                yield f"{here}: required, not set"
            elif parameter and (want := expected(parameter, value)):
                yield f"{here}: expected {want}, found {shown(value)}"
            else:
                yield from self.range(here, key, value)
                yield from self.nested(here, value)
        for key, parameter in taken.parameters.items():
            if parameter.required and key not in values and key not in provided:
                yield f"{path}.{key}: required, not set".lstrip(".")

    def range(self, path: str, key: str, value: Any) -> Iterator[str]:
        if isinstance(value, int | float) and key in POSITIVE and value <= 0:
            yield f"{path}: expected more than 0, found {shown(value)}"
        if path == "seed" and isinstance(value, int) and not 0 <= value < 2**32:
            yield f"{path}: expected 0 to {2**32 - 1}, found {value}"

    def nested(self, path: str, value: Any) -> Iterator[str]:
        if isinstance(value, list):
            for i, item in enumerate(value):
                yield from self.nested(f"{path}[{i}]", item)
        if not isinstance(value, dict):
            return
        for key in value:
            if RESERVED.fullmatch(str(key)) and key != "_target_":
                yield f"{path}.{key}: refused; of Hydra's own keys a config may use _target_ only"
        if "_target_" in value:
            yield from self.built(path, value)
        elif path.rpartition(".")[0] in NAMED or (path not in NAMED and path in self.train.parameters):
            yield f"{path}._target_: required, not set"
        else:
            for key, item in value.items():
                yield from self.nested(f"{path}.{key}", item)

    def built(self, path: str, section: dict[str, Any]) -> Iterator[str]:
        try:
            taken = self.target(section["_target_"])
        except (ValueError, ImportError, AttributeError) as error:
            yield f"{path}._target_: {error}"
        except SyntaxError as error:
            yield f"{error.filename or section['_target_']}:{error.lineno}: {error.msg}"
        else:
            if taken.function and path not in RECIPES:
                yield f"{path}._target_: refused; {taken.name} is a function, and this must be a class"
            yield from self.section(path, section, taken)

    def target(self, name: Any) -> Signature:
        """The signature of what may be built; ValueError if it may not, or does not exist."""
        home, _, last = str(name).rpartition(".")
        private = any(part.startswith("_") for part in str(name).split("."))
        if private or not any(str(name).startswith(f"{prefix}.") for prefix in self.allowed):
            raise ValueError(f"refused: {name!r} is of none of {', '.join(self.allowed)}, extensions")
        for package, parent in EXTERNAL.items():
            if name.startswith(f"{package}."):
                if home != package:
                    raise ValueError(f"refused: {name!r}; name a class of {package} itself")
                return imported(name, parent)
        if found := signature(name):
            return found
        place = module(home)
        if place is None:
            raise ValueError(f"no module {home!r}")
        raise ValueError(unknown(last, f"class in {place.file.name}", place.names, place.names))

    def extension(self, path: str, name: str) -> Iterator[str]:
        """A package of the user's own: a stranger's file must not be able to open up an installed library."""
        spec = find_spec(name) if name.isidentifier() else None
        if spec is None:
            yield f"{path}: no package {name!r} in this folder, nor installed"
            return
        places = [spec.origin or "", *(spec.submodule_search_locations or ())]
        installed = any(part in Path(x).parts for x in places for part in ("site-packages", "dist-packages"))
        if name in sys.stdlib_module_names:
            yield f"{path}: refused; {name} is a module of Python's own"
        elif installed and name not in self.typed:
            yield f"{path}: refused; {name} is installed: name it on the command line, extensions=[{name}]"

    def unknown(self, path: str, value: Any, taken: Signature) -> str:
        if path in self.groups:
            return f"{path}: its file sets a section {path!r}; begin it with the line `# @package _global_`"
        if isinstance(value, dict) and len(value) == 1:  # `modle.dim=3`
            path = f"{path}.{next(iter(value))}"
        listed = taken.parameters.keys() - PROVIDED.get(path.rpartition(".")[0], set())
        what = f"option of {taken.name}" if "." in path and taken is not self.train else "key"
        return unknown(path, what, [*self.keys(), *self.groups], sorted(listed))

    def keys(self) -> Iterator[str]:
        """The dotted paths that this config could set."""
        yield from self.train.parameters
        for path, section in _sections("", self.config):
            try:
                known = self.target(section["_target_"]).parameters
            except Exception:  # reported where it stands
                continue
            yield from (f"{path}.{key}" for key in known if key not in PROVIDED.get(path, set()))


def _sections(path: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, item in value.items() if isinstance(value, dict) else ():
        here = f"{path}.{key}".lstrip(".")
        if isinstance(item, dict) and "_target_" in item:
            yield here, item
        yield from _sections(here, item)


# --- the command line ---------------------------------------------------------------------------------


def preflight(argv: list[str], *, configs: Path = CONFIGS) -> list[str]:
    """The words for Hydra, if what they ask for can be built; else every problem in a line, and exit code 2."""
    if any(word.lower() == "debug=true" for word in argv):  # `debug` is a group too: sanity, overfit
        os.environ["HYDRA_FULL_ERROR"] = "1"
    words = [word for word in argv if word.lower() not in ("debug=true", "debug=false")]
    try:
        line = CommandLine(words, configs)
        if line.args.help:
            print(line.help())
            raise SystemExit(0)
        if line.args.hydra_help or line.args.shell_completion or line.args.info:
            return words
        words = line.rewritten()
        line.check()
    except Exception as error:
        if full_error():
            raise
        fail([one_line(error)])
    if line.found:
        fail(dict.fromkeys(line.found))
    return words


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
        parser.error = lambda message: fail([message])  # type: ignore[method-assign,assignment]
        self.args = parser.parse_intermixed_args(words)
        if self.args.experimental_rerun:
            raise ValueError("--experimental-rerun: refused; it reads a pickle, and a pickle can run anything")
        self.flags = list(words)
        for word in self.args.overrides:
            self.flags.remove(word)
        self.multirun = self.args.multirun or "hydra.mode=MULTIRUN" in words
        self.primary = self.args.config_name or "train"
        self.found: list[str] = []
        self.ways: dict[str, list[str]] = {}  # of each key: its word, or the words of its sweep
        self.wrong: set[str] = set()  # groups with an option that does not exist
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
            except Exception as error:
                reason = str(error).split("\nSee ")[0].splitlines()[0]
                self.found.append(f"{word}: " + (reason if "=" in word else "expected key=value"))
                continue
            key, value = override.key_or_group, override.value()
            group = self.repo.group_exists(key) and not isinstance(value, dict)
            if not (group or override.is_delete() or override.is_hydra_override()):
                word = f"++{word.lstrip('+')}"
            words.append(word)
            ways = self._ways(word)
            if len(ways) > 1 and not self.multirun:
                hint = "add -m to run one after the other, or write a list in [brackets]"
                self.found.append(f"{key}: several values; {hint}")
            elif not group or all([self._exists(key, x.partition("=")[2]) for x in ways if "=" in x]):
                self.ways[word.partition("=")[0]] = ways
            if key == "extensions":
                self.typed |= set(re.findall(r"\w+", word.partition("=")[2]))
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
                self.found.append(f"{group}={name}: no such option of {group}; {hint}")
                self.wrong.add(group)
        return group not in self.wrong

    def check(self) -> None:
        """Every combination of a sweep; of a large one, every value."""
        if self.multirun:
            for key, value in self._swept_in_files():
                self.ways.setdefault(key, self._ways(f"{key}={value}"))
        ways = list(self.ways.values())
        if math.prod(map(len, ways)) <= COMBINATIONS:
            runs: Iterable[Iterable[str]] = product(*ways)
        else:  # evenly through each sweep, its ends included
            shares = [i / (COMBINATIONS - 1) for i in range(COMBINATIONS)]
            runs = ([some[round(share * (len(some) - 1))] for some in ways] for share in shares)
        for words in runs:
            try:
                self._judge(list(words))
            except Exception as error:
                if full_error():
                    raise
                self.found.append(self._told(error))

    def _told(self, error: Exception) -> str:
        """In one line, with what the library leaves out: which file, and what may have been meant."""
        line = one_line(error)
        if isinstance(error, UnicodeDecodeError):
            files = [file for folder in self._folders() for file in folder.rglob("*.yaml")]
            line = ", ".join(str(x) for x in files if error.object in x.read_bytes()) + f": {line}"
        if match := re.search(r"Could not (?:find|override) '([\w/]+)'", line):
            options = [f"{group}/{x}" for group in self.groups for x in self.repo.get_group_options(group)]
            near = nearest(match[1], [*self.groups, *options])
            line = f"{line.rstrip('.')}; did you mean {near}?" if near else line
        return line

    def _folders(self) -> list[Path]:
        return [Path(source.path) for source in self.repo.get_sources() if source.scheme() == "file"]

    def _compose(self, words: list[str]) -> Any:
        from hydra.types import RunMode

        return self.loader.load_configuration(self.primary, words, RunMode.RUN)

    def _swept_in_files(self) -> Iterable[tuple[str, str]]:
        try:
            config = self._compose([some[0] for some in self.ways.values()])
        except Exception:  # reported by the check of the first combination
            return []
        return (config.hydra.sweeper.get("params") or {}).items()

    def _judge(self, words: list[str]) -> None:
        from hydra.core.hydra_config import HydraConfig

        config = self._compose(words)
        HydraConfig.instance().cfg = config  # for ${hydra:…}
        values = plain(config, "", unresolved := [])
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

    def _text(self, name: str) -> str:
        """The YAML of a group's option, or of the primary config, wherever it lies."""
        files = [folder / f"{name}.yaml" for folder in self._folders()]
        return next((file.read_text(encoding="utf-8") for file in files if file.is_file()), "")

    def help(self) -> str:
        """A page made from the configs themselves: their first lines and the comments of their keys."""
        primary = self._text(self.primary)
        chosen = dict(re.findall(r"^  - (\w+): (\w+)", primary, re.M))
        lines = [USAGE, "Choices (GROUP=OPTION; * is the default, OPTION's own keys are set with GROUP.KEY=VALUE)"]
        for group in sorted(self.groups, key=[*chosen, *self.groups].index):  # in the order of the defaults
            options = self.repo.get_group_options(group)
            lines += [f"\n  {group}"] if options else []
            for option in options:
                mark = "*" if option == chosen.get(group) else " "
                lines.append(f"  {mark} {option:27} {comments(self._text(f'{group}/{option}'))[''][1]}")
        lines.append("\nThe run as a whole (KEY=VALUE)\n")
        for key, (value, about) in comments(primary).items():
            if key and about and not key.startswith("hydra"):
                lines.append(f"    {f'{key}={value}':27} {about}")
        return "\n".join([*lines, EXAMPLES])


USAGE = """Usage: python train.py [GROUP=OPTION] [KEY=VALUE] [--multirun] [--help] [--cfg job]

Trains a transformer: what it is, what it learns from and how is chosen by words.
"""

EXAMPLES = """
Examples

    python train.py                                    the default run, a small decoder
    python train.py position=alibi model.dim=256       another part, another width
    python train.py data=text data.path=notes/         on files of your own
    python train.py -m position=rotary,alibi,none      one run after the other
    python train.py debug=sanity                       every stage of a run, within a minute

Any argument of a part's constructor is a key: position.KEY=VALUE, task.KEY=VALUE …
    python train.py --cfg job                          shows the whole config, and runs nothing
    eval "$(python train.py -sc install=bash)"         completes groups, options and keys with <TAB>
    python train.py debug=true …                       shows the traceback of an error
"""


def comments(text: str) -> dict[str, tuple[str, str]]:
    """Of a YAML file: each dotted key's value and comment; under the empty key what the file says of itself."""
    lines = text.splitlines()
    first = [line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @package")]
    found, parents = {"": ("", first[0] if first else "")}, []
    for line in lines:
        if match := re.match(r"( *)(\w+): *(.*?)(?: +# (.*))?$", line):
            parents = [*(x for x in parents if len(x[0]) < len(match[1])), (match[1], match[2])]
            found[".".join(name for _, name in parents)] = match[3], match[4] or ""
    return found


def plain(node: Any, path: str, found: list[str]) -> Any:
    """The config as dicts and lists, with a line in `found` for every interpolation that leads nowhere."""
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

    if not isinstance(node, DictConfig | ListConfig):
        return node
    values: dict[Any, Any] = {}
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        here = f"{path}.{key}".lstrip(".")
        if OmegaConf.is_missing(node, key):
            values[key] = "???"
            continue
        try:
            if here.count(".") > 20:
                raise RecursionError(f"{OmegaConf.to_container(node)[key]} contains itself")
            values[key] = plain(node[key], here, found)
        except InterpolationToMissingValueError:  # the missing value itself is a problem, and one is enough
            values[key] = UNKNOWN
        except (OmegaConfBaseException, RecursionError) as error:
            found.append(f"{here}: {str(error).splitlines()[0]}")
            values[key] = UNKNOWN
    return values if isinstance(node, DictConfig) else list(values.values())


SETTLED = {"run.dir": ".", "output_subdir": None, "sweep.dir": "outputs", "sweep.subdir": ".", "job.env_set": {}}
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
        for name, item in (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        ):
            yield from walk(f"{path}.{name}", str(name), item)
        plugin = str(value).startswith(("hydra._internal.core_plugins.", "hydra_plugins."))
        names = key in ("class", "()") or str(value).startswith("ext://")
        if value is UNKNOWN or (key == "_target_" and not plugin) or (names and value not in HARMLESS):
            yield f"{path}: refused; Hydra would build {shown(value)} before anything is checked"

    for part in ("launcher", "sweeper", "callbacks", "job_logging", "hydra_logging"):
        yield from walk(f"hydra.{part}", part, hydra.get(part))


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


def arguments(function: Callable[..., Any], argv: list[str]) -> dict[str, Any]:
    """A script's `key=value` words as the arguments of its main function, checked against its signature."""
    taken = live(function)
    if {"-h", "--help"} & set(argv):
        print(_usage(function))
        raise SystemExit(0)
    found, values = [], {}
    for word in argv:
        key, equals, text = word.partition("=")
        name = key.partition(".")[0]
        parameter = taken.parameters.get(name)
        if not equals:
            found.append(f"{word}: expected key=value")
        elif parameter is None and not taken.open:
            found.append(unknown(key, "argument", taken.parameters, taken.parameters))
        else:
            value = _parsed(word, name, text)
            if parameter and expected(parameter, value) and not expected(parameter, text):
                value = text  # `prompt=5` and `prompt=Once: a` are strings where strings are wanted
            if parameter and (want := expected(parameter, value)):
                found.append(f"{name}: expected {want}, found {shown(value)}")
            values[name] = {**values.get(name, {}), **value} if name != key else value
    missing = [name for name, x in taken.parameters.items() if x.required and name not in values]
    found += [f"{name}: required, not set" for name in missing if not any(name in line for line in found)]
    if found:
        fail(found)
    return values


def _parsed(word: str, name: str, text: str) -> Any:
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([word]))[name]  # type: ignore[call-overload,index]
    except YAMLError:
        return text


def _usage(function: Callable[..., Any]) -> str:
    lines = [f"Usage: python {sys.argv[0]} KEY=VALUE …", "", inspect.getdoc(function) or "", ""]
    for x in inspect.signature(function).parameters.values():
        kind = "" if x.annotation is x.empty else inspect.formatannotation(x.annotation)
        default = "required" if x.default is x.empty else f"default: {shown(x.default)}"
        lines.append(f"    {x.name:20} {kind:24} {default}")
    return "\n".join(lines)
