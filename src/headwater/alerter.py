"""Looks at the streams now and then, takes down what is to be told, and sends it: signed by webhook, or by email.

A message is sent at least once: its id (`webhook-id`, `Message-ID`) stays the same however often it is tried.
"""

from __future__ import annotations

import asyncio
import logging
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from headwater import health
from headwater.alert import KEEP_DAYS, WEBHOOK, Notification
from headwater.alerting import weigh
from headwater.backoff import Backoff
from headwater.clock import Clock
from headwater.config import Config
from headwater.errors import HeadwaterError, ProviderError, StoreUnavailableError
from headwater.permission import is_loopback_name
from headwater.redaction import one_line
from headwater.signatures.sign import signed
from headwater.store import Store
from headwater.transport import Transport, TransportRequest

LOOK_SECONDS = 15.0
CLAIM_MAX = 20
CLAIM_SECONDS = 120.0  # longer than all of a claim takes to be sent
SEND_SECONDS_MAX = 20.0
ATTEMPTS_MAX = 12  # within about a day
BACKOFF = Backoff(wait_initial=15, wait_max=4 * 3600)
ANSWER_BYTES_MAX = 64 * 1024
SUBJECT_CHARACTERS_MAX = 200

logger = logging.getLogger("headwater.alerts")

Smtp = Callable[[EmailMessage], None]  # sends in the calling thread; raises `OSError` or `smtplib.SMTPException`


@dataclass(frozen=True, kw_only=True)
class Channels:
    """The ways out that are configured."""

    url: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    email_from: str = ""
    smtp: Smtp | None = field(default=None, repr=False)

    @classmethod
    def of(cls, config: Config) -> Channels:
        """As the configuration says."""
        smtp = mailer(config.smtp_url) if config.smtp_url else None
        return cls(url=config.alert_url, secret=config.alert_secret, email_from=config.alert_email_from, smtp=smtp)


class Alerter:
    """Tells operators what their rules ask for."""

    def __init__(self, store: Store, clock: Clock, transport: Transport, channels: Channels, *, base_url: str) -> None:
        self._store = store
        self._clock = clock
        self._transport = transport
        self._channels = channels
        self._base_url = base_url

    async def serve(self) -> None:
        """Look and send until cancelled, whether or not the database is there."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            try:
                await self.look()
                await self.send()
            except StoreUnavailableError as error:
                logger.warning("Nobody can be told anything now: %s", error)

    async def look(self) -> None:
        """Hold the rules against the streams once."""
        store, at = self._store, self._clock.now()
        rules, standing = await store.alert_rules(), await store.standing_alerts()
        if not rules and not standing:
            return
        changes = weigh(
            rules,
            health.reports(await store.streams(at=at), at),
            standing,
            await store.mutes(at=at),
            at=at,
            base_url=self._base_url,
        )
        if changes:
            await store.change_alerts(changes, at=at, keep_after=at - timedelta(days=KEEP_DAYS))

    async def send(self) -> int:
        """Send what is due; how many messages were tried."""
        tried = 0
        while claimed := await self._store.claim_notifications(
            at=self._clock.now(), lease_seconds=CLAIM_SECONDS, limit=CLAIM_MAX
        ):
            await asyncio.gather(*[self._try(one) for one in claimed])
            tried += len(claimed)
        return tried

    async def _try(self, message: Notification) -> None:
        try:
            await (self._post(message) if message.target == WEBHOOK else self._mail(message))
        except HeadwaterError as error:
            at = self._clock.now()
            delay = BACKOFF.delay_seconds(message.attempts, random=self._clock.random())
            due_at = at + timedelta(seconds=delay) if message.attempts < ATTEMPTS_MAX else None
            said = one_line(error.message)
            logger.warning("Message %d to %s was not sent: %s", message.id, message.target, said)
            await self._store.finish_notification(message.id, at=at, error=said, due_at=due_at)
        else:
            await self._store.finish_notification(message.id, at=self._clock.now(), error=None, due_at=None)

    async def _post(self, message: Notification) -> None:
        if self._channels.url is None or self._channels.secret is None:
            raise ProviderError("No `alert_url` with an `alert_secret` is configured.")
        body = message.body.encode()
        headers = signed(
            "standard_webhooks", body, self._channels.secret, at=self._clock.now(), provider_id=f"alert_{message.id}"
        )
        answer = await self._transport(
            TransportRequest(
                method="POST",
                url=self._channels.url,
                headers=headers,
                body=body,
                reach="private",  # an operator's own choice, often beside us
                total_seconds=SEND_SECONDS_MAX,
                body_bytes_max=ANSWER_BYTES_MAX,
            )
        )
        if not 200 <= answer.status < 300:
            raise ProviderError(f"The webhook answered {answer.status}.")

    async def _mail(self, message: Notification) -> None:
        if self._channels.smtp is None:
            raise ProviderError("No `smtp_url` is configured.")
        mail = email(message, sender=self._channels.email_from, at=self._clock.now())
        try:
            await asyncio.to_thread(self._channels.smtp, mail)
        except (OSError, smtplib.SMTPException) as error:
            raise ProviderError(f"The mail server refused it: {type(error).__name__}.") from error


def email(message: Notification, *, sender: str, at: datetime) -> EmailMessage:
    """A message as an email."""
    event: dict[str, Any] = msgspec.json.decode(message.body)
    data = event["data"]
    kind = {"alert.firing": "Alert", "alert.resolved": "Resolved"}.get(event["type"], "Test")
    mail = EmailMessage()
    mail["Subject"] = one_line(f"[Headwater] {kind}: {data['sentence']}")[:SUBJECT_CHARACTERS_MAX]
    mail["From"], mail["To"] = sender, message.target
    mail["Date"] = format_datetime(at)
    mail["Message-ID"] = f"<alert-{message.id}@{sender.rpartition('@')[2] or 'headwater'}>"
    mail["Auto-Submitted"] = "auto-generated"
    facts = [
        f"{name}: {data[name]}"
        for name in ("condition", "connection", "stream", "partition", "since")
        if data.get(name)
    ]
    mail.set_content("\n".join([data["sentence"], "", *facts, "", data["url"], ""]))
    return mail


def mailer(url: str) -> Smtp:
    """Sends by the server of an `smtp://` URL (STARTTLS, except on this machine) or an `smtps://` one."""
    parts = urlsplit(url)
    host, is_tls = parts.hostname or "localhost", parts.scheme == "smtps"

    def send(mail: EmailMessage) -> None:
        context = ssl.create_default_context()
        port = parts.port or (465 if is_tls else 587)
        client = (
            smtplib.SMTP_SSL(host, port, timeout=SEND_SECONDS_MAX, context=context)
            if is_tls
            else smtplib.SMTP(host, port, timeout=SEND_SECONDS_MAX)
        )
        with client:
            if not is_tls and not is_loopback_name(host):
                client.starttls(context=context)
            if parts.username:
                client.login(unquote(parts.username), unquote(parts.password or ""))
            client.send_message(mail)

    return send
