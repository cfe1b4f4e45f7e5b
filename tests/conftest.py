"""Settings of every test: property tests are the same on each run unless PROPERTY_EXPLORE asks for new cases."""

import os

import hypothesis
import pytest

EXPLORE = bool(os.environ.get("PROPERTY_EXPLORE"))

hypothesis.settings.register_profile(
    "headwater",
    derandomize=not EXPLORE,
    database=None,
    deadline=None,
    max_examples=int(os.environ.get("PROPERTY_EXAMPLES", "100")),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("headwater")


@pytest.fixture(scope="session")
def postgres_server():
    from postgres_server import serving

    with serving() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server):
    with postgres_server.database() as url:
        yield url
