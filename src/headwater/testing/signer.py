"""Signed deliveries for tests: the headers that a provider would send."""

from headwater.signatures.sign import signed

__all__ = ["signed"]
