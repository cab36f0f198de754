"""What `python train.py --help` prints, made from the configs: their first lines, and the comments of their keys."""

import ast
import re
from collections.abc import Collection
from typing import Any

from transformer_lab.composition.kinds import shown
from transformer_lab.composition.signatures import signature
from transformer_lab.terminal import typed

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
    python train.py --help task=classification         every argument of an option, with type and default
    python train.py --cfg job                          shows the whole config, and runs nothing
    eval "$(python train.py -sc install=bash)"         completes groups, options and keys with <TAB>
    python train.py debug=true …                       shows the traceback of an error
"""


def page(primary: str, groups: dict[str, dict[str, str]]) -> str:
    """From the YAML of the primary config, and that of each option of each group."""
    chosen = dict(re.findall(r"^  - (\w+): (\w+)", primary, re.M))
    lines = [USAGE, "Choices (GROUP=OPTION; * is the default, OPTION's own keys are set with GROUP.KEY=VALUE)"]
    for group in sorted(groups, key=[*chosen, *groups].index):  # in the order of the defaults
        lines += [f"\n  {group}"] if groups[group] else []
        for option, text in groups[group].items():
            mark = "*" if option == chosen.get(group) else " "
            lines.append(f"  {mark} {option:27} {comments(text)[''][1]}")
    lines.append("\nThe run as a whole (KEY=VALUE)\n")
    for key, (value, about) in comments(primary).items():
        if key and about and not key.startswith("hydra"):
            lines.append(f"    {f'{key}={value}':27} {about}")
    return "\n".join([*lines, EXAMPLES]).replace("python train.py", typed("train.py"))


def option_page(word: str, text: str, section: dict[str, Any], handed: Collection[str]) -> str:
    """What an option takes: each argument with its type, its value here, and what YAML or docstring say of it."""
    target = section["_target_"]
    taken = signature(target)
    group = word.partition("=")[0]
    said = {key.removeprefix(f"{group}."): told for key, told in comments(text).items()}
    lines = [f"{word}: {said[''][1]}", f"{target}", ""]
    for name, one in sorted(taken.parameters.items() if taken else (), key=lambda x: not x[1].required):
        if name in handed:
            continue
        kind = ast.unparse(one.kind) if one.kind else ""
        about = said.get(name, ("", ""))[1]
        value = ast.unparse(one.default) if one.default else "required"
        value = {"None": "null", "True": "true", "False": "false"}.get(value, value)
        if section.get(name, "???") != "???":
            value = shown(section[name])
        lines.append(f"  {group}.{name} ({kind}) = {value}")
        if told := about or _sentence(one.about, name):
            lines.append(f"      {told}")
    lines += [] if taken and taken.parameters.keys() - set(handed) else ["  It takes nothing."]
    return "\n".join(lines)


def _sentence(docstring: str, name: str) -> str:
    """The first sentence of a docstring that names something."""
    sentences = re.split(r"(?<=[.])\s+(?=[A-Z`])", " ".join(docstring.split()))
    return next((sentence for sentence in sentences if f"`{name}`" in sentence), "")


def comments(text: str) -> dict[str, tuple[str, str]]:
    """Of a YAML file: each dotted key's value and comment; under the empty key what the file says of itself."""
    lines = text.splitlines()
    first = [line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @package")]
    found, parents = {"": ("", first[0] if first else "")}, list[tuple[str, str]]()
    for line in lines:
        if match := re.match(r"( *)(\w+):(?: +([^#\s].*?))?(?: +# (.*))?$", line):
            parents = [*(x for x in parents if len(x[0]) < len(match[1])), (match[1], match[2])]
            found[".".join(name for _, name in parents)] = match[3] or "", match[4] or ""
    return found
