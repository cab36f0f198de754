"""The words after `python train.py`: composed as Hydra will, checked before it does, explained by `--help`."""

import os
import re
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from transformer_lab.composition.checks import handed, problems, roles, sweeper_keys, sweeper_problems
from transformer_lab.composition.configs import CONFIGS, PRIMARY, Configs
from transformer_lab.composition.earlier_runs import decided
from transformer_lab.composition.help_page import comments, option_page, page
from transformer_lab.composition.hydra_section import hydra_problems
from transformer_lab.composition.importing import importable
from transformer_lab.composition.kinds import UNKNOWN
from transformer_lab.composition.problems import Mistakes, Problem, fail, full_error, nearest, unknown
from transformer_lab.composition.signatures import signature
from transformer_lab.composition.words import one_line, several, unreadable
from transformer_lab.renamed import config_of_today

LAUNCHERS = {"joblib": "hydra-joblib-launcher", "submitit": "hydra-submitit-launcher"}
COMBINATIONS = 32  # of a sweep, checked one by one; of a larger one every value (see `Space.samples`)


class Command(NamedTuple):
    """What a command line asks for: a run, a sweep, or what Hydra itself answers to its words."""

    words: list[str]
    run: dict[str, Any] | None = None  # the checked config
    sweep: Callable[[Callable[[Any], None]], None] | None = None  # to be called with what runs a trial


def preflight(argv: list[str], *, configs: Path = CONFIGS) -> Command:
    """Read, compose and check the words; where that fails, every problem in a line, and exit code 2."""
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
        if line.args.shell_completion and (typed_so_far := os.environ.get("COMP_LINE")):
            print(*line.arguments_at(typed_so_far))  # beside what Hydra will
        if line.args.hydra_help or line.args.shell_completion or line.args.info:
            return Command(words)
        words = line.checked()
    except Mistakes as error:
        fail(error.problems)
    except Exception as error:
        if full_error():
            raise
        fail([one_line(error)])
    if line.args.cfg == "job" and line.of_an_earlier_run and not line.args.package:
        print(line.as_yaml(), end="")
        raise SystemExit(0)
    if line.multirun and not line.args.cfg:
        return Command(words, sweep=line.sweep)
    by_hydra = line.args.cfg or any(key.startswith("hydra") for key in line.given)
    return Command(words) if by_hydra else Command(words, run=line.values)


def composed(words: list[str]) -> dict[str, Any]:
    """The checked config of a run that is asked for in Python; raises ValueError with all problems of the words."""
    if flags := [word for word in words if word.startswith("-")]:
        raise ValueError(f"{flags[0]}: expected key=value")
    try:
        line = CommandLine(words, CONFIGS)
        line.checked()
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(one_line(error)) from error
    return line.values


