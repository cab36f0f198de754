"""Which units of data make which step: a pure function of (data, seed, epoch, step), with nothing to lose.

A unit is what the data is shuffled by: a block of a stream, or a pack of whole documents. Each epoch visits every
unit once, in an order that is computed, not stored: a keyed permutation made of a Feistel network (Luby and
Rackoff, 1988) on the next power of four, walked until it lands inside (Black and Rogaway, 2002).
"""

import hashlib
from dataclasses import dataclass

import numpy as np

ROUNDS = 4  # as many as make a Feistel network indistinguishable from a random permutation


@dataclass(frozen=True)
class BatchPlan:
    """Steps of `units_per_step` units each; the last step of an epoch takes what is left."""

    num_units: int
    units_per_step: int
    seed: int
    data: str  # fingerprint of the data: other data, another order

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.num_units // self.units_per_step)

    def step(self, number: int) -> np.ndarray:
        """The units of step `number`, counted from the start of the run: (units,) int64."""
        epoch, place = divmod(number, self.steps_per_epoch)
        begin = place * self.units_per_step
        positions = np.arange(begin, min(begin + self.units_per_step, self.num_units), dtype=np.uint64)
        return self._shuffled(positions, epoch)

    def key(self, epoch: int) -> int:
        """What everything random in the data of an epoch follows from, 64 bits."""
        return int.from_bytes(hashlib.sha256(f"{self.data} {self.seed} {epoch} draws".encode()).digest()[:8])

    def _shuffled(self, positions: np.ndarray, epoch: int) -> np.ndarray:
        key = hashlib.sha256(f"{self.data} {self.seed} {epoch}".encode()).digest()
        keys = np.frombuffer(key, dtype=np.uint64)[:ROUNDS]
        half = np.uint64(max(1, (self.num_units - 1).bit_length() + 1) // 2)
        shuffled = _permute(positions, keys, half)
        while (outside := shuffled >= self.num_units).any():
            shuffled[outside] = _permute(shuffled[outside], keys, half)
        return shuffled.astype(np.int64)


def _permute(values: np.ndarray, keys: np.ndarray, half: np.uint64) -> np.ndarray:
    """A permutation of the numbers below 4^half; `half` is the number of bits of either side."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (mix(right ^ key) & mask)
    return (left << half) | right


def mix(x: np.ndarray) -> np.ndarray:
    """Spread every bit over all 64 (the finaliser of SplitMix64; Steele et al., 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
