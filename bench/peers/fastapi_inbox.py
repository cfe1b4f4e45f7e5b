"""Peer: the webhook inbox that a user writes: FastAPI, SQLAlchemy, SQLite FULL, one insert and one commit a request.

Served by uvicorn as `fastapi_inbox:app`; DATABASE names the file, SECRET the signing secret.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import JSON, Column, Float, Integer, String, create_engine, event
from sqlalchemy.orm import Session, declarative_base

SECRET = os.environ["SECRET"].encode()
Base = declarative_base()
app = FastAPI()
engine = create_engine(f"sqlite:///{os.environ['DATABASE']}", connect_args={"check_same_thread": False, "timeout": 30})


class Inbox(Base):
    """A delivery."""

    __tablename__ = "inbox"
    sequence = Column(Integer, primary_key=True)
    event_id = Column(String, unique=True)
    received = Column(Float)
    type = Column(String)
    body = Column(JSON)


@event.listens_for(engine, "connect")
def configure(connection, _record):
    """Durable, as ours is."""
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")


Base.metadata.create_all(engine)


def verify(header: str, body: bytes) -> None:
    """The signature as Stripe documents it."""
    fields = dict(part.split("=", 1) for part in header.split(","))
    expected = hmac.new(SECRET, fields["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, fields["v1"]):
        raise HTTPException(400)


def save(delivery: dict) -> None:
    """One insert, one commit."""
    with Session(engine) as session:
        session.add(Inbox(event_id=delivery["id"], received=time.time(), type=delivery["type"], body=delivery))
        session.commit()


@app.post("/hook", status_code=202)
async def hook(request: Request) -> dict:
    """Verify, save, answer."""
    body = await request.body()
    verify(request.headers["stripe-signature"], body)
    await run_in_threadpool(save, await request.json())
    return {"ok": True}
