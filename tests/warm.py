"""What programs of the tests find done when they begin: the slow imports, and a config composed once, so that the
grammar of what is typed is known."""

import torch.utils.tensorboard  # noqa: F401

import transformer_lab.finished.loaded_run
import transformer_lab.run.train  # noqa: F401
from transformer_lab.commands.train import preflight

preflight(["model.dim=32", "name=warm"])
