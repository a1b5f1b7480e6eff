"""Cookies between opening handshakes, scoped to host, path and Secure as browsers do (RFC 6265).

The rules are the standard library's (http.cookiejar). One store serves the whole process.
"""

from __future__ import annotations

import email.message
import http.cookiejar
import http.cookies
import os
import threading
import urllib.request
from collections.abc import Iterable
from typing import Any, Final

from ._url import Target

__all__ = ["SimpleCookieJar"]


class _Response:
    """What http.cookiejar asks of a response."""

    def __init__(self, set_cookie: str) -> None:
        self._message = email.message.Message()
        self._message["Set-Cookie"] = set_cookie

    def info(self) -> email.message.Message:
        return self._message


def _request(target: Target) -> urllib.request.Request:
    return urllib.request.Request(f"{'https' if target.secure else 'http'}://{target.authority}{target.resource}")


# What RFC 6265 6.1 asks for at the least. A server that sets more would make each handshake's request larger, without
# end.
_MAX_COOKIE: Final = 4096  # bytes of the header
_MAX_OF_DOMAIN: Final = 50
_MAX_COOKIES: Final = 3000

_MOST_SECONDS: Final = 10**10  # 300 years


class _BoundedJar(http.cookiejar.CookieJar):
    """Forgets the cookies that were set longest ago where there are too many."""

    def __init__(self, policy: http.cookiejar.CookiePolicy) -> None:
        super().__init__(policy)
        # (domain, path, name), the oldest first; of some that are gone, too
        self.by_age: dict[tuple[str, str, str], None] = {}

    def set_cookie(self, cookie: http.cookiejar.Cookie) -> None:
        super().set_cookie(cookie)
        key = (cookie.domain, cookie.path, cookie.name)
        self.by_age.pop(key, None)
        self.by_age[key] = None
        of_domain = [each for each in self.by_age if each[0] == cookie.domain]
        for each in of_domain[:-_MAX_OF_DOMAIN] or list(self.by_age)[:-_MAX_COOKIES]:
            del self.by_age[each]
            try:
                self.clear(*each)
            except KeyError:
                pass  # it had expired


def _empty_jar() -> _BoundedJar:
    # A cookie without Domain is for its host alone (RFC 6265 5.3), not for its subdomains as the default has it.
    strict = http.cookiejar.DefaultCookiePolicy.DomainStrictNonDomain
    return _BoundedJar(http.cookiejar.DefaultCookiePolicy(strict_ns_domain=strict))


def _readable(set_cookie: str) -> str:
    """A Set-Cookie header without the attributes on which http.cookiejar fails, and with it all cookies of the
    response."""
    pair, *attributes = set_cookie.split(";")
    return ";".join([pair, *(kept for each in attributes if (kept := _readable_attribute(each)) is not None)])


def _readable_attribute(attribute: str) -> str | None:
    """An attribute that http.cookiejar can read, None where it has to be left out."""
    name, _, value = attribute.partition("=")
    name, value = name.strip().lower(), value.strip()
    try:
        if name == "max-age":  # which is an error without a value, or where it is too large for a float
            return f"max-age={max(min(int(value), _MOST_SECONDS), -_MOST_SECONDS)}"
        if name == "expires":  # which is an error where the month is none
            http.cookiejar.http2time(value.strip('"'))  # type: ignore[attr-defined]
    except ValueError:
        return None  # RFC 6265 5.2.1 and 5.2.2: it is ignored
    return attribute


class CookieStore:
    """Takes Set-Cookie headers and gives Cookie headers. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jar = _empty_jar()  # guarded by self._lock
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        # A lock that some other thread held at the fork is never released in the child.
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock = threading.Lock()
            self._jar = _empty_jar()

    def keep(self, target: Target, set_cookies: Iterable[str]) -> None:
        """Keep the cookies of a response's Set-Cookie headers; those that its host may not set, or of more than 4096
        bytes, are ignored."""
        set_cookies = list(set_cookies)
        if not set_cookies:
            return
        request = _request(target)
        with self._lock:
            for line in set_cookies:
                if len(line) <= _MAX_COOKIE:
                    # Each for itself: one that http.cookiejar fails on costs no other.
                    self._jar.extract_cookies(_Response(_readable(line)), request)  # type: ignore[arg-type]

    def header(self, target: Target, own: str | None = None) -> str:
        """The value of the Cookie header for a request to `target`: what is kept for it, then the program's `own`
        cookies, which win where a name is in both. Empty where there is none."""
        with self._lock:
            if not self._jar.by_age:
                return own or ""
        request = _request(target)
        with self._lock:
            self._jar.add_cookie_header(request)
        own_names = {pair.partition("=")[0].strip() for pair in (own or "").split(";")}
        kept = [
            pair
            for pair in (request.get_header("Cookie") or "").split("; ")
            if pair and pair.partition("=")[0] not in own_names
        ]
        return "; ".join([*kept, *([own] if own else [])])

    def clear(self) -> None:
        """Forget all cookies."""
        with self._lock:
            self._jar.clear()


cookies = CookieStore()


# ---- Only for programs written for websocket-client: nothing in the package uses what follows. ----


class SimpleCookieJar:
    """websocket-client's jar: cookies that name a Domain, by domain and nothing else."""

    def __init__(self) -> None:
        self.jar: dict[str, http.cookies.SimpleCookie] = {}

    def add(self, set_cookie: str | None) -> None:
        """Add the cookies of a Set-Cookie header to those of their domain."""
        self._take(set_cookie, replace=False)

    def set(self, set_cookie: str) -> None:
        """Put the cookies of a Set-Cookie header in place of those of their domain."""
        self._take(set_cookie, replace=True)

    def _take(self, set_cookie: str | None, replace: bool) -> None:
        parsed: Any = http.cookies.SimpleCookie(set_cookie) if set_cookie else {}
        for morsel in parsed.values():
            # None comes of "$domain" without a value, on which websocket-client fails with AttributeError.
            if domain := (morsel["domain"] or "").lower():
                domain = domain if domain.startswith(".") else f".{domain}"
                if replace or domain not in self.jar:
                    self.jar[domain] = http.cookies.SimpleCookie()
                self.jar[domain].update(parsed)

    def get(self, host: str) -> str:
        """The cookies for a host as "name=value; name=value", sorted; empty where there is none."""
        if not host:
            return ""
        matching = [
            jar for domain, jar in self.jar.items() if host.lower().endswith(domain) or host.lower() == domain[1:]
        ]
        pairs = [f"{name}={morsel.value}" for jar in matching for name, morsel in jar.items()]
        return "; ".join(sorted(pairs))
