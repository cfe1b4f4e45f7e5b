"""Settings of every test: property tests are the same on each run unless PROPERTY_EXPLORE asks for new cases."""

import logging
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


@pytest.fixture
def log_as_before():
    """Commands set up the log of their process: it is put back."""
    loggers = [logging.getLogger(name) for name in (None, "uvicorn", "watchfiles")]
    before = [(one, one.level, list(one.handlers)) for one in loggers]
    yield
    for one, level, handlers in before:
        one.setLevel(level)
        one.handlers[:] = handlers


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys, log_as_before):
    """Command lines in a folder of their own."""
    from shell import Shell

    monkeypatch.chdir(tmp_path)
    return Shell(monkeypatch, capsys)
