"""`StoreLocation`: the parts of a store's URL; its errors show no part that may be secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import ParseResult, parse_qsl, unquote, unquote_plus, urlencode, urlparse, urlunparse

from nudge_rag.errors import StoreError

__all__ = ["StoreLocation", "hide", "hide_secrets", "secrets_in"]

# Options whose values are no secrets; the values of all others are not shown in an error.
PUBLIC = {
    "collection",
    "database",
    "db",
    "filesystem",
    "grpc_port",
    "host",
    "hostaddr",
    "id",
    "ids",
    "index",
    "namespace",
    "port",
}
PUBLIC |= {"prefix", "schema", "similarity", "sslmode", "table", "tenant", "vec_table", "vector"}
SHORTEST_SECRET = 3
HIDDEN = "***"


@dataclass(frozen=True)
class StoreLocation:
    """A parsed URL.

    Attributes:
        parsed: its parts.
        options: the options after the question mark.
    """

    parsed: ParseResult
    options: Mapping[str, str]

    @classmethod
    def of(cls, url: str) -> StoreLocation:
        """Parse a URL.

        Raises:
            ValueError: it is no URL, or an option is malformed or given twice.

        Example:
            >>> StoreLocation.of("lance:///data/lance?table=docs").options
            {'table': 'docs'}
        """
        try:
            parsed = urlparse(url)
        except ValueError:
            raise ValueError("the store's URL has a host that is not one") from None
        try:
            pairs = parse_qsl(parsed.query, keep_blank_values=True, strict_parsing=bool(parsed.query))
        except ValueError:
            message = f"the options of a {parsed.scheme}:// URL are name=value, separated by &"
            raise ValueError(message) from None
        options = dict(pairs)
        if len(options) != len(pairs):
            raise ValueError(f"an option of a {parsed.scheme}:// URL is given twice")
        return cls(parsed, options)

    @property
    def scheme(self) -> str:
        """The part before ``://``."""
        return self.parsed.scheme

    def check(self, required: Iterable[str], optional: Iterable[str], *, passes_on: bool = False) -> None:
        """Check the names of the options.

        Args:
            required: options that must be there.
            optional: options that may be there.
            passes_on: whether all others go to the database's client.

        Raises:
            ValueError: one is missing, or unknown.
        """
        known = [*required, *optional]
        missing = [name for name in required if not self.options.get(name)]
        unknown = [] if passes_on else sorted(set(self.options) - set(known))
        if missing or unknown:
            # Part of a key or password that holds & or = is taken for a name: only plain words are shown.
            plain = [name if re.fullmatch(r"[a-z_]{1,20}", name) else HIDDEN for name in unknown]
            wrong = f"misses {', '.join(missing)}" if missing else f"has unknown options {', '.join(plain)}"
            raise ValueError(f"a {self.scheme}:// URL {wrong}; its options are {', '.join(known)}")

    def chosen(self, names: Mapping[str, str]) -> dict[str, Any]:
        """Options by the argument that each is for: ``names`` maps the one to the other."""
        return {names[name]: value for name, value in self.options.items() if name in names}

    def without(self, names: Iterable[str]) -> str:
        """The URL with the options of the database's own client only."""
        others = {name: value for name, value in self.options.items() if name not in set(names)}
        return urlunparse(self.parsed._replace(query=urlencode(others)))

    @property
    def path(self) -> str | None:
        """The file or folder; None if the URL names a host.

        Raises:
            ValueError: it names both, or neither.
        """
        if self.parsed.netloc in (".", ".."):
            return unquote(self.parsed.netloc + self.parsed.path)
        has_path = self.parsed.path not in ("", "/")
        if self.parsed.netloc and has_path:
            raise ValueError(
                f"a {self.scheme}:// URL names both a host and a path: a path starts after three slashes, or with ./"
            )
        if not self.parsed.netloc and not has_path:
            raise ValueError(f"a {self.scheme}:// URL names neither a path nor a host")
        return None if self.parsed.netloc else unquote(self.parsed.path)

    @property
    def needed_path(self) -> str:
        """Return the path of a URL that cannot name a host.

        Raises:
            ValueError: it names one.
        """
        path = self.path
        if path is None:
            raise ValueError(f"{self.scheme}:// takes a path, after three slashes or with ./, not a host")
        return path

    def address(self, default_port: int, *, secure: bool = False) -> str:
        """``http://host:port`` of a server, or https with ``ssl=true``.

        Args:
            default_port: the port of a URL that names none.
            secure: whether https is the default.

        Raises:
            ValueError: no host, a port that is no number, a user and password.
        """
        given = self.options.get("ssl", str(secure).lower())
        if given not in ("true", "false"):
            raise ValueError("ssl must be true or false")
        if "@" in self.parsed.netloc:
            raise ValueError("user and password are no part of this URL: give the server's own options instead")
        try:
            port = self.parsed.port
        except ValueError:
            raise ValueError(f"the port of a {self.scheme}:// URL is not a number up to 65535") from None
        host = self.parsed.hostname
        if not host or not re.fullmatch(r"[A-Za-z0-9.:_-]+", host):
            raise ValueError(f"a {self.scheme}:// URL has something that is not a host and port")
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if given == 'true' else 'http'}://{shown}:{port or default_port}"


