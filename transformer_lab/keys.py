"""What a key of a config means besides its type, written where it is taken: `every_steps: Annotated[int, Above(0)]`.

The check before a run reads it there, in the source, and imports nothing for it.
"""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Above:
    """A number greater than `bound`."""

    bound: float


@dataclass(frozen=True)
class Between:
    """A number from `low` to `high`, either included."""

    low: float
    high: float


class Role(Enum):
    """What a key of a run is to that run when it goes on, and to a table of hyperparameters."""

    IDENTITY = "another value makes another run"
    LEARNING = "the same, but for resume=changed"
    FREE = "may be another when a run goes on (of data and tokenizer, hashes are compared: a file may move)"
    LIMIT = "the same, and ends the run; at least one limit is set"
    RECORD = "how a run is watched and kept: free, and no hyperparameter"
    PROCESS = "of one process on one machine: the same, and whoever goes on with a run chooses it himself"
