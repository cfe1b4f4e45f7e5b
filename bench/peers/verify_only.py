"""Limit: a bare ASGI server that reads the body, verifies the signature, answers, and keeps nothing.

Served by uvicorn as `verify_only:app`; SECRET is the signing secret.
"""

from __future__ import annotations

import hashlib
import hmac
import os

KEY = hmac.new(os.environ["SECRET"].encode(), digestmod=hashlib.sha256)
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"2")]


async def app(scope, receive, send):
    """See the module."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    header = next(value for name, value in scope["headers"] if name == b"stripe-signature").decode()
    fields = dict(part.split("=", 1) for part in header.split(","))
    digest = KEY.copy()
    digest.update(fields["t"].encode() + b"." + body)
    status = 200 if hmac.compare_digest(digest.hexdigest(), fields["v1"]) else 401
    await send({"type": "http.response.start", "status": status, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"ok"})
