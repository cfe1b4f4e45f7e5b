"""What an operator may choose: `HEADWATER_*` in the environment, over `headwater.toml`, over the defaults below.

All problems are told at once; an unknown name is one of them, because a misspelt setting that is silently ignored is
found only when it was needed.
"""

from __future__ import annotations

import re
import tomllib
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from headwater.errors import ConfigError, near_miss

FILE_NAME = "headwater.toml"
PREFIX = "HEADWATER_"
# Read elsewhere, or before there is a configuration: the file's own place, and the test hook of `failpoint`.
# … and the key that commands show to a server somewhere else.
OTHER_VARIABLES = frozenset({"HEADWATER_API_KEY", "HEADWATER_CONFIG", "HEADWATER_FAILPOINT"})
STATE_DIRECTORY = Path(".headwater")
SECRET_FILE_BYTES_MAX = 64 * 1024
ALERT_SECRET_BYTES_MIN = 24

LogFormat = Literal["text", "json"]

ROLES = ("ingress", "worker", "ticker", "dashboard")  # of a process that serves

_POSTGRES = ("postgresql://", "postgres://")
_SECRET_OPTIONS = ("password", "sslpassword")
_USER = re.compile(r"(?:[^:@/?#\s%]|%[0-9a-fA-F]{2})*(?::(?:[^:@/?#\s%]|%[0-9a-fA-F]{2})*)?")
_HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|(?:[^:@/?#\s%\[\]]|%[0-9a-fA-F]{2})*)(?::\d*)?")


@dataclass(frozen=True)
class DatabaseUrl:
    """The URL of a PostgreSQL database; whatever prints it prints no password."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        head, mark, rest = self.url.partition("://")
        authority, slash, path = rest.partition("/")
        user, at, hosts = authority.rpartition("@")
        shown = f"{user.partition(':')[0]}:***" if ":" in user else user
        path = re.sub(rf"((?:^|[?&])(?:{'|'.join(_SECRET_OPTIONS)})=)[^&]*", r"\1***", path)
        return f"{head}{mark}{shown}{at}{hosts}{slash}{path}"

    def __repr__(self) -> str:
        return f"DatabaseUrl({str(self)!r})"

    @property
    def secrets(self) -> frozenset[str]:
        """The passwords in it, as written and as meant."""
        parts = urlsplit(self.url)
        written = {parts.password or ""}
        written |= {value for name, value in parse_qsl(parts.query) if name in _SECRET_OPTIONS}
        return frozenset(one for word in written for one in (word, unquote(word)) if one)


@dataclass(frozen=True, kw_only=True)
class Config:
    """One usable configuration; relative paths were made relative to where they were written."""

    directory: Path = Path()  # where it was read: projects are looked for here when none are named
    database: Path | DatabaseUrl = STATE_DIRECTORY / "headwater.db"  # the SQLite file, or a PostgreSQL database
    database_unsafe: bool = False  # take a PostgreSQL server that may lose what it acknowledged
    host: str = "127.0.0.1"  # where `serve` listens
    port: int = 8700  # likewise
    public_url: str | None = None  # how providers reach us; the address listened on, where it is not set
    projects: tuple[Path, ...] = ()  # connector project folders
    roles: frozenset[str] = frozenset(ROLES)  # what `serve` does in this process
    slots: int = 8  # runs carried out at once
    connection_slots: int = 4  # of these, for one connection
    key: str | None = field(default=None, repr=False)  # the key ring itself, instead of `key_file`
    key_file: Path = STATE_DIRECTORY / "headwater.key"  # the key ring; made beside the SQLite file
    retention_days: int = 30  # finished deliveries with their dedupe keys, and runs, are kept so long
    pending_max: int = 100_000  # deliveries that may wait before the ingress sheds load
    metrics_public: bool = False  # serve /metrics without a key on a host that is not loopback, too
    dashboard_public: bool = False  # likewise the dashboard and the API: only behind a proxy that authenticates
    # Proxies in front, as networks: only from these are forwarded headers believed.
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    alert_url: str | None = None  # where alerts are posted, signed
    alert_secret: str | None = field(default=None, repr=False)  # `whsec_…`, of Standard Webhooks
    alert_email_from: str = "headwater@localhost"  # the sender of mails
    smtp_url: str | None = field(default=None, repr=False)  # by which alerts are mailed
    breached_passwords: Path | None = None  # a file of SHA-1 hashes in order, of passwords that accounts may not take
    second_factor_required: bool = False  # an account without a second factor may do nothing but set one up
    bundles: bool = True  # run what was deployed to the store, before a folder of the same connector
    log_format: LogFormat = "text"  # `text` for people, `json` for programs
    log_level: str = "info"  # `debug`, `info`, `warning` or `error`, and what is above it

    @property
    def base_url(self) -> str:
        """The URL that endpoints begin with, without a closing slash."""
        return self.public_url.rstrip("/") if self.public_url else self.local_url

    @property
    def local_url(self) -> str:
        """The URL by which this machine reaches the server, without a closing slash."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104  compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def alert_secrets(self) -> frozenset[str]:
        """What alerts are signed and mailed with, as written and as meant."""
        password = urlsplit(self.smtp_url).password if self.smtp_url else None
        # The URL of a webhook is often the whole of its secret.
        found = (self.alert_secret, self.alert_url, password, unquote(password or ""))
        return frozenset(one for one in found if one)

    @property
    def is_loopback(self) -> bool:
        """Only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def load(environ: Mapping[str, str], *, directory: Path, file: Path | None = None, **overrides: Any) -> Config:
    """The configuration as seen from `directory`; `overrides` that are not None come before everything.

    The file is `file`, or `HEADWATER_CONFIG`, or `headwater.toml` in the directory if it is there. Raises `ConfigError`
    that lists every problem.
    """
    problems: list[str] = []
    values = _defaults_from(directory)
    path = file or (Path(environ["HEADWATER_CONFIG"]) if environ.get("HEADWATER_CONFIG") else None)
    values |= _from_file(directory / (path or FILE_NAME), required=path is not None, problems=problems)
    values |= _from_environment(environ, directory, problems)
    values |= {name: value for name, value in overrides.items() if value is not None}
    database = values["database"]
    beside = directory / STATE_DIRECTORY / "headwater.db" if isinstance(database, DatabaseUrl) else database
    values.setdefault("key_file", beside.with_suffix(".key"))
    if not isinstance(database, DatabaseUrl) and values.get("roles", Config.roles) != Config.roles:
        problems.append("roles can be split only over a PostgreSQL database: a SQLite file is served by one process.")
    if problems:
        raise ConfigError("The configuration is not usable:\n  " + "\n  ".join(problems))
    return Config(**values)


def _defaults_from(directory: Path) -> dict[str, Any]:
    return {"directory": directory, "database": directory / STATE_DIRECTORY / "headwater.db"}


def _from_file(path: Path, *, required: bool, problems: list[str]) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if required:
            problems.append(f"{path}: there is no such file.")
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(f"{path}: {error}")
        return {}
    values: dict[str, Any] = {}
    for name, raw in table.items():
        if name not in _READERS:
            hint = near_miss(name, _READERS)
            problems.append(f"{path}: unknown setting `{name}`{', ' + hint if hint else '.'}")
        else:
            _read(values, name, raw, directory=path.parent, where=f"{path}: {name}", problems=problems)
    return values


def _from_environment(environ: Mapping[str, str], directory: Path, problems: list[str]) -> dict[str, Any]:
    known = {PREFIX + name.upper(): name for name in _READERS}
    values: dict[str, Any] = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES:
            continue
        if variable in known:
            _read(values, known[variable], text, directory=directory, where=variable, problems=problems)
        else:
            hint = near_miss(variable, known)
            problems.append(f"unknown variable {variable}{', ' + hint if hint else '.'}")
    return values


def _read(values: dict[str, Any], name: str, raw: Any, *, directory: Path, where: str, problems: list[str]) -> None:
    try:
        values[name] = _READERS[name](raw, directory)
    except (TypeError, ValueError) as error:
        # What was given may be a secret: the problem says what was wanted, never what came.
        problems.append(f"{where} {error}.")


def database_named(text: str) -> Path | DatabaseUrl:
    """The database that a word of the command line means; `ConfigError` for a URL that is none."""
    try:
        return _database(text, Path())
    except ValueError as error:
        raise ConfigError(f"--database {error}.") from None


def secret_file(path: Path) -> str:
    """The text of a file that holds one secret, without the line end; `ConfigError` when it cannot be one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"The secret file {path} cannot be read: {error.strerror}.") from error
    if len(data) > SECRET_FILE_BYTES_MAX:
        raise ConfigError(f"The secret file {path} is larger than {SECRET_FILE_BYTES_MAX} bytes.")
    try:
        return data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"The secret file {path} is not UTF-8 text.") from error


