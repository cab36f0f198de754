"""How Lightning is told that several ranks train one model."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from transformer_lab.training.ranks import together


class SummedGradients(DDPStrategy):
    """Lightning's DDP without its wrapper: a step adds up gradients itself, once, behind its last micro-batch.

    The wrapper averages behind each of them, and waits for ever where ranks have different numbers of micro-batches.
    """

    def __init__(self) -> None:
        super().__init__(cluster_environment=TorchElasticEnvironment())

    def configure_ddp(self) -> None:
        pass

    def setup(self, trainer: Trainer) -> None:
        super().setup(trainer)
        # At each step Lightning asks all ranks for a SIGTERM, which `Signals` sees to, and passes over what goes wrong
        # then: a lost rank would be waited for twice.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    # Lightning and its callbacks wait for other ranks by these.

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        with together():
            super().barrier(*args, **kwargs)

    def broadcast(self, *args: Any, **kwargs: Any) -> Any:
        with together():
            return super().broadcast(*args, **kwargs)

    def reduce(self, *args: Any, **kwargs: Any) -> Any:
        with together():
            return super().reduce(*args, **kwargs)
