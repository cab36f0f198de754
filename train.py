"""The one entry point: `python train.py --help` shows what can be chosen."""

import signal
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from transformer_lab.composition.checks import fail, full_error, problems
from transformer_lab.composition.command_line import defaults, preflight
from transformer_lab.composition.going_on import gone_on_with
from transformer_lab.composition.importing import importable, keep_out
from transformer_lab.renamed import config_of_today


def main(config: DictConfig) -> None:
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    values = config_of_today(values)
    try:
        values = gone_on_with(values, HydraConfig.get().overrides.task, defaults)
    except ValueError as error:
        fail([str(error)])
    importable(values.get("extensions") or [])  # in a process that a launcher has started, too
    # Once more: a sweeper chooses values that the command line did not show.
    if found := problems(values, typed=values.get("extensions") or []):
        fail(found)
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
        fail([str(error)])
    from transformer_lab.run.launch import launch

    launch(values)


if __name__ == "__main__":
    keep_out()
    try:
        sys.argv[1:], config = preflight(sys.argv[1:])
        if config is None:  # a sweep, or something that Hydra itself answers
            hydra.main(version_base="1.3", config_path="configs", config_name="train")(main)()
        else:
            main(config)
    except KeyboardInterrupt:  # outside of training, which looks after itself
        fail(["interrupted"], 130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is saved and said: Ctrl-C needs no traceback now