def checked_trial(config: Any) -> dict[str, Any]:
    """The checked config of a run that Hydra has composed, a trial of a sweep as a rule: what a sweeper has chosen,
    `preflight` has not seen, and a launcher may have started another process."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    values: Any = config_of_today(dict(OmegaConf.to_container(config, resolve=True)))  # type: ignore[arg-type]
    words = list(HydraConfig.get().overrides.task)
    try:
        values = decided(values, lambda: Configs.of_trial().given(words, roles()))
    except ValueError as error:
        fail([error])
    typed = values.get("extensions") or []
    importable(typed)
    if found := problems(values, typed=typed):
        fail(found)
    return dict(values)


class CommandLine:
    def __init__(self, words: list[str], configs: Path) -> None:
        from hydra._internal.utils import get_args_parser

        parser = get_args_parser()
        flags = [flag for action in parser._actions for flag in action.option_strings]
        strange = [w for w in words if re.match(r"--?[a-z]", w) and w.partition("=")[0] not in flags]
        if strange:
            raise Mistakes(unknown(word, "flag", flags, ["--help", "--multirun", "--cfg"]) for word in strange)
        parser.error = lambda message: fail([message])  # type: ignore[method-assign]
        self.args = parser.parse_intermixed_args(words)
        if self.args.experimental_rerun:
            raise ValueError("--experimental-rerun: refused; the file it reads can run anything")
        self.flags = list(words)
        for word in self.args.overrides:
            self.flags.remove(word)
        self.multirun = self.args.multirun or "hydra.mode=MULTIRUN" in words
        if self.args.multirun and (self.args.cfg or self.args.info):
            raise Mistakes([Problem("--cfg" if self.args.cfg else "--info", "of one run; without -m")])
        self.found: list[Problem | str] = []
        self.given: dict[str, str] = {}  # of each key, its word as it was typed
        self.words: dict[str, list[str]] = {}  # of each key: its word, and what that means in a sweep
        self.wrong: set[str] = set()  # groups with an option that does not exist
        self.composed: Any = None  # of the words that were judged last,
        self.values: dict[str, Any] = {}  # and what they mean for a run
        self.of_an_earlier_run = False
        self.typed: set[str] = set()  # extensions named right here
        folder = configs.parent / self.args.config_path if self.args.config_path else configs
        primary = self.args.config_name or PRIMARY
        self.configs = Configs.at(folder, primary=primary, more=self.args.config_dir, words=self.args.overrides)
        if self.configs.lacking:
            raise Mistakes(Problem(folder, "no such folder of configs") for folder in self.configs.lacking)

    def checked(self) -> list[str]:
        """The words for Hydra; raises Mistakes where no config, or none without problems, can be made of them."""
        words = self.rewritten()
        self.check()
        if self.found:
            raise Mistakes(self.found)
        return words

    def rewritten(self) -> list[str]:
        """`a.b=c` becomes `++a.b=c`: whether a key exists is for the signature to say, not for the YAML."""
        words = []
        for word in self.args.overrides:
            try:
                (override,) = self.configs.parser.parse_overrides([word])
            except Exception:
                self.found.append(Problem(word, unreadable(word)))
                continue
            key, value = override.key_or_group, override.value()
            typed = word
            group = self.configs.repo.group_exists(key) and not isinstance(value, dict)
            if not (group or override.is_delete() or override.is_hydra_override()):
                word = f"++{word.lstrip('+')}"
            if (before := self.given.setdefault(key, typed)) is not typed and not override.is_delete():
                self.found.append(Problem(key, f"given twice, by {before} and by {typed}; keep one"))
            words.append(word)
            ways = self._ways(word)
            if len(ways) > 1 and not self.multirun:
                self.found.append(Problem(key, f"several values; {several(typed)}"))
                self.words[word.partition("=")[0]] = ways[:1]  # to look for other mistakes
            elif key == "sweep" and not (self.multirun or self.args.cfg):
                self.found.append(Problem(word, f"a sweep is run with -m: python train.py -m {word} …"))
            elif not group or all([self._exists(key, x.partition("=")[2]) for x in ways if "=" in x]):
                self.words[word.partition("=")[0]] = [word, *ways]
            if key == "extensions":
                self.typed |= set(re.findall(r"\w+", word.partition("=")[2]))
                importable(self.typed)
        return [*self.flags, *words]

    def _ways(self, word: str) -> list[str]:
        """What a sweep makes of a word; of an interval, its two ends."""
        (override,) = self.configs.parser.parse_overrides([word])
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
            if ".." in name or last.removesuffix(".yaml") not in self.configs.options(folder):
                problem = self._no_option(group, name)
                if group == "hydra/launcher" and (package := LAUNCHERS.get(name.partition("_")[0])):
                    problem = replace(problem, what=f"no such option of {group}; pip install {package}")
                self.found.append(problem)
                self.wrong.add(group)
        return group not in self.wrong

    def _no_option(self, group: str, name: str) -> Problem:
        return replace(unknown(name, f"option of {group}", self.configs.options(group)), path=f"{group}={name}")

    def check(self) -> None:
        """Every combination of a sweep; of a large one, every value."""
        for words in self._told(self._trials) if self.multirun else [[word for word, *_ in self.words.values()]]:
            self._told(partial(self._judge, words))

    def _trials(self) -> list[list[str]]:
        """The words of some runs of a sweep, together with every value."""
        from transformer_lab.sweeps.space import Space

        first = self.configs.compose([ways[0] for _, *ways in self.words.values()])
        params = self._sweeper(first.hydra.sweeper)
        words = [word for word, *_ in self.words.values()]
        space = Space(self.configs.parser, params, words, self.configs.groups)
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
            files = [file for folder in self.configs.folders for file in folder.rglob("*.yaml")]
            line = ", ".join(str(x) for x in files if error.object in x.read_bytes()) + f": {line}"
        if match := re.search(r"Could not (?:find|override) '([\w/.]+)'", line):
            groups = self.configs.groups
            options = [f"{group}/{x}" for group in groups for x in self.configs.options(group)]
            near = nearest(match[1], [*groups, *options, *sweeper_keys()])
            line = line.partition("\n")[0].partition(". To append")[0]
            line = f"{line.rstrip('.')}; did you mean {near}?" if near else line
        return line

    def _judge(self, words: list[str]) -> None:
        from hydra.core.hydra_config import HydraConfig

        self.composed = config = self.configs.compose(words)
        HydraConfig.instance().cfg = config  # for ${hydra:…}
        found: list[Problem] = []
        values = plain(config, "", found)
        HydraConfig.instance().cfg = None
        found = [problem for problem in found if not problem.path.startswith("hydra.")]
        found += hydra_problems(values.pop("hydra"))
        composed = config_of_today(values)
        self.values = decided(composed, lambda: self.configs.given(words, roles()))
        self.of_an_earlier_run = self.values is not composed
        found += problems(self.values, typed=self.typed, groups=self.configs.groups)
        for problem in found:
            section, _, key = problem.path.partition(".")
            if section in self.wrong or (problem.missing and self.args.cfg):  # to show a config is a way to see gaps
                continue
            about = ""
            if problem.missing:
                option = config.hydra.runtime.choices.get(section)
                _, about = comments(self.configs.text(f"{section}/{option}")).get(key, ("", ""))
            self.found.append(f"{problem} ({about})" if about else problem)

    def sweep(self, run: Callable[[Any], None]) -> None:
        """Run the trials of `-m`, each by a call of `run` with its config."""
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        from transformer_lab.sweeps.sweeper import Sweep

        composed = self.configs.compose([word for word, *_ in self.words.values()], sweep=True)
        HydraConfig.instance().set_config(composed)
        section: Any = OmegaConf.to_container(composed.hydra.sweeper, resolve=True)
        words: Any = OmegaConf.to_container(composed.hydra.overrides.task)
        options = {key: value for key, value in section.items() if key != "_target_"}
        Sweep(configs=self.configs, composed=composed, run=run, **options).sweep(words)

    def as_yaml(self) -> str:
        """The config that the run would have."""
        import yaml

        return yaml.safe_dump(_resolved(self.values), sort_keys=False, allow_unicode=True)

    def help(self) -> str:
        """The page of all there is; of the groups whose option is named, what each of these takes."""
        if self.args.overrides:
            return "\n\n".join(self._help_of(word) for word in self.args.overrides)
        options = {group: self.configs.options(group) for group in self.configs.groups}
        text = self.configs.text
        return page(
            text(self.configs.primary),
            {group: {option: text(f"{group}/{option}") for option in names} for group, names in options.items()},
        )

    def arguments_at(self, typed_so_far: str) -> list[str]:
        """What a shell may put at the end of a line beside what the YAMLs hold: arguments of a part's constructor."""
        *before, last = typed_so_far.split(" ")
        group, dot, begin = last.partition(".")
        if not dot or "=" in last or group not in self.configs.groups:
            return []
        from hydra.errors import HydraException

        try:
            section = self._section(group, [word for word in before if "=" in word and word[0] != "-"])
        except HydraException:  # a word before is not right yet
            return []
        taken = signature(section["_target_"]) if "_target_" in section else None
        more = set(taken.parameters) - set(section) - handed(group, {group: section}) if taken else set()
        return [f"{group}.{name}=" for name in sorted(more) if name.startswith(begin)]

    def _section(self, group: str, words: list[str]) -> dict[str, Any]:
        """Of a group, as these words choose it; empty where it is none."""
        from omegaconf import OmegaConf

        composed = self.configs.compose(words).get(group)
        section: Any = OmegaConf.to_container(composed) if composed is not None else {}
        return section

    def _help_of(self, word: str) -> str:
        group, _, option = word.partition("=")
        if group not in self.configs.groups:
            raise Mistakes([unknown(word, "group", self.configs.groups)])
        if option not in self.configs.options(group):
            raise Mistakes([self._no_option(group, option)])
        text = self.configs.text(f"{group}/{option}")
        section = self._section(group, [word])
        if "_target_" not in section:
            return f"{word}: {comments(text)[''][1]}\n\n{text.rstrip()}"
        return option_page(word, text, section, handed(group, {group: section}))


def _resolved(value: Any) -> Any:
    """As YAML has it: what could not be resolved is a required value."""
    if isinstance(value, dict):
        return {key: _resolved(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_resolved(one) for one in value]
    return "???" if value is UNKNOWN else value


def plain(node: Any, path: str, found: list[Problem]) -> Any:
    """The config as dicts and lists, with a problem in `found` for every interpolation that leads nowhere."""
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
            found.append(Problem(here, str(error).splitlines()[0]))
            values[key] = UNKNOWN
    return values if isinstance(node, DictConfig) else list(values.values())
