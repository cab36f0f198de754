"""What is used of other libraries beside what they promise: a release that changes it is told here by name.

pyproject.toml has an upper bound for each of them, so that a user does not meet such a release first.
"""

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

# The names, and the parameters that are given to them; by whom they are used.
PRIVATE = {
    "hydra._internal.utils:get_args_parser": ([], "composition/command_line.py"),
    "hydra._internal.callbacks:Callbacks": ([], "sweeps/sweeper.py"),
    "hydra._internal.utils:create_config_search_path": (["search_path_dir"], "composition/configs.py"),
    "hydra._internal.config_loader_impl:ConfigLoaderImpl._parse_overrides_and_create_caching_repo": (
        ["config_name", "overrides"],
        "composition/configs.py",
    ),
    "hydra._internal.config_loader_impl:ConfigLoaderImpl.compute_defaults_list": (
        ["config_name", "overrides", "run_mode"],
        "composition/configs.py",
    ),
    "sacrebleu.metrics.base:Metric._extract_corpus_statistics": (
        ["hypotheses", "references"],
        "tasks/translation_scores.py",
    ),
    "sacrebleu.metrics.base:Metric._aggregate_and_compute": (["stats"], "tasks/translation_scores.py"),
}


@pytest.mark.parametrize("name", PRIVATE)
def test_what_no_library_promises_is_still_there(name):
    module, _, path = name.partition(":")
    taken, user = PRIVATE[name]
    found = import_module(module)
    for part in path.split("."):
        found = getattr(found, part, None)
        assert found is not None, f"{name} is gone, which transformer_lab/{user} uses"
    assert set(taken) <= set(inspect.signature(found).parameters), f"transformer_lab/{user} calls {name} otherwise"
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    library = {"hydra": "hydra-core"}.get(module.partition(".")[0], module.partition(".")[0])
    assert re.search(rf'"{library}>=[^"]*,<', project), f"{library} has no upper bound"
