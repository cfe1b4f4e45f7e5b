"""A small provider on a loopback port, in a thread, for the scaffolded project: it pages, fails and waits when told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from headwater import scaffold

API_KEY = "canary-api-key-8f21"
WEBHOOK_SECRET = "whsec_Y2FuYXJ5LXdlYmhvb2stc2VjcmV0LTc3"
PAGE_RECORDS = 2


def shop_project(folder: Path) -> Path:
    """The project that `headwater init` makes."""
    scaffold.init(folder, key="shop")
    return folder


def customer(number: int, **changes: Any) -> dict[str, Any]:
    """A customer as the provider tells it."""
    return {
        "id": f"c_{number}",
        "name": f"Customer {number}",
        "email": f"c{number}@example.com",
        "created": 1767225600 + number,
        "updated": 1767225600 + number,
        **changes,
    }


class Shop:
    """The provider; its fields may be changed at any time."""

    def __init__(self) -> None:
        self.url = ""
        self.customers = [customer(number) for number in range(1, 4)]
        self.refusals: list[int] = []  # statuses of the next answers
        self.asked = threading.Event()  # a request has come
        self.free = threading.Event()  # answers are held until it is set
        self.free.set()

    def page(self, after: str | None) -> dict[str, Any]:
        """One page after an id."""
        start = next((place + 1 for place, one in enumerate(self.customers) if one["id"] == after), 0)
        page = self.customers[start : start + PAGE_RECORDS]
        has_more = start + len(page) < len(self.customers)
        return {"data": page, "next": page[-1]["id"] if has_more else None}


@contextmanager
def loopback_shop() -> Iterator[Shop]:
    shop = Shop()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            shop.asked.set()
            shop.free.wait(60)
            status, body = 200, shop.page(parse_qs(urlsplit(self.path).query).get("after", [None])[0])
            if shop.refusals:
                status, body = shop.refusals.pop(0), {"error": f"refused {self.headers['Authorization']}"}
            elif self.headers["Authorization"] != f"Bearer {API_KEY}":
                status, body = 401, {"error": "the key is wrong"}
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    shop.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield shop
    finally:
        shop.free.set()
        server.shutdown()
        thread.join()
        server.server_close()
