"""The folders of YAML files that a command reads, as Hydra sees them, and what is chosen in them."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobRuntime, setup_globals
from hydra.types import RunMode
from omegaconf import OmegaConf

from transformer_lab.composition.earlier_runs import Given

PACKAGE = Path(__file__).resolve().parent.parent
# In a clone, the folder beside the package; of an installed package, the one in it.
CONFIGS = next(x for x in (PACKAGE.parent / "configs", PACKAGE / "configs") if (x / "train.yaml").is_file())
PRIMARY = "train"


class Configs:
    """What a search path holds: options, texts, and the configs that words make of them."""

    def __init__(self, path: ConfigSearchPath, primary: str, words: Iterable[str]) -> None:
        """`lacking` are the folders named in `words` that are not there."""
        self.primary, self.loader = primary, ConfigLoaderImpl(path)
        self.parser = OverridesParser.create(config_loader=self.loader)
        where = [word for word in words if word.startswith("hydra.searchpath=")]
        with warnings.catch_warnings(action="ignore"):
            _, self.repo = self.loader._parse_overrides_and_create_caching_repo(primary, where)
        sources = self.repo.get_sources()
        self.folders = [Path(source.path) for source in sources if source.scheme() == "file"]
        self.lacking = [source.path for source in sources if not source.available()]
        self.groups = [x for x in self.repo.get_group_options("", ObjectType.GROUP) if x != "hydra"]

    @classmethod
    def at(cls, configs: Path, *, primary: str = PRIMARY, more: str | None = None, words: Iterable[str] = ()) -> Self:
        """Of the folder `configs`, and before it of the folder `more`."""
        version.setbase("1.3")
        setup_globals()
        JobRuntime().set("name", "train")
        path = create_config_search_path(f"file://{configs}")
        if more:
            path.prepend("command-line", f"file://{Path(more).absolute()}", SearchPathQuery(provider="schema"))
        return cls(path, primary, words)

    @classmethod
    def of_trial(cls) -> Self:
        """Those that Hydra has composed this run from: a trial of a sweep, as a rule."""
        hydra = HydraConfig.get()
        path = create_config_search_path(None)
        for source in hydra.runtime.config_sources:
            if source.schema == "file":
                path.append(source.provider, f"file://{source.path}")
        return cls(path, hydra.job.config_name or PRIMARY, [])

    def options(self, group: str) -> list[str]:
        found: list[str] = self.repo.get_group_options(group) if self.repo.group_exists(group) else []
        return found

    def text(self, name: str) -> str:
        """The YAML of a group's option, or of the primary config, wherever it lies."""
        files = [folder / f"{name}.yaml" for folder in self.folders]
        return next((file.read_text(encoding="utf-8") for file in files if file.is_file()), "")

    def compose(self, words: list[str], *, sweep: bool = False) -> Any:
        """The config of a run, or what the runs of a sweep have in common."""
        return self.loader.load_configuration(self.primary, words, RunMode.MULTIRUN if sweep else RunMode.RUN)

    def given(self, words: list[str], sections: Iterable[str]) -> Given:
        """What these words choose. `sections` are the keys of a run: a group of another name, as `experiment` is,
        chooses options of groups and sets keys just as words do."""
        sections = set(sections)
        listed = self.loader.compute_defaults_list(self.primary, words, RunMode.RUN)
        options: dict[str, dict[str, Any]] = {}
        chosen: dict[str, list[str]] = {}
        for group, about in listed.overrides.override_metadata.items():
            by = "" if about.external_override else str(about.containing_config_path).partition("/")[0]
            if group in sections and by in sections:
                chosen.setdefault(by, []).append(group)
            elif group in sections:
                options[group] = {}
        set_by: dict[str, dict[str, Any]] = {}
        keys: dict[str, Any] = {}
        for entry in listed.defaults:
            group, _, option = str(entry.config_path).partition("/")
            if not option or group == "hydra":
                continue
            said, whole = self._said(f"{group}/{option}"), entry.package in ("", "_global_")
            if group not in sections:
                keys |= _leaves(said) if whole else {}
                continue
            if group in options:
                own = said.get(group) if whole else said
                options[group] |= own if isinstance(own, dict) else {}
            if whole:
                set_by.setdefault(group, {}).update(_leaves({key: said[key] for key in said if key != group}))
        for override in listed.config_overrides:
            keys |= _leaves({override.key_or_group: override.value()})
        keys |= dict.fromkeys(group for group in listed.overrides.deletions if group in sections)
        keys = {key: value for key, value in keys.items() if key.partition(".")[0] != "hydra"}
        return Given(keys, options, {group: tuple(others) for group, others in chosen.items()}, set_by)

    def _said(self, name: str) -> dict[str, Any]:
        loaded = self.repo.load_config(name)
        said: Any = OmegaConf.to_container(loaded.config) if loaded else {}
        said.pop("defaults", None)
        return dict(said)


def _leaves(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """By their dotted keys; an empty section is one."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        here = f"{path}{key}"
        found |= _leaves(value, f"{here}.") if isinstance(value, dict) and value else {here: value}
    return found
