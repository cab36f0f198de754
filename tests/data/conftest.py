"""What the tests of sources share: no network, examples by split, and errors that fit on one line."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from transformer_lab.data.examples import Example
from transformer_lab.data.sources.base import Source


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("something asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def examples(source: Source) -> dict[str, list[Any]]:
    """Those of each split, in order."""
    found: dict[str, list[Example]] = {}
    for split, example in source.read():
        found.setdefault(split, []).append(example)
    return found


def sides(source: Source) -> dict[str, list[str]]:
    """The documents of each split, whole again."""
    found: dict[str, list[str]] = {}
    for split, pieces in examples(source).items():
        documents = found.setdefault(split, [])
        goes_on = False
        for piece in pieces:
            documents[-1:] = [documents[-1] + piece.text] if goes_on else [*documents[-1:], piece.text]
            goes_on = piece.more
        assert not goes_on
    return found


def mistake(call: Callable[[], object]) -> str:
    """What a ValueError says, in one line."""
    with pytest.raises(ValueError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)
