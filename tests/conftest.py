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


@pytest.fixture
def quick_passwords(monkeypatch):
    """Passwords are hashed by the same algorithm with less work."""
    from argon2 import PasswordHasher

    from headwater import password

    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(password, "_hasher", lambda: quick)
    monkeypatch.setattr(password, "_nobodys", lambda: quick.hash("nobody"))
