"""Learning-rate schedules: warm up (Vaswani et al., 2017, arXiv:1706.03762), then come down in one of five ways."""

import math


class Schedule:
    """A pure function of the step: which factor of the peak learning rate the update number `step` takes.

    A subclass says what follows the warm-up, in `after_warmup`.
    """

    def __init__(self, *, total_steps: int | None, warmup_steps: int):
        if total_steps is not None and total_steps < 1:
            raise ValueError(f"schedule.total_steps: a run takes at least 1 step, got {total_steps}")
        if warmup_steps < 0:
            raise ValueError(f"schedule.warmup_steps: must be 0 or more, got {warmup_steps}")
        if total_steps is not None and warmup_steps > total_steps:
            raise ValueError(
                f"schedule.warmup_steps: {warmup_steps} warm-up steps are longer than the run of {total_steps} steps"
            )
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps  # + 1: a first update with a rate of 0 would be wasted
        return self.after_warmup(step)

    def after_warmup(self, step: int) -> float:
        raise NotImplementedError


class Constant(Schedule):
    """The peak throughout."""

    def __init__(self, *, total_steps: int | None = None, warmup_steps: int = 0):
        super().__init__(total_steps=total_steps, warmup_steps=warmup_steps)

    def after_warmup(self, step: int) -> float:
        return 1.0


class InverseSqrt(Schedule):
    """Down with the square root of the step (Vaswani et al., 2017, arXiv:1706.03762): needs no end."""

    def __init__(self, *, total_steps: int | None = None, warmup_steps: int):
        super().__init__(total_steps=total_steps, warmup_steps=warmup_steps)
        if warmup_steps < 1:
            raise ValueError("schedule.warmup_steps: InverseSqrt needs at least 1, its curve starts from there")

    def after_warmup(self, step: int) -> float:
        return math.sqrt(self.warmup_steps / (step + 1))


class Decay(Schedule):
    """Comes down towards the end of the run, so the end must be known."""

    total_steps: int

    def __init__(self, *, total_steps: int | None, warmup_steps: int):
        if total_steps is None:
            raise ValueError(
                f"schedule: {type(self).__name__} must know how many steps the run takes, and minutes do not tell; "
                "set max_steps, or choose schedule=constant or schedule=inverse_sqrt"
            )
        super().__init__(total_steps=total_steps, warmup_steps=warmup_steps)

    def ahead(self, step: int, steps: float) -> float:
        """The share of the last `steps` steps that still lies ahead."""
        return min(1.0, max(0.0, (self.total_steps - step) / steps))


class WarmupStableDecay(Decay):
    """The peak, then straight down to zero over the last part (Hu et al., 2024, arXiv:2404.06395)."""

    def __init__(self, *, total_steps: int | None, warmup_steps: int = 0, decay_fraction: float):
        super().__init__(total_steps=total_steps, warmup_steps=warmup_steps)
        if not 0 < decay_fraction <= 1:
            raise ValueError(f"schedule.decay_fraction: must be above 0 and at most 1, got {decay_fraction}")
        self.decay_steps = decay_fraction * self.total_steps
        if warmup_steps > self.total_steps - self.decay_steps:
            raise ValueError(
                f"schedule.warmup_steps: {warmup_steps} warm-up steps reach into the decay, "
                f"the last {self.decay_steps:g} of {total_steps} steps"
            )

    def after_warmup(self, step: int) -> float:
        return self.ahead(step, self.decay_steps)


class Linear(Decay):
    """Straight down from the end of the warm-up to `floor` (Devlin et al., 2019, arXiv:1810.04805)."""

    def __init__(self, *, total_steps: int | None, warmup_steps: int, floor: float = 0.0):
        super().__init__(total_steps=total_steps, warmup_steps=warmup_steps)
        if not 0 <= floor <= 1:
            raise ValueError(f"schedule.floor: a share of the peak, from 0 to 1, got {floor}")
        self.floor = floor

    def after_warmup(self, step: int) -> float:
        ahead = self.ahead(step, max(1, self.total_steps - self.warmup_steps))
        return self.floor + (1 - self.floor) * self.shape(ahead)

    def shape(self, ahead: float) -> float:
        return ahead


class Cosine(Linear):
    """Down along half a cosine instead of a line (Loshchilov and Hutter, 2017, arXiv:1608.03983)."""

    def shape(self, ahead: float) -> float:
        return (1 - math.cos(math.pi * ahead)) / 2
