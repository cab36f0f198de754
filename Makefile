# All checks in one command: `make check`.
.PHONY: check lint test reference battery

check: lint test

lint:
	ruff check .
	ruff format --check .
	mypy

test:
	pytest -n auto

reference:  # of every class and function, from its docstring, in outputs/reference: pip install -e ".[docs]"
	pdoc -o outputs/reference transformer_lab

battery:  # the full counts of the reliability tests: long
	pytest -n auto -m battery
