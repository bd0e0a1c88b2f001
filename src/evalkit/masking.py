"""Keeps secrets out of everything that is written: known values are replaced wherever text leaves the process."""

from __future__ import annotations

import os

from evalkit.errors import CredentialsRefused

_MASK = "[secret]"
_SHORTEST = 6
_known: set[str] = set()


def protect(secret: str) -> None:
    """Never let this value be written again."""
    if len(secret) >= _SHORTEST:
        _known.add(secret)


def forget(secret: str) -> None:
    _known.discard(secret)


def mask(text: str) -> str:
    for secret in tuple(_known):
        if secret in text:
            text = text.replace(secret, _MASK)
    return text


def read_secret(variable: str, key: str) -> str:
    """The secret in the environment variable that this key of the config names."""
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise CredentialsRefused(
            f"the environment variable {variable}, which {key} names, is not set",
            hint=f"export {variable}=… before you run evalkit; the config holds its name only",
        )
    protect(secret)
    return secret
