"""Finds the docstrings of Python files without running them: a script of its own, so that many can work at once.

Reads file names from standard input as a JSON list, writes a list of their docstrings. It needs the standard library
only and is run by its path: workers forked from a process that holds threads may hang, and spawned ones would run the
caller's main module again.
"""

import ast
import gc
import json
import sys
from collections.abc import Iterator

DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = ("body", "handlers", "orelse", "finalbody")  # where statements lie; no need to walk the expressions


def docstrings(source: bytes) -> Iterator[str]:
    """Cleaned docstrings in the order of the file; none of a file that this Python cannot parse."""
    if b'"""' not in source and b"'''" not in source:
        return
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)) and _is_text(text):
            yield text
        for block in reversed(BLOCKS):
            statements = getattr(node, block, ())
            if isinstance(statements, list):  # the body of a lambda is an expression
                stack.extend(reversed(statements))


def _is_text(text: str) -> bool:
    """False for lone surrogates and NUL: legal in a Python string, but not in a text file."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _main() -> None:
    gc.disable()  # trees hold no cycles; collecting costs a third of the time
    found: list[str] = []
    for name in json.load(sys.stdin):
        with open(name, "rb") as file:
            found.extend(docstrings(file.read()))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    _main()
