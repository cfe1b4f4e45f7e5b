"""nginx and Caddy, as `deploy/` has them, before two nodes: signed bytes arrive, limits hold, one node may fall."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from served import Server, headwater, serving, until

from headwater import catalog
from headwater.testing.signer import signed
from loopback import WEBHOOK_SECRET

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
NAME = "hooks.example.com"
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Site:
    """A proxy under way; requests come from the world, by the name of the site."""

    port: int

    def ask(self, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        context = ssl._create_unverified_context()  # its certificate is a test's own
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as plain:
            connection = http.client.HTTPConnection(NAME, timeout=30)
            connection.sock = context.wrap_socket(plain, server_hostname=NAME)
            try:
                connection.request("POST" if body is not None else "GET", path, body, headers or {})
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (BrokenPipeError, ConnectionResetError):
                # What is refused by its length alone is not read to the end: the answer may be there all the same.
                answer = connection.response_class(connection.sock, method="POST")
                answer.begin()
                return answer.status, b""
            finally:
                connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def certify(folder: Path) -> tuple[Path, Path]:
    """A certificate of the site's name, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "fullchain.pem", folder / "privkey.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


def nginx(folder: Path, port: int, upstreams: list[str]) -> list[str]:
    certificate, private = certify(folder)
    site = (DEPLOY / "nginx.conf").read_text()
    site = site.replace("    server 127.0.0.1:8700;\n", "".join(f"    server {one};\n" for one in upstreams))
    site = site.replace("listen 443 ssl http2;", f"listen 127.0.0.1:{port} ssl http2;")
    site = re.sub(r"ssl_certificate .*;", f"ssl_certificate {certificate};", site)
    site = re.sub(r"ssl_certificate_key .*;", f"ssl_certificate_key {private};", site)
    (folder / "site.conf").write_text(site)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}pid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}include {folder}/site.conf;\n}}\n"
    )
    return ["nginx", "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf", "-g", "daemon off;"]


def caddy(folder: Path, port: int, upstreams: list[str]) -> list[str]:
    certificate, private = certify(folder)
    site = (DEPLOY / "Caddyfile").read_text().replace("127.0.0.1:8700", " ".join(upstreams))
    site = site.replace(f"{NAME} {{", f"https://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate} {private}")
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{site}")
    return ["caddy", "run", "--config", f"{folder}/Caddyfile", "--adapter", "caddyfile"]


Proxy = Callable[[Path, int, list[str]], list[str]]
# What is told of a body that the node refused before it was through: Caddy 2.6 may give up writing it, and with it the
# answer, although that is there to be read.
TOO_LARGE: dict[Proxy, tuple[int, ...]] = {nginx: (413,), caddy: (413, 502)}


@contextmanager
def before(proxy: Proxy, servers: list[Server]) -> Iterator[Site]:
    """The proxy before these nodes, once it accepts."""
    program = shutil.which(proxy.__name__)
    if program is None:
        pytest.skip(f"{proxy.__name__} is not installed")
    with tempfile.TemporaryDirectory(prefix="headwater-proxy-") as name:
        folder, site = Path(name), Site(free_port())
        command = proxy(folder, site.port, [one.url.removeprefix("http://") for one in servers])
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, *command[1:]],
                env=os.environ | {"HOME": name, "XDG_DATA_HOME": name, "XDG_CONFIG_HOME": name},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:

            def accepts() -> bool:
                assert process.poll() is None, (folder / "log").read_text()
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", site.port)) == 0

            until(accepts)
            yield site
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def deliver(site: Site, path: str, number: int, *, padding: int = 0) -> int:
    # Bytes that a proxy which rewrites would not hand on as they are.
    body = b'{"id" : "e_%d",\r\n "type":"report.ready", "at": 1767398460, "data": {"x": "\xc3\xa9 \\u00e9%b"} }\n'
    body %= (number, b"x" * padding)
    headers = signed("standard_webhooks", body, WEBHOOK_SECRET, at=datetime.now(UTC), provider_id=f"msg_{number}")
    return site.ask(path, body=body, headers={"Content-Type": "application/json", **headers})[0]


@pytest.mark.parametrize("proxy", [nginx, caddy], ids=["nginx", "caddy"])
def test_a_site_of_two_nodes_hands_on_what_was_signed_and_outlives_one_of_them(
    proxy: Proxy, postgres_folder: Path
) -> None:
    folder = postgres_folder
    made = headwater(folder, "keys", "create", "reader", "--scope", "read", "--json").json
    key = {"Authorization": f"Bearer {made['key']}"}
    shown = headwater(folder, "connections", "show", "acme", "--json").json
    path = shown["webhook_url"].removeprefix("http://127.0.0.1:8700")
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(folder)) for _ in range(2)]
        site = stack.enter_context(before(proxy, servers))

        assert [deliver(site, path, number) for number in range(6)] == [200] * 6
        assert site.ask(path, body=b"{}", headers={"webhook-id": "x"})[0] == 401

        # Ours is the smaller limit, so that the refusal is ours, and visible; the proxy's own is above it.
        assert deliver(site, path, 7, padding=catalog.Webhooks.body_bytes_max) in TOO_LARGE[proxy]
        status, refused = site.ask("/api/v1/rejections", headers=key)
        assert (status, "larger" in refused.decode()) == (200, True), refused
        assert deliver(site, path, 8, padding=5 * MEBIBYTE) in TOO_LARGE[proxy]

        # Whoever comes by the proxy is not on this machine: a person is led to the login, a program is refused.
        assert site.ask("/")[0] == 303
        assert site.ask("/api/v1/streams")[0] == 401
        status, page = site.ask("/", headers=key)
        assert (status, b"acme" in page) == (200, True)

        os.kill(servers[0].process.pid, signal.SIGKILL)
        servers[0].ended()
        # A provider sends again what was refused before the proxy knew.
        until(lambda: all(deliver(site, path, number) == 200 for number in range(10, 16)))
        assert site.ask("/livez")[0] == 200
        wanted = {f"msg_{number}" for number in (*range(6), *range(10, 16))}
        stored = headwater(folder, "deliveries", "list", "--json", "--limit", "100").json
        assert {one["provider_id"] for one in stored} == wanted