def _text(raw: Any, directory: Path) -> str:  # noqa: ARG001
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError("must be a text that is not empty")
    return raw.strip()


def _url(raw: Any, directory: Path) -> str:
    text = _text(raw, directory)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be a URL such as https://hooks.example.com")
    return text.rstrip("/")


def _address(raw: Any, directory: Path) -> str:
    text = _text(raw, directory)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise ValueError("must be a URL such as https://alerts.example.com/hook")
    return text


def _signing_secret(raw: Any, directory: Path) -> str:
    text = _text(raw, directory)
    try:
        secret = b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        secret = b""
    if len(secret) < ALERT_SECRET_BYTES_MIN:
        raise ValueError(f"must be `whsec_` and the base64 of {ALERT_SECRET_BYTES_MIN} bytes or more")
    return text


def _email(raw: Any, directory: Path) -> str:
    text = _text(raw, directory)
    if not re.fullmatch(r"[^@\s<>,]+@[^@\s<>,]+", text):
        raise ValueError("must be an email address")
    return text


def _smtp(raw: Any, directory: Path) -> str:
    text = _text(raw, directory)
    parts = urlsplit(text)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname or parts.path.strip("/"):
        raise ValueError("must be a URL such as smtps://user:password@smtp.example.com")
    return text


