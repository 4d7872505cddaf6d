"""Users are split by a hash: as the weights say, for good, and anew for each experiment."""

from __future__ import annotations

from collections import Counter

import pytest

from agents.variants import Experiment, Variant
from streams.errors import ConfigError

VARIANTS = (Variant("a", 50, "champion"), Variant("b", 25, "ease"), Variant("c", 25, "popularity"))


def test_users_are_split_as_the_weights_say() -> None:
    counts = Counter(Experiment("test", VARIANTS).variant_of(user).name for user in range(20_000))
    for name, share in (("a", 0.5), ("b", 0.25), ("c", 0.25)):
        assert abs(counts[name] / 20_000 - share) < 0.01


def test_a_user_stays_where_the_first_release_put_it() -> None:
    """Whoever changes the hash changes every running experiment."""
    assert "".join(Experiment("test", VARIANTS).variant_of(user).name for user in range(16)) == "caaaabbcccaabbcc"


def test_another_experiment_splits_anew() -> None:
    first, second = Experiment("first", VARIANTS), Experiment("second", VARIANTS)
    same = sum(first.variant_of(user) == second.variant_of(user) for user in range(8_000)) / 8_000
    assert abs(same - (0.5**2 + 2 * 0.25**2)) < 0.02


def test_what_a_variant_shows_does_not_move_its_users() -> None:
    other = tuple(Variant(v.name, v.weight * 3, "mf") for v in VARIANTS)
    before, after = Experiment("test", VARIANTS), Experiment("test", other)
    assert all(before.variant_of(user).name == after.variant_of(user).name for user in range(500))


@pytest.mark.parametrize(
    ("variants", "expected"),
    [
        ((), "one or more"),
        ((Variant("a", 1, "ease"), Variant("a", 1, "mf")), "different names"),
        ((Variant("a", 0, "ease"),), "above 0"),
        ((Variant("a", float("nan"), "ease"),), "above 0"),
    ],
)
def test_what_is_no_experiment_is_refused(variants: tuple[Variant, ...], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Experiment("test", variants)
