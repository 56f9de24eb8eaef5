"""Keep passwords out of everything that is printed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote, unquote_plus

__all__ = ["mask_secrets", "secrets_of"]

SECRET_NAMES = "password|passwd|pwd|passfile|sslpassword|token|access_token|api_key|apikey|secret|key|auth"
# user:password@ after ://, greedy up to the last @ before the path: a password may hold one.
_USER_INFO = re.compile(r"(\w[\w+.-]*://)([^\s/?#]*)@")
_OPTION = re.compile(rf"(?i)([?&;\s]|^)((?:\w*[_-])?(?:{SECRET_NAMES}))=('[^']*'|[^&;\s'\"]+)")
_ENVIRONMENT = re.compile(r"(?i)(password|passwd|token|secret|api_?key)$")
# Shorter values would blank out ordinary words.
SHORTEST = 4
MASK = "***"


def secrets_of(arguments: Iterable[str]) -> set[str]:
    """Return the passwords, tokens and keys in URLs and in the environment, in every spelling they may be shown in."""
    found = {value for name, value in os.environ.items() if _ENVIRONMENT.search(name)}
    for argument in arguments:
        for match in _USER_INFO.finditer(argument):
            found.add(match.group(2).partition(":")[2])
        found |= {match.group(3).strip("'") for match in _OPTION.finditer(argument)}
    spellings = {way(value) for value in found for way in (str, unquote, unquote_plus, quote, quote_plus)}
    return {value for value in spellings if len(value) >= SHORTEST}


def mask_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` with ``***`` for every password.

    Example:
        >>> mask_secrets("postgresql://app:hunter2@db/docs?table=t&sslpassword=x1")
        'postgresql://app:***@db/docs?table=t&sslpassword=***'
    """
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _USER_INFO.sub(_mask_user_info, text)
    return _OPTION.sub(lambda match: f"{match.group(1)}{match.group(2)}={MASK}", text)


def _mask_user_info(match: re.Match[str]) -> str:
    user, colon, _ = match.group(2).partition(":")
    return f"{match.group(1)}{user}{':' + MASK if colon else ''}@"