def _path(raw: Any, directory: Path) -> Path:
    return directory / Path(_text(raw, directory)).expanduser()


def _database(raw: Any, directory: Path) -> Path | DatabaseUrl:
    text = _text(raw, directory)
    if "://" not in text:
        return _path(raw, directory)
    head = next((one for one in _POSTGRES if text.startswith(one)), None)
    authority = re.split(r"[/?]", text.removeprefix(head), maxsplit=1)[0] if head else ""
    user, _, hosts = authority.rpartition("@")
    # What libpq would read otherwise than meant, it would tell in its messages: a password among them.
    if head is None or not _USER.fullmatch(user) or not all(_HOST.fullmatch(one) for one in hosts.split(",")):
        raise ValueError(
            "must be a file, or a URL such as postgresql://user:password@host:5432/name"
            " (with :, @, /, ?, # and % of the password written as %3A, %40, %2F, %3F, %23 and %25)"
        )
    return DatabaseUrl(text)


def _paths(raw: Any, directory: Path) -> tuple[Path, ...]:
    parts = raw.split(":") if isinstance(raw, str) else raw
    if not isinstance(parts, list):
        raise ValueError("must be a list of folders (in the environment: separated by colons)")
    return tuple(_path(part, directory) for part in parts if part)


def _roles(raw: Any, directory: Path) -> frozenset[str]:  # noqa: ARG001
    words = raw.replace(",", " ").split() if isinstance(raw, str) else raw
    if not isinstance(words, list) or not words or not set(words) <= set(ROLES):
        raise ValueError(f"must be some of {', '.join(ROLES)}")
    return frozenset(words)


def _networks(raw: Any, directory: Path) -> tuple[IPv4Network | IPv6Network, ...]:  # noqa: ARG001
    words = raw.replace(",", " ").split() if isinstance(raw, str) else raw
    problem = "must be a list of networks such as 10.0.0.0/8 or 127.0.0.1 (in the environment: separated by commas)"
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(problem)
    try:
        return tuple(ip_network(word) for word in words)
    except ValueError:
        raise ValueError(problem) from None


def _number(minimum: int, maximum: int) -> Callable[[Any, Path], int]:
    def read(raw: Any, directory: Path) -> int:  # noqa: ARG001
        problem = f"must be a whole number from {minimum} to {maximum}"
        if isinstance(raw, bool) or not isinstance(raw, (int, str)):
            raise ValueError(problem)
        try:
            value = int(raw)
        except ValueError:
            raise ValueError(problem) from None
        if not minimum <= value <= maximum:
            raise ValueError(problem)
        return value

    return read


def _boolean(raw: Any, directory: Path) -> bool:  # noqa: ARG001
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    value = raw if isinstance(raw, bool) else words.get(str(raw).lower())
    if value is None:
        raise ValueError("must be true or false")
    return value


def _choice(*words: str) -> Callable[[Any, Path], str]:
    def read(raw: Any, directory: Path) -> str:  # noqa: ARG001
        if raw not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return str(raw)

    return read


_READERS: dict[str, Callable[[Any, Path], Any]] = {
    "database": _database,
    "database_unsafe": _boolean,
    "host": _text,
    "port": _number(0, 65_535),
    "public_url": _url,
    "projects": _paths,
    "roles": _roles,
    "slots": _number(1, 1_000),
    "connection_slots": _number(1, 1_000),
    "key": _text,
    "key_file": _path,
    "retention_days": _number(1, 36_500),
    "pending_max": _number(1, 1_000_000_000),
    "metrics_public": _boolean,
    "dashboard_public": _boolean,
    "trusted_proxies": _networks,
    "alert_url": _address,
    "alert_secret": _signing_secret,
    "alert_email_from": _email,
    "smtp_url": _smtp,
    "breached_passwords": _path,
    "second_factor_required": _boolean,
    "bundles": _boolean,
    "log_format": _choice("text", "json"),
    "log_level": _choice("debug", "info", "warning", "error"),
}
assert set(_READERS) | {"directory"} == {one.name for one in fields(Config)}, "each setting has its reader"
