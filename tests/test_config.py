"""The configuration: where a setting comes from, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater import config
from headwater.config import DatabaseUrl
from headwater.errors import ConfigError


def test_nothing_said_gives_the_defaults_below_the_directory(tmp_path: Path) -> None:
    chosen = config.load({}, directory=tmp_path)
    assert chosen.database == tmp_path / ".headwater/headwater.db"
    assert chosen.key_file == tmp_path / ".headwater/headwater.key"
    assert (chosen.host, chosen.port, chosen.base_url) == ("127.0.0.1", 8700, "http://127.0.0.1:8700")


def test_the_environment_comes_before_the_file_and_an_option_before_both(tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text('port = 1000\nslots = 3\ndatabase = "data/x.db"\n')
    chosen = config.load({"HEADWATER_PORT": "2000"}, directory=tmp_path)
    assert (chosen.port, chosen.slots, chosen.database) == (2000, 3, tmp_path / "data/x.db")
    assert config.load({"HEADWATER_PORT": "2000"}, directory=tmp_path, port=3000, host=None).port == 3000


def test_paths_in_a_file_are_relative_to_that_file(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "hw.toml"
    file.write_text('projects = ["stripe", "/opt/github"]\n')
    chosen = config.load({"HEADWATER_CONFIG": str(file)}, directory=tmp_path)
    assert chosen.projects == (tmp_path / "etc/stripe", Path("/opt/github"))
    assert config.load({"HEADWATER_PROJECTS": "a:b"}, directory=tmp_path).projects == (tmp_path / "a", tmp_path / "b")


def test_every_problem_is_told_at_once_with_its_near_miss(tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text('prot = 1\nlog_format = "xml"\npublic_url = "hooks.example.com"\n')
    environ = {"HEADWATER_SLOTS": "many", "HEADWATER_DATABSE": "x", "HEADWATER_FAILPOINT": "page.fetched"}
    with pytest.raises(ConfigError) as caught:
        config.load(environ, directory=tmp_path)
    message = str(caught.value)
    for part in (
        "unknown setting `prot`, did you mean `port`?",
        "log_format must be one of text, json",
        "public_url must be a URL",
        "HEADWATER_SLOTS must be a whole number from 1 to 1000",
        "unknown variable HEADWATER_DATABSE, did you mean `HEADWATER_DATABASE`?",
    ):
        assert part in message
    assert "FAILPOINT" not in message


@pytest.mark.parametrize("text", ["port = true", "port = 70000", 'projects = "one', "slots = 0", "host = ''"])
def test_a_value_of_the_wrong_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "headwater.toml").write_text(text)
    with pytest.raises(ConfigError):
        config.load({}, directory=tmp_path)


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        config.load({}, directory=tmp_path, file=tmp_path / "missing.toml")


def test_the_key_is_in_no_problem_and_in_no_repr(tmp_path: Path) -> None:
    chosen = config.load({"HEADWATER_KEY": "canary-key"}, directory=tmp_path)
    assert chosen.key == "canary-key"
    assert "canary-key" not in repr(chosen)


def test_a_secret_file_loses_its_line_end_alone(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b" spaced \r\n")
    assert config.secret_file(file) == " spaced "
    with pytest.raises(ConfigError, match="cannot be read"):
        config.secret_file(tmp_path / "missing")
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        config.secret_file(file)


@pytest.mark.parametrize(
    ("host", "loopback", "url"),
    [
        ("127.0.0.1", True, "http://127.0.0.1:8700"),
        ("::1", True, "http://[::1]:8700"),
        ("localhost", True, "http://localhost:8700"),
        ("0.0.0.0", False, "http://127.0.0.1:8700"),
        ("hooks.example.com", False, "http://hooks.example.com:8700"),
    ],
)
def test_what_is_loopback_and_what_url_it_gives(host: str, loopback: bool, url: str) -> None:
    chosen = config.Config(host=host)
    assert (chosen.is_loopback, chosen.base_url) == (loopback, url)
    public = config.Config(host=host, public_url="https://x.example/")
    assert (public.base_url, public.local_url) == ("https://x.example", url)


URL = "postgresql://hw:s3cret%40x@db.example.com:5432/headwater?sslmode=require&sslpassword=k3y"


def test_a_postgres_url_is_a_database_and_its_password_is_never_printed(tmp_path: Path) -> None:
    chosen = config.load({"HEADWATER_DATABASE": URL}, directory=tmp_path)
    assert isinstance(chosen.database, DatabaseUrl)
    assert chosen.database.url == URL
    assert chosen.key_file == tmp_path / ".headwater/headwater.key"
    for shown in (str(chosen.database), repr(chosen), f"{chosen.database!r}"):
        assert "s3cret" not in shown
        assert "k3y" not in shown
        assert "hw:***@db.example.com:5432/headwater?sslmode=require&sslpassword=***" in shown
    assert chosen.database.secrets == {"s3cret%40x", "s3cret@x", "k3y"}
    assert config.database_named(URL) == chosen.database
    assert config.database_named("data/x.db") == Path("data/x.db")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///headwater",
        "postgres://hw@/headwater?host=/run/postgresql",
        "postgresql://hw:@[::1]:5432,db-2:5433/headwater",
        "postgresql://%2Frun%2Fpostgresql/headwater",
    ],
)
def test_urls_of_sockets_and_of_several_hosts_are_taken_as_they_are(tmp_path: Path, url: str) -> None:
    (tmp_path / "headwater.toml").write_text(f'database = "{url}"\ndatabase_unsafe = true\n')
    chosen = config.load({}, directory=tmp_path)
    assert (str(chosen.database).replace("***", ""), chosen.database_unsafe) == (url, True)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://hw:s3cret@db/headwater",
        "postgresql://hw:s3cret@x@db/headwater",
        "postgresql://hw:s3cret/x@db/headwater",
        "postgresql://hw:s3cret%zz@db/headwater",
        "postgresql://hw:s3cret?x@db/headwater",
    ],
)
def test_a_url_that_would_be_read_otherwise_than_meant_is_refused_without_showing_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="HEADWATER_DATABASE must be a file, or a URL") as caught:
        config.load({"HEADWATER_DATABASE": url}, directory=tmp_path)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigError, match="--database must be"):
        config.database_named(url)


def test_roles_are_split_only_over_postgres(tmp_path: Path) -> None:
    assert config.load({}, directory=tmp_path).roles == {"ingress", "worker", "ticker", "dashboard"}
    with pytest.raises(ConfigError, match="a SQLite file is served by one process"):
        config.load({"HEADWATER_ROLES": "worker"}, directory=tmp_path)
    given = {"HEADWATER_ROLES": "worker, ticker", "HEADWATER_DATABASE": URL}
    assert config.load(given, directory=tmp_path).roles == {"worker", "ticker"}
    with pytest.raises(ConfigError, match="HEADWATER_ROLES must be some of ingress, worker"):
        config.load(given | {"HEADWATER_ROLES": "wroker"}, directory=tmp_path)
