"""The fixtures as another project meets them: pytest in a folder of its own, with nothing but the installed plugin."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from streams.testing import BROKER_VARIABLE

PLUGIN = "streamlens.pytest_plugin"
INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project whose pytest is a process of its own: it must not find what this one has imported."""
    pytester.makefile(".ini", pytest=INI)
    pytester.plugins = [PLUGIN]
    return pytester


def test_pytest_finds_it_where_streamlens_is_installed() -> None:
    (found,) = entry_points(group="pytest11", name=PLUGIN)  # named as its module, so that `-p` makes no second one
    assert found.value == PLUGIN


def test_it_imports_nothing_heavy_before_a_fixture_asks() -> None:
    code = f"import sys, {PLUGIN}; print(sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    for package in ("streams", "numpy", "msgspec", "faust", "aiokafka", "testcontainers", "docker", "sqlite3"):
        assert f"'{package}'" not in done.stdout


def test_a_bus_is_open_has_a_runs_topics_and_is_the_tests_own(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        from streams import open_bus
        from streams.events import TOPICS
        from streams.testing import collect, publish_retrain

        pytestmark = pytest.mark.streamlens_bus("memory", "sqlite")

        @pytest.mark.parametrize("turn", [1, 2])
        async def test_it(streamlens_bus, streamlens_bus_url, turn):
            assert set(await streamlens_bus.topics()) == set(TOPICS)
            await publish_retrain(streamlens_bus)
            async with open_bus(streamlens_bus_url) as same:
                assert len(await collect(same, "retrain", 1)) == 1
        """
    )
    project.runpytest_subprocess("-v").assert_outcomes(passed=4)


def test_without_a_marker_the_option_chooses_the_bus(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(streamlens_bus_url): print(streamlens_bus_url.partition('://')[0])")
    project.runpytest_subprocess("-s").stdout.fnmatch_lines(["*memory*"])
    project.runpytest_subprocess("-s", "--streamlens-bus", "sqlite").stdout.fnmatch_lines(["*sqlite*"])


def test_an_unknown_bus_is_refused_by_name(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.streamlens_bus("rabbit")
        def test_it(streamlens_bus_url): pass
        """
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*expected memory, sqlite, kafka, found 'rabbit'*"])


def test_without_a_broker_a_test_is_skipped_with_a_reason_or_fails_where_one_is_required(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BROKER_VARIABLE, raising=False)
    monkeypatch.delenv("STREAMLENS_TEST_KAFKA_REQUIRED", raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project.path}/no-docker.sock")
    project.makepyfile(
        """
        import pytest

        @pytest.mark.streamlens_bus("memory", "kafka")
        def test_it(streamlens_bus_url): pass
        """
    )
    result = project.runpytest_subprocess("-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines([f"SKIPPED*{BROKER_VARIABLE}=HOST:PORT*"])
    monkeypatch.setenv("STREAMLENS_TEST_KAFKA_REQUIRED", "1")
    project.runpytest_subprocess().assert_outcomes(passed=1, errors=1)


@pytest.mark.broker
def test_on_kafka_the_tests_topics_are_its_own_and_gone_afterwards(
    project: pytest.Pytester, streamlens_broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BROKER_VARIABLE, streamlens_broker)
    project.makepyfile(
        """
        import pytest
        from streams import open_bus
        from streams.testing import collect, publish_retrain

        made = []

        @pytest.mark.parametrize("turn", [1, 2])
        @pytest.mark.streamlens_bus("kafka")
        async def test_it(streamlens_bus, streamlens_bus_url, turn):
            await publish_retrain(streamlens_bus)
            assert len(await collect(streamlens_bus, "retrain", 1)) == 1
            made.append(streamlens_bus_url)

        async def test_after_it():
            assert len(set(made)) == 2
            for url in made:
                async with open_bus(url) as bus:
                    assert await bus.topics() == {}
        """
    )
    project.runpytest_subprocess().assert_outcomes(passed=3)


def test_the_clock_stands_until_it_is_moved_and_the_stream_can_be_published_and_redelivered(
    project: pytest.Pytester,
) -> None:
    project.makepyfile(
        """
        from streams.testing import collect

        def test_clock(streamlens_clock):
            before = streamlens_clock.time()
            streamlens_clock.advance(60)
            assert streamlens_clock.time() == before + 60

        async def test_stream(streamlens_bus, streamlens_stream):
            await streamlens_stream.publish(streamlens_bus)
            await streamlens_stream.publish(streamlens_bus)
            metrics = streamlens_stream.values("metrics")
            assert await collect(streamlens_bus, "metrics", 2 * len(metrics)) == metrics + metrics
        """
    )
    project.runpytest_subprocess().assert_outcomes(passed=2)


def test_where_pytest_asyncio_is_off_the_message_names_the_fixture(project: pytest.Pytester) -> None:
    project.makefile(".ini", pytest="[pytest]\nfilterwarnings = error\n")
    project.makepyfile("def test_it(streamlens_bus): pass")
    result = project.runpytest_subprocess("-p", "no:asyncio")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*async fixture*streamlens_bus*"])
