"""A docstring tells its library by what it says: no name is left, no text is in two splits or has two labels."""

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.data.conftest import examples, mistake
from transformer_lab.data.examples import LabeledText
from transformer_lab.data.sources import docstring_libraries
from transformer_lab.data.sources.docstring_libraries import DocstringLibraries

CONFIG = Path(__file__).parents[2] / "configs" / "data" / "docstring_libraries.yaml"
SMALL = ["hydra", "email", "fsspec"]


@pytest.fixture(scope="module")
def small() -> DocstringLibraries:
    return DocstringLibraries(packages=SMALL, validation=0.2, test=0.2)


def package(folder: Path, name: str, *docstrings: str) -> str:
    (folder / f"{name}.py").write_text("".join(f"def f():\n    {text!r}\n    ''''''\n" for text in docstrings))
    return name


def texts(source: DocstringLibraries) -> dict[str, list[str]]:
    """Of each class."""
    found: dict[str, list[str]] = {}
    for _, example in source.read():
        found.setdefault(*example.labels, []).append(example.text)
    return found


def test_no_name_of_a_library_is_left(small: DocstringLibraries) -> None:
    also = [name for names in docstring_libraries.ALSO_CALLED.values() for name in names]
    names = {name.lower() for name in [*SMALL, *docstring_libraries.ALSO_CALLED, *also]}
    for _, example in small.read():
        words = re.findall("[a-z0-9]+", example.text.lower())
        assert not names & {*words, *map(" ".join, pairwise(words))}, example.text
        assert not re.search("(?i)numpy|pandas|torch|python|hydra|email|fsspec", example.text)


@pytest.mark.parametrize(
    "text, masked",
    [
        ("import numpy as np; x = np.array(from_NumPy)", "import library as library; x = library.array(from_library)"),
        ("a torch.nn.Module of PyTorch, torchvision", "a library.nn.Module of library, library"),
        ("LightningModule, `pl.Trainer`, LitModel", "library, `library.Trainer`, library"),
        ("nx_graph NetworkXError Hugging\nFace HfApi HFTracer", "library_graph library library library library"),
        ("huggingface_hub's Hub, the standard\n  library", "library's library, the library"),
        *[(same, same) for same in ("input, hfft and concatenate", "PDF, pdb, PDE, NPV", "GitHub, onnx, enrich")],
    ],
)
def test_whole_words_that_hold_a_name_are_masked(text: str, masked: str, small: DocstringLibraries) -> None:
    assert small.names.sub(docstring_libraries.MASK, text) == masked


def test_no_text_is_in_two_splits_or_has_two_labels(small: DocstringLibraries) -> None:
    folded = [" ".join(example.text.casefold().split()) for _, example in small.read()]
    assert len(set(folded)) == len(folded) > 300
    assert all(len(example.labels) == 1 for _, example in small.read())


def test_every_class_is_in_every_split(small: DocstringLibraries) -> None:
    for split, found in examples(small).items():
        assert {label for example in found for label in example.labels} == {*SMALL}, split


def test_the_order_is_the_same_twice(small: DocstringLibraries) -> None:
    again = DocstringLibraries(packages=SMALL, validation=0.2, test=0.2)
    assert list(small.read()) == list(small.read()) == list(again.read())
    assert json.dumps(small.cache_key()) == json.dumps(again.cache_key())


def test_what_two_libraries_say_belongs_to_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    both = "Says what {} does, at such a length that it is read."
    first = package(
        tmp_path,
        "first_one",
        both.format("first_one"),
        "Only the first library says this, but TWICE.",
        "Only the  first library\nsays this, but twice.",
    )
    second = package(tmp_path, "second_one", both.format("Second One"), "Only the second library says this, once only.")
    found = texts(DocstringLibraries(packages=[first, second], validation=0, test=0))
    assert found == {
        first: ["Only the first library says this, but TWICE."],
        second: ["Only the second library says this, once only."],
    }
    third = package(tmp_path, "third_one", both.format("third-one"))
    told = mistake(lambda: list(DocstringLibraries(packages=[first, third], validation=0, test=0).read()))
    assert "third_one has no docstring" in told


def test_a_class_is_held_to_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    text = "says the numpy of a docstring\nthat is long enough.\n \nMore.\n\nEnd."
    large = package(tmp_path, "large_one", *(f"{number:02} {text}" for number in range(99)))
    small = package(tmp_path, "small_one", "The only docstring of a small library, long enough.")
    source = DocstringLibraries(
        packages=[large, small], validation=0, test=0, max_per_package=9, max_paragraphs=2, max_characters=45
    )
    found = texts(source)
    assert [len(some) for some in found.values()] == [9, 1]
    assert [int(text[:2]) for text in found[large]] == list(range(0, 99, 11))
    assert found[large][0] == "00 says the library of a docstring\nthat is long"
    whole = DocstringLibraries(packages=[large, small], validation=0, test=0, max_paragraphs=2)
    assert all(text.endswith("long enough.\n\nMore.") for text in texts(whole)[large])


def test_the_signature_tells_every_option() -> None:
    options = {"packages": SMALL, "validation": 0.1, "test": 0.1}
    other = {"validation": 0.2, "test": 0.2, "max_per_package": 9, "max_paragraphs": 1, "max_characters": 99}
    changes = [{}, {"packages": SMALL[:2]}, *({name: value} for name, value in other.items())]
    told = Counter(json.dumps(DocstringLibraries(**{**options, **change}).cache_key()) for change in changes)
    assert len(told) == len(changes)


def test_impossible_options_are_told_in_one_line() -> None:
    assert mistake(lambda: DocstringLibraries(packages=["json", "emial"])).endswith("did you mean email?")
    assert "a class" in mistake(lambda: DocstringLibraries(packages=["json"]))
    for option in ("max_per_package", "max_paragraphs", "max_characters"):
        assert f"data.{option}=0" in mistake(lambda option=option: DocstringLibraries(packages=SMALL, **{option: 0}))


def test_the_libraries_of_the_config_are_installed_and_their_names_known() -> None:
    options = OmegaConf.to_container(OmegaConf.load(CONFIG))
    assert options.pop("_target_").endswith(DocstringLibraries.__name__)
    source = DocstringLibraries(**options)
    assert [*source.roots] == options["packages"] == [*docstring_libraries.ALSO_CALLED]
    assert source.example_type is LabeledText
