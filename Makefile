# All checks in one command: `make check`.
.PHONY: check lint test battery

check: lint test

lint:
	ruff check .
	ruff format --check .
	mypy

test:
	pytest -n auto

battery:  # the full counts of the reliability tests: long
	pytest -n auto -m battery
