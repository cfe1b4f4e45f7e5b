"""A second factor of a login: codes by time (RFC 6238) from an app, and recovery codes for when it is gone.

A code counts once: whoever asks keeps the last step whose code counted, and lets none of it or before it count again.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyotp import TOTP

STEP_SECONDS = 30
DIGITS = 6
STEPS_APART_MAX = 1  # between the clock here and the one of the app, both ways
RECOVERY_CODES = 10
RECOVERY_BYTES = 10  # 80 random bits: more than any number of tries
CODE_CHARACTERS_MAX = 64  # of what is looked at
ISSUER = "Headwater"


def factor_aad(account_id: int) -> str:
    """What the sealed secret of an account's factor is bound to."""
    return f"second factor:{account_id}"


def new_secret() -> str:
    """A secret to share with an app: 160 random bits in base 32."""
    import pyotp

    return pyotp.random_base32()


def address_of(secret: str, email: str) -> str:
    """The `otpauth` address by which an app takes the secret over."""
    return _codes(secret).provisioning_uri(name=email, issuer_name=ISSUER)


def picture_of(address: str) -> str:
    """The address as a QR code, in SVG without a style or a script."""
    import segno

    return segno.make(address, error="m").svg_inline(scale=5, border=3, dark="#000", light="#fff")


def step_of(secret: str, code: str, at: datetime) -> int | None:
    """The step whose code this is, within `STEPS_APART_MAX` of `at`; None where it is none of theirs."""
    text = "".join(code.split())
    if len(text) != DIGITS or not (text.isascii() and text.isdigit()):
        return None
    now = int(at.timestamp()) // STEP_SECONDS
    codes = _codes(secret)
    found = None
    for step in range(max(0, now - STEPS_APART_MAX), now + STEPS_APART_MAX + 1):
        # All of them are compared, whichever it is: time tells nothing.
        if secrets.compare_digest(codes.at(step * STEP_SECONDS), text):
            found = step
    return found


def new_recovery_codes() -> Sequence[str]:
    """Codes that are good once each, in groups that can be copied by hand."""
    return ["-".join(_groups(secrets.token_hex(RECOVERY_BYTES))) for _ in range(RECOVERY_CODES)]


def recovery_hash(code: str) -> bytes:
    """What is kept of a recovery code, however it is written down."""
    return sha256("".join(one for one in code.lower() if one.isalnum()).encode()).digest()


def _groups(text: str) -> list[str]:
    return [text[start : start + 5] for start in range(0, len(text), 5)]


def _codes(secret: str) -> TOTP:
    import pyotp

    return pyotp.TOTP(secret, digits=DIGITS, interval=STEP_SECONDS)
