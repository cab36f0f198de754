"""The nearest name is the one that was meant: 400 typos of one or two slips, over keys and options as shipped."""

import random
import re
import string

import yaml

from transformer_lab.composition.checks import problems
from transformer_lab.composition.command_line import CommandLine
from transformer_lab.composition.configs import CONFIGS
from transformer_lab.composition.problems import distance

DEFAULTS = re.findall(r"^  - (\w+): (\w+)$", (CONFIGS / "train.yaml").read_text(), re.M)
FILES = {(file.parent.name, file.stem): file for file in sorted(CONFIGS.glob("*/*.yaml"))}


def section(group, option):
    return yaml.safe_load(FILES[group, option].read_text())


def slip(word, rng):
    place, letter = rng.randrange(len(word)), rng.choice(string.ascii_lowercase + "_")
    before, here, after = word[:place], word[place], word[place + 1 :]
    return rng.choice(
        [before + letter + here + after, before + after, before + letter + after, before + after[:1] + here + after[1:]]
    )


def keys(config):
    for key, value in config.items():
        nested = isinstance(value, dict) and "_target_" in value
        yield from [f"{key}.{inner}" for inner in value if inner != "_target_"] if nested else [key]


def answer_to_key(typo, config):
    section, _, key = typo.rpartition(".")
    extra = {section: {**config.get(section, {}), key: 1}} if section else {key: 1}
    found = problems(config | extra, groups={group for group, _ in FILES})
    return next(problem for problem in found if problem.path == typo).meant


def answer_to_option(group, typo):
    many = ["-m"] if group == "sweep" else []  # without which that is what a user is told
    line = CommandLine([*many, f"{group}={typo}"], CONFIGS)
    line.rewritten()
    return line.found[0].meant


def test_a_swap_is_one_slip():
    assert [distance("model", x) for x in ("model", "modle", "mdel", "modell", "nodel", "", "omdle")] == [
        0,
        1,
        1,
        1,
        1,
        5,
        2,
    ]


def test_the_right_name_comes_first():
    rng = random.Random(0)
    train = yaml.safe_load((CONFIGS / "train.yaml").read_text())
    top = {key: value for key, value in train.items() if key not in ("defaults", "hydra")}
    base = top | {group: section(group, option) for group, option in DEFAULTS if (group, option) in FILES}
    tried, missed = 0, []
    while tried < 400:
        group, option = rng.choice(list(FILES))
        config = base | {group: section(group, option)} if group in base else base
        candidates, options = list(keys(config)), [name for place, name in FILES if place == group]
        right = rng.choice([option, rng.choice(candidates)])
        typo = right
        for _ in range(rng.choice([1, 2])):
            typo = slip(typo, rng) or right
        names = options if right == option else [*candidates, *base, *(place for place, _ in FILES)]
        if typo in names or not re.fullmatch(r"[a-z]\w*(\.[a-z]\w*)?", typo):
            continue  # another name, or none at all
        if right != option and typo.split(".")[0] in config and not isinstance(config[typo.split(".")[0]], dict):
            continue  # below a value nothing can be set
        line = answer_to_option(group, typo) if right == option else answer_to_key(typo, config)
        tried += 1
        if line != right:
            missed.append(f"{right}: {line}")
    assert len(missed) <= 16, "\n".join(missed)