def secrets_in(url: str) -> list[str]:
    """Find the parts of a URL that may be secret, longest first.

    These are the part before an @, the values of options that are not known to be public, and the part after a #.

    Example:
        >>> secrets_in("postgresql://me:s3cret@host/db?table=docs&password=open%20sesame")
        ['open%20sesame', 'open sesame', 's3cret']
    """
    rest = url.partition(":")[2].lstrip("/")
    login, _, place = rest.rpartition("@")
    # A user's name is no secret; if the URL is as it should be, only the password is.
    plain = re.fullmatch(r"[A-Za-z0-9_.-]+:([^:/?#&=@]+)", login)
    parts = [plain[1]] if plain else re.split(r"[:/?#&=@]", login)
    if login and not plain:
        parts.append(login)
    before, _, fragment = place.partition("#")
    for option in before.partition("?")[2].split("&"):
        name, _, value = option.partition("=")
        if name not in PUBLIC:
            parts += [value, *re.split(r"[=/:]", value)] + ([] if value else [name])
    parts += [fragment, *re.split(r"[:/?#&=@]", fragment)]
    spelled = [spelling for part in parts for spelling in (part, unquote(part), unquote_plus(part))]
    shown = {"true", "false"}
    long = {part for part in spelled if len(part) >= SHORTEST_SECRET and part.lower() not in shown}
    return sorted(long, key=lambda part: (-len(part), part))


def hide(text: str, secrets: Iterable[str]) -> str:
    """Replace every secret in ``text`` by asterisks, in any case.

    Example:
        >>> hide("no host 'S3cret'", ["s3cret"])
        "no host '***'"
    """
    for secret in secrets:
        text = re.sub(re.escape(secret), HIDDEN, text, flags=re.IGNORECASE)
    return text


@contextmanager
def hide_secrets(*urls: str) -> Iterator[None]:
    """Show no part of these URLs that may be secret in an error of what is done with them.

    Raises:
        Exception: whatever is raised; one of our own in its place, without a chain, if that would show a secret.
    """
    secrets = [secret for url in urls for secret in secrets_in(url)]
    try:
        yield
    except Exception as error:
        shown = hide(str(error), secrets)
        if shown == str(error) and not _chain_shows(error, secrets):
            raise
        kind = ValueError if isinstance(error, ValueError) else StoreError
        raise kind(shown) from None


def _chain_shows(error: BaseException, secrets: list[str]) -> bool:
    """Whether an error that led to this one, which a traceback prints as well, shows a secret."""
    seen = {id(error)}
    while True:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        # A client may raise an error from one that came of it (pymilvus does).
        if cause is None or id(cause) in seen:
            return False
        if hide(str(cause), secrets) != str(cause):
            return True
        seen.add(id(cause))
        error = cause
