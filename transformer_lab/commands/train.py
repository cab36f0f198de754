"""Train a model: `transformer-lab train GROUP=OPTION KEY=VALUE`; `--help` shows what can be chosen."""

import gc
import signal
import sys
from contextlib import suppress
from typing import Any

import hydra
from omegaconf import DictConfig

from transformer_lab.composition.command_line import checked_trial, preflight
from transformer_lab.composition.configs import CONFIGS, PRIMARY
from transformer_lab.composition.importing import importable, keep_out
from transformer_lab.composition.problems import fail, full_error


def main() -> None:
    """Do what the command line asks for."""
    keep_out()
    try:
        command = preflight(sys.argv[1:])
        if command.run:
            run(command.run)
        elif command.sweep:
            command.sweep(trial)
        else:
            sys.argv[1:] = command.words
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=PRIMARY)(trial)()
    except KeyboardInterrupt:  # outside of training, which looks after itself
        fail(["interrupted"], 130)
    finally:
        with suppress(KeyboardInterrupt):  # one that comes just now
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is saved and said: Ctrl-C needs no traceback now


def run(values: dict[str, Any]) -> None:
    """Build and train what a checked config describes."""
    importable(values["extensions"])
    gc.disable()  # until all is imported: nothing of it is garbage, and looking for some costs a twentieth of the start
    # These imports take seconds, the second more than the first: so not before all is known to be well.
    from transformer_lab.composition.build import refuse_giants, rehearse
    from transformer_lab.training.contact import take_srun

    try:
        take_srun()
        task = rehearse(values)
        if not values["plan"]:
            refuse_giants(task)
    except ValueError as error:  # of a constructor, or of srun: impossible values, in the user's words
        if full_error():
            raise
        fail([error])
    from transformer_lab.run.launch import launch

    launch(values)


def trial(config: DictConfig) -> None:
    """A run that Hydra has composed: one of a sweep, or one that sets something of Hydra's own."""
    run(checked_trial(config))
