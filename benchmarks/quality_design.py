"""The ways to draw that `bench quality` compares: one factor at a time around a base, or all combinations."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

OWN, TINY = "own", "embedded-tiny"


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One way to draw. `decoder` is `own` or what `generator.decoder` may be."""

    steps: int
    guidance: float
    decoder: str
    precision: str

    @property
    def label(self) -> str:
        """For people."""
        steps = "1 step" if self.steps == 1 else f"{self.steps} steps"
        return f"{steps}, guidance {self.guidance:g}, {self.decoder} decoder, {self.precision}"

    @property
    def cost(self) -> float:
        """How long an image takes beside others, roughly: evaluations of the UNet, twice with guidance; a
        decoder is about one of them.
        """
        evaluations = self.steps * (1 if self.guidance == 1 else 2)
        return (evaluations + 1) * (2 if self.precision == "float32" else 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """The values of each factor."""

    steps: Sequence[int]
    guidance: Sequence[float]
    decoders: Sequence[str]
    precisions: Sequence[str]


def one_at_a_time(base: Setting, axes: Axes) -> list[Setting]:
    """The base, each other value of each factor with the rest as in the base, and a few combinations, which
    are likely to be chosen or to be the best that the model gives. No setting twice.
    """
    s, g, d, p = base.steps, base.guidance, base.decoder, base.precision
    others = [Setting(steps=value, guidance=g, decoder=d, precision=p) for value in axes.steps]
    others += [Setting(steps=s, guidance=value, decoder=d, precision=p) for value in axes.guidance]
    others += [Setting(steps=s, guidance=g, decoder=value, precision=p) for value in axes.decoders]
    others += [Setting(steps=s, guidance=g, decoder=d, precision=value) for value in axes.precisions]
    # The time that the last decoder saves, spent on steps or on guidance; then what costs time, together.
    others.append(Setting(steps=axes.steps[-1], guidance=g, decoder=axes.decoders[-1], precision=p))
    if len(axes.guidance) > 1:
        guided, middle = axes.guidance[1], len(axes.steps) // 2
        others.append(Setting(steps=s, guidance=guided, decoder=axes.decoders[-1], precision=p))
        others.append(
            Setting(steps=axes.steps[middle], guidance=guided, decoder=d, precision=axes.precisions[-1])
        )
    return list(dict.fromkeys([base, *others]))


def full_grid(base: Setting, axes: Axes) -> list[Setting]:
    """The base, then the product of all factors. No setting twice."""
    combined = product(axes.steps, axes.guidance, axes.decoders, axes.precisions)
    settings = [Setting(steps=s, guidance=g, decoder=d, precision=p) for s, g, d, p in combined]
    return list(dict.fromkeys([base, *settings]))
