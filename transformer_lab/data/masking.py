"""Which tokens of a sequence are hidden, and what stands in their place (Devlin et al., 2019, arXiv:1810.04805, 3.1).

Everything is a function of a key and of the place: nothing has a state, so a resumed run hides the same tokens, on any
number of devices and in micro-batches of any size.
"""

from dataclasses import dataclass

import numpy as np

from transformer_lab.data.plan import mix

MASKED, REPLACED = 0.8, 0.1  # shares of the hidden tokens; the rest stays as it is
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads neighbouring numbers


@dataclass(frozen=True)
class Masking:
    """Hides each ordinary token with this `probability`: of a sequence a fixed number, but for a fair draw of what is
    left of it behind the point.

    `mask` is the token that stands for a hidden one, `ordinary` are the tokens that may be hidden and replace others.
    With `continues`, which says of each token of the vocabulary whether it continues a word, whole words are hidden
    (whole-word masking, published with BERT in 2019).
    """

    probability: float
    mask: int
    ordinary: np.ndarray
    continues: np.ndarray | None = None

    def __call__(self, tokens: np.ndarray, sequence: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tokens (N,) with some hidden, and the indices (M,) of those: ascending.

        `sequence` (N,) says which sequence a token is of, ascending from 0; `seeds` (B,) has 64 bits for each.
        """
        candidates = np.flatnonzero(np.isin(tokens, self.ordinary))
        of = sequence[candidates]
        draws = mix(seeds[of] + (candidates - np.searchsorted(sequence, of)).astype(np.uint64) * GOLDEN)
        indices = candidates[self._chosen(tokens[candidates], candidates, of, draws, len(seeds))]
        kind = _uniform(mix(draws[np.searchsorted(candidates, indices)] ^ GOLDEN))
        hidden = tokens.copy()
        hidden[indices[kind < MASKED]] = self.mask
        replaced = (kind >= MASKED) & (kind < MASKED + REPLACED)
        random = mix(draws[np.searchsorted(candidates, indices[replaced])] + GOLDEN) % np.uint64(len(self.ordinary))
        hidden[indices[replaced]] = self.ordinary[random.astype(np.int64)]
        return hidden, indices

    def _chosen(
        self, tokens: np.ndarray, indices: np.ndarray, of: np.ndarray, draws: np.ndarray, count: int
    ) -> np.ndarray:
        """Which of the candidates are hidden: (candidates,) bool."""
        begins = np.ones(len(tokens), dtype=bool)  # of words
        if self.continues is not None:
            follows = (indices[1:] == indices[:-1] + 1) & (of[1:] == of[:-1])
            begins[1:] = ~(self.continues[tokens[1:]] & follows)
        word = np.cumsum(begins) - 1
        first = np.flatnonzero(begins)
        lengths = np.diff(np.append(first, len(tokens)))
        own = of[first]  # the sequence of each word
        order = np.lexsort((draws[first], own))  # the words of each sequence in random order
        ends = np.cumsum(lengths[order])
        per_sequence = np.bincount(of, minlength=count)
        before = np.cumsum(per_sequence) - per_sequence
        starts = np.empty(len(first), dtype=np.int64)  # tokens of the sequence's words that come earlier in that order
        starts[order] = ends - lengths[order] - before[own[order]]
        # The word that crosses the border is taken with the probability that makes the mean exact.
        fraction = _uniform(mix(draws[first] ^ (GOLDEN >> np.uint64(1))))
        return (starts + fraction * lengths < self.probability * per_sequence[own])[word]


def _uniform(bits: np.ndarray) -> np.ndarray:
    """From 0 to below 1."""
    return (bits >> np.uint64(11)).astype(np.float64) / 2**53
