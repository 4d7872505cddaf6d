"""The rules of the ``ratings`` topic as `verify` has them, against those of the ingest path."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.verify_log import PartitionPass, kept_part, payload_crc
from streams.batch import KEPT_BYTES, InvalidRecord, decode_ratings
from streams.events import DAY_S, RATINGS
from streams.records import RecordBatch

NOW_MS = 1_700_000_000_000

LITERALS = [
    *(
        "1",
        "0",
        "-0",
        "-1",
        "1.0",
        "1e3",
        "01",
        "+1",
        "4.5",
        "0.5",
        "5",
        "5.5",
        "0.25",
        "-0.0",
        "5e-1",
        "1e400",
        ".5",
        "1.",
    ),
    *(
        "true",
        "false",
        "null",
        "NaN",
        "Infinity",
        "-Infinity",
        '"1"',
        '""',
        '"rating"',
        '"tick"',
        '"run"',
        '"é"',
        '"a:b"',
    ),
    *(str(2**63 - 1), str(2**63), str(-(2**63) - 1), str(2**64), "1" + "0" * 400, "1" + "0" * 4_299, "1" + "0" * 4_300),
    *("1000000000", "631151999", "631152000", str(NOW_MS // 1_000), str(NOW_MS // 1_000 + 1)),
    *(
        "[]",
        "{}",
        '[{"user_id":1}]',
        '{"user_id":9}',
        '"}"',
        '"{"',
        '"}\\n{"',
        '"\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\udc80"',
    ),
    *('"\\u0000"', '"\\\\ud800"', '"\\x"', '"a\tb"', '"\x7f"', "tru", "", "[1,]", '"open'),
]
FIELDS = ["user_id", "movie_id", "rating", "timestamp", "source", "event_id", "type", "event_time", "heartbeat"]
KEYS = [*FIELDS, "end_of_run", "other", "user\\u005fid", "é"]
GOOD = {"user_id": "7", "movie_id": "9", "rating": "3.5", "timestamp": "1000000000", "source": '"run"', "event_id": "4"}
GOOD_TICK = {"type": '"tick"', "event_time": "1000000000"}

good_ratings = st.integers(0, 40).map(lambda n: list((GOOD | {"event_id": str(n)}).items()))
some_fields = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(LITERALS)), max_size=3)
base = st.one_of(good_ratings, st.just(list(GOOD_TICK.items())))
objects = st.tuples(base, some_fields, st.randoms(use_true_random=False))
spaces = st.sampled_from(["", "", "", " ", "\t", "\r", "\n", "\x0b", "\ufeff"])


@st.composite
def odd_records(draw: st.DrawFn) -> bytes:
    """A record that is nearly right: fields replaced, repeated, mistyped, spaced out, cut, or with a stray byte."""
    pairs, more, random = draw(objects)
    if draw(st.booleans()) and more:
        pairs = [pair for pair in pairs if pair[0] != more[0][0]]
    pairs = pairs + more
    random.shuffle(pairs)
    space, colon = draw(spaces), draw(st.sampled_from([":", ":", " : "]))
    text = space + "{" + ",".join(f'"{name}"{colon}{value}' for name, value in pairs) + "}" + draw(spaces)
    value = text.encode()
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(value)))
        value = value[:at] + draw(st.binary(max_size=2)) + value[at + draw(st.integers(0, 2)) :]
    return value


plain_records = good_ratings.map(lambda pairs: ("{" + ",".join(f'"{n}":{v}' for n, v in pairs) + "}").encode())


def batch_of(values: list[bytes]) -> RecordBatch:
    joined = b"\n".join(values)
    lines = joined if joined.count(b"\n") == len(values) - 1 else None
    n = len(values)
    return RecordBatch(RATINGS, 0, np.arange(n), np.full(n, NOW_MS, np.int64), n, lines, None if lines else values)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(odd_records(), plain_records, st.binary(max_size=8)), min_size=1, max_size=20))
def test_it_reads_every_record_as_the_decoder_does(values: list[bytes]) -> None:
    batch = batch_of(values)
    decoded = decode_ratings(batch)
    one_pass = PartitionPass(lateness_s=DAY_S)
    facts, invalid = one_pass.read(batch)
    anonymous = decoded.source < 0
    seen: dict[int, int] = {}
    new = []
    for at, (source, event_id) in enumerate(zip(decoded.source.tolist(), decoded.event_id.tolist(), strict=True)):
        if anonymous[at] or event_id > seen.get(source, -1):
            new.append(at)
            seen |= {} if anonymous[at] else {source: event_id}
    wanted = [decoded.offset, decoded.user_id, decoded.movie_id, decoded.half_stars, decoded.timestamp]
    assert [column.tolist() for column in facts[:5]] == [column[new].tolist() for column in wanted]
    assert invalid[0].tolist() == [record.offset for record in decoded.invalid]
    assert invalid[1].tolist() == [len(record.payload) for record in decoded.invalid]
    assert invalid[2].tolist() == [payload_crc(record.payload) for record in decoded.invalid]
    assert one_pass.newest == {decoded.sources[source]: event_id for source, event_id in seen.items()}
    assert one_pass.clock == max(decoded.tick_time.tolist(), default=0)
    assert one_pass.closed == max(decoded.tick_time[decoded.tick_boundary].tolist(), default=0)
    assert one_pass.end_of_run == decoded.end_of_run
    assert one_pass.duplicates == len(decoded) - len(new)


@pytest.mark.parametrize("name", KEYS)
def test_it_judges_every_literal_in_every_field_as_the_decoder_does(name: str) -> None:
    differ = []
    for literal in LITERALS:
        for rest in (GOOD, GOOD_TICK):
            text = "{" + ",".join(f'"{key}":{value}' for key, value in (rest | {name: literal}).items()) + "}"
            facts, invalid = PartitionPass(lateness_s=0).read(batch_of([text.encode()]))
            decoded = decode_ratings(batch_of([text.encode()]))
            if len(facts[0]) != len(decoded) or len(invalid[0]) != len(decoded.invalid):
                differ.append(text[:100])
    assert differ == []


def test_lines_that_are_records_only_when_joined_are_judged_one_by_one() -> None:
    good = b'{"user_id":7,"movie_id":9,"rating":3.5,"timestamp":1000000000'
    two_records = [good + b"}," + good + b',"source":"}', b'{"}']
    one_record = [good + b',"source":"}', b'{"}']
    for values in (two_records, one_record):
        facts, invalid = PartitionPass(lateness_s=0).read(batch_of(values))
        assert (len(facts[0]), invalid[0].tolist()) == (0, [0, 1])
        assert len(decode_ratings(batch_of(values)).invalid) == 2


def test_duplicates_are_judged_per_source_by_the_highest_id_before() -> None:
    one_pass = PartitionPass(lateness_s=0)
    ids = [("a", 3), ("a", 2), ("b", 2), ("a", 3), ("a", 4), ("b", 2), ("", 0), ("", 0)]
    line = '{"user_id":1,"movie_id":2,"rating":3,"timestamp":1000000000,"source":"%s","event_id":%d}'
    values = [(line % identity).encode() for identity in ids]
    facts = [one_pass.read(batch_of([value]))[0] for value in values]
    assert [len(columns[0]) for columns in facts] == [1, 0, 1, 0, 1, 0, 1, 0]
    assert one_pass.newest == {"a": 4, "b": 2, "": 0}
    assert (one_pass.ratings, one_pass.duplicates) == (4, 4)


@pytest.mark.parametrize("huge", ["1" + "0" * 400, "-1e400"])
def test_a_rating_beyond_a_double_is_invalid_even_if_another_follows(huge: str) -> None:
    value = b'{"user_id":7,"movie_id":9,"rating":%s,"rating":3.5,"timestamp":1000000000}' % huge.encode()
    assert decode_ratings(batch_of([value])).invalid
    facts, invalid = PartitionPass(lateness_s=0).read(batch_of([value]))
    assert (len(facts[0]), invalid[0].tolist()) == (0, [0])


_ENDS = [*map(str.encode, "xé€\U0001f600\x00"), b"\xff", b"\xe2", b"\xed\xa0", b"\xf0\x9f"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(_ENDS), min_size=3, max_size=8), st.integers(0, 6))
def test_letter_and_check_cut_a_large_record_at_the_same_byte(ends: list[bytes], before: int) -> None:
    value = b"y" * (KEPT_BYTES - before) + b"".join(ends)
    letter = InvalidRecord(0, "why", value).dead_letter("ratings", 0)
    kept = base64.b64decode(letter.payload) if letter.encoding == "base64" else letter.payload.encode()
    assert kept == kept_part(value)
    assert letter.size == (len(value) if len(value) > KEPT_BYTES else None)
