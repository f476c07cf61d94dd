"""What stands before the API: checks of host, token, rate, size and time of requests; headers of answers (ASGI)."""

import asyncio
import collections
import dataclasses
import hmac
import http.cookies
import ipaddress
import json
import time
import urllib.parse
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

COOKIE = "twinreel_token"
HEALTH = ("/healthz", "/health")
"""Paths that are answered without a token."""
UPLOADS = ("/api/uploads", "/api/encode/files")
"""Paths that take files."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
]
_CLIENTS = 10_000  # addresses whose rates are remembered


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardOptions:
    """Limits of requests.

    Attributes:
      token: what a client must send; "" = none is needed, and only this machine's own names are answered.
      upload_bytes: largest upload.
      encode_bytes: largest body with texts to embed.
      body_bytes: largest body of any other request.
      body_seconds: how long a body may take to arrive.
      per_minute: requests of the API (and not of pictures and films) of one address in a minute.
    """

    token: str = ""
    upload_bytes: int = 200 * 2**20
    encode_bytes: int = 2**20
    body_bytes: int = 2**16
    body_seconds: float = 60.0
    per_minute: int = 600


class _Refused(Exception):
    """A request that is not passed on."""

    def __init__(self, status: int, detail: str, headers: list[tuple[bytes, bytes]] | None = None):
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers or []


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: App, *, options: GuardOptions):
        """Wrap an application."""
        self._app, self._options = app, options
        self._buckets: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Check a request, and pass it on with limits on its body."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        answer = _Answer(send)
        try:
            self._check(scope, headers)
            await self._app(scope, self._limited(scope, headers, receive, answer=answer), answer.send)
        except _Refused as refused:
            await answer.refuse(refused)

    def _check(self, scope: Any, headers: dict[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._options.token and not _is_local(host):
            raise _Refused(403, f"this server answers to this machine's own names only, not to {host[:100]!r}")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if scope["method"] not in ("GET", "HEAD") and origin and urllib.parse.urlsplit(origin).netloc != host:
            raise _Refused(403, "requests of other sites are not answered")
        if scope["path"] in HEALTH:
            return
        if self._options.token and not self._has_token(scope, headers):
            raise _Refused(401, "a token is needed: Authorization: Bearer TOKEN, or open /?token=TOKEN in a browser")
        if scope["path"].startswith("/api/"):
            self._count(scope["client"][0] if scope.get("client") else "")

    def _has_token(self, scope: Any, headers: dict[bytes, bytes]) -> bool:
        kind, _, given = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        candidates = [given.strip()] if kind.lower() == "bearer" else []
        if scope["path"] == "/":
            candidates += urllib.parse.parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        try:
            cookie = http.cookies.SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
        except http.cookies.CookieError:
            cookie = None
        candidates += [cookie.value] if cookie else []
        return any(hmac.compare_digest(one.encode(), self._options.token.encode()) for one in candidates)

    def _count(self, client: str) -> None:
        """Take a request from the client's allowance, which fills up again over a minute."""
        now, most = time.monotonic(), float(self._options.per_minute)
        left, since = self._buckets.pop(client, (most, now))
        left = min(most, left + (now - since) * most / 60)
        self._buckets[client] = (max(left - 1, 0.0), now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        if left < 1:
            raise _Refused(429, "too many requests; wait a moment", [(b"retry-after", b"2")])

    def _limited(self, scope: Any, headers: dict[bytes, bytes], receive: Receive, *, answer: "_Answer") -> Receive:
        """Return what receives the body, but no more of it than is allowed, and no longer than that.

        The application may take the error of a body that is cut off for its own: the answer is given here, at once.
        """

        async def refuse(status: int, detail: str) -> None:
            refused = _Refused(status, detail)
            await answer.refuse(refused)
            raise refused

        most = self._options.body_bytes
        if scope["path"] in UPLOADS:
            most = self._options.upload_bytes + 2**16
        elif scope["path"] == "/api/encode":
            most = max(most, self._options.encode_bytes)
        stated = headers.get(b"content-length", b"0")
        if not stated.isdigit() or int(stated) > most:
            raise _Refused(413, f"the request is larger than {most:,} bytes")
        deadline, so_far, complete = time.monotonic() + self._options.body_seconds, 0, False

        async def receiving() -> Message:
            nonlocal so_far, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(deadline - time.monotonic(), 0.001))
            except TimeoutError:
                await refuse(408, "the request took too long to arrive")
                raise
            so_far += len(message.get("body", b""))
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            if so_far > most:
                await refuse(413, f"the request is larger than {most:,} bytes")
            return message

        return receiving


def _is_local(host: str) -> bool:
    """Whether the Host of a request is a name of the loopback interface."""
    try:
        name = urllib.parse.urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class _Answer:
    """Sends the answer of the application with further headers, or a refusal instead of it; the first one counts."""

    def __init__(self, send: Send):
        self._send = send
        self._started = self._refused = False

    async def send(self, message: Message) -> None:
        """Send a part of the application's answer."""
        if self._refused:
            return
        if message["type"] == "http.response.start":
            self._started = True
            message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
        await self._send(message)

    async def refuse(self, refused: _Refused) -> None:
        """Send a refusal, unless an answer has begun."""
        if not self._started and not self._refused:
            await _write(self.send, refused)
            self._refused = True


async def _write(send: Send, refused: _Refused) -> None:
    body = json.dumps({"detail": refused.detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *refused.headers]
    await send(
        {"type": "http.response.start", "status": refused.status, "headers": [*headers, (b"connection", b"close")]}
    )
    await send({"type": "http.response.body", "body": body})
