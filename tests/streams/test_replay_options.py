import math
from typing import Any

import pytest

from streams.errors import ConfigError
from streams.replay_options import ReplayOptions, parse_speed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"week": 0}, "week: expected 1 to 10,000, found 0"),
        ({"week": 10**23}, "week: expected 1 to 10,000, found 1000"),
        ({"speed": 0.0}, "speed: expected event seconds per second above 0 or max, found 0"),
        ({"speed": math.nan}, "speed: expected .* found nan"),
        ({"rate": -1.0}, "rate: expected events per second above 0, found -1"),
        ({"rate": 5.0, "speed": 5.0}, "expected one of them"),
        (
            {"rate": 5.0, "arrival": "random"},
            "arrival: expected one of recorded, steady, poisson, bursty, found 'random'",
        ),
        ({"arrival": "poisson"}, "arrival poisson: expected a rate"),
        ({"limit": -1}, "limit: expected 0 or more"),
        ({"partitions": 0}, "partitions: expected 1 to 1,024, found 0"),
        ({"partitions": 32_768}, "partitions: expected 1 to 1,024, found 32768"),
        ({"seed": -1}, "seed: expected 0 or more, found -1"),
        ({"start": "soon"}, "start: expected .* found 'soon'"),
        ({"until": "31.12.2015"}, "until: expected a date such as 2015-01-31.* found '31.12.2015'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReplayOptions(**options)


def test_a_speed_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"speed: expected .* or max, found 'fast'"):
        parse_speed("fast")


def test_options_are_kept_as_json_that_says_what_is_meant() -> None:
    assert ReplayOptions().as_dict()["speed"] == 86_400.0
    assert ReplayOptions(speed=math.inf).as_dict()["speed"] == "max"
    assert ReplayOptions(rate=5.0).as_dict()["speed"] is None
