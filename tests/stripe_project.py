"""The Stripe connector of this repository, one poll or one event at a time, against a fake provider."""

from pathlib import Path

import msgspec

from headwater.testing.answering import answering
from headwater.testing.drive import deliver, drive, loaded_project
from headwater.testing.provider import API_KEY

PROJECT = Path(__file__).parent.parent / "connectors" / "stripe"
SECRETS = {"api_key": API_KEY, "webhook_secret": "whsec_test"}


def lib(name):
    return loaded_project(PROJECT).module(f"lib.{name}")


def ask(provider, stream, cursor=None, **options):
    return drive(
        PROJECT, stream, transport=answering(provider), secrets=SECRETS, cursor=cursor, clock=provider.clock, **options
    )


def send(provider, event):
    return deliver(
        PROJECT, msgspec.json.encode(event), transport=answering(provider), secrets=SECRETS, clock=provider.clock
    )
