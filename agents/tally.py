"""What each variant of the experiment was shown and what came of it, as counts, and as metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

__all__ = ["Tally", "add_tallies", "tally_figures"]


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of a variant. slates: made, or answered; shown, clicks: movies of those of which it is told."""

    slates: int = 0
    shown: int = 0
    clicks: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.slates + other.slates, self.shown + other.shown, self.clicks + other.clicks)


def add_tallies(parts: Iterable[Mapping[str, Tally]]) -> dict[str, Tally]:
    """The sum for each variant, by its name.

    >>> add_tallies([{"b": Tally(1)}, {"a": Tally(2, 10, 1), "b": Tally(3)}])
    {'a': Tally(slates=2, shown=10, clicks=1), 'b': Tally(slates=4, shown=0, clicks=0)}
    """
    total: dict[str, Tally] = {}
    for part in parts:
        for variant, tally in part.items():
            total[variant] = total.get(variant, Tally()) + tally
    return dict(sorted(total.items()))


def tally_figures(
    name: str, tallies: Mapping[str, Tally], labels: Mapping[str, str]
) -> Iterator[tuple[str, float, dict[str, str]]]:
    """``NAME.slates`` of each variant, and where anything was told of some, ``NAME.clicks`` and ``NAME.ctr``.

    labels: of each but the first, beside the variant's name.
    """
    for variant, tally in tallies.items():
        of_variant = {"variant": variant}
        yield f"{name}.slates", tally.slates, of_variant
        if tally.shown:
            yield f"{name}.clicks", tally.clicks, of_variant | dict(labels)
            yield f"{name}.ctr", tally.clicks / tally.shown, of_variant | dict(labels)
