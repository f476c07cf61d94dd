"""A client for chat endpoints of OpenAI's form (`POST BASE/chat/completions`): vLLM, llama.cpp, Ollama, hosted ones.

The key comes from an environment variable and stands in no message, log or file.
"""

import contextlib
import dataclasses
import email.utils
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from .errors import UserError
from .parser import Parser

KEY_ENV = "TWINREEL_API_KEY"
"""The environment variable that holds the key, unless another is named."""
ENDPOINT_ENV = "TWINREEL_ENDPOINT"
_MOST = 16 * 2**20  # bytes of an answer that are read
_SHOWN = 200  # characters of an answer that a message shows
_LONGEST_WAIT_S = 60.0  # between two tries
_AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))  # statuses after which a request may succeed


class ChatError(UserError):
    """An endpoint that cannot be reached, refuses, or does not answer in the form of a chat endpoint.

    Attributes:
      status: of HTTP, where that is what is wrong; 0 otherwise.
    """

    status = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """Which endpoint is asked, and how.

    Attributes:
      endpoint: base URL, "http://127.0.0.1:8000/v1"; "/chat/completions" is added unless it is there.
      model: the name that the endpoint knows; "" = the field is not sent.
      key_env: environment variable with the key; where it is not set, none is sent.
      timeout: seconds for one whole answer.
      retries: further tries of a request that failed for a reason that may pass.
      max_tokens: the most tokens of an answer.
      temperature: of sampling; 0 = the likeliest token.
    """

    endpoint: str
    model: str = ""
    key_env: str = KEY_ENV
    timeout: float = 120.0
    retries: int = 4
    max_tokens: int = 1024
    temperature: float = 0.0

    def __post_init__(self):
        url = _parsed(self.endpoint)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise UserError(f"--endpoint is {self.shown!r}, wanted a URL such as http://127.0.0.1:8000/v1")
        if url.username is not None or url.query:
            raise UserError(
                f"--endpoint {self.shown} holds a user, a password or a query, which would be logged; leave it out and "
                f"put the key into the environment variable {self.key_env}"
            )
        for name, value, good, wanted in (
            ("timeout", self.timeout, self.timeout > 0, "more than 0 seconds"),
            ("retries", self.retries, self.retries >= 0, "0 or more"),
            ("max_tokens", self.max_tokens, self.max_tokens >= 1, "1 or more"),
            ("temperature", self.temperature, self.temperature >= 0, "0 or more"),
        ):
            if not good:
                raise UserError(f"--{name} is {value}, wanted {wanted}")

    @property
    def shown(self) -> str:
        """The endpoint without a user, a password and a query: for messages and records."""
        url = _parsed(self.endpoint)
        return urllib.parse.urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))

    @property
    def url(self) -> str:
        """The URL that is posted to."""
        base = self.endpoint.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer.

    Attributes:
      text: not empty, without white space at its ends.
      cut: it reached `max_tokens`.
      model: the name that the endpoint gives for what answered, "" if it gives none.
    """

    text: str
    cut: bool = False
    model: str = ""


class Chat:
    """Asks an endpoint; may be used by several threads."""

    def __init__(self, options: ChatOptions, *, sleep: Callable[[float], object] = time.sleep):
        """Ask nothing yet.

        Args:
          options: which endpoint, and how.
          sleep: called with the seconds between two tries.
        """
        self.options, self._sleep = options, sleep
        self._key = os.environ.get(options.key_env, "").strip()
        self._answered = threading.Event()  # until then, an endpoint that is not there is a mistake in its URL
        self._opener = urllib.request.build_opener(_NoRedirects())

    def ask(self, messages: Sequence[dict[str, str]]) -> Reply:
        """Return the answer to a conversation.

        Statuses 408, 409, 425, 429 and 5xx, and answers that are none, are tried again after 1, 2, 4 ... seconds, or as
        long as the endpoint says (`Retry-After`), at most a minute. So are timeouts and broken connections, once the
        endpoint has answered.

        Args:
          messages: `{"role": "system" | "user" | "assistant", "content": text}` in their order.

        Raises:
          ChatError: there is no answer; says why, and what to do.
        """
        options = self.options
        body: dict[str, Any] = {"messages": list(messages), "max_tokens": options.max_tokens}
        body |= {"temperature": options.temperature, "stream": False}
        data = json.dumps(body | ({"model": options.model} if options.model else {})).encode()
        tried = 0
        while True:
            try:
                reply = self._post(data)
                self._answered.set()
                return reply
            except _Failed as failure:
                if not failure.may_pass or tried == options.retries:
                    times = f" (tried {tried + 1} times)" if tried else ""
                    error = ChatError(self._safe(f"{options.shown} {failure}{times}"))
                    error.status = failure.status
                    raise error from None
                wait = 2.0**tried if failure.wait is None else failure.wait
            tried += 1
            self._sleep(min(wait, _LONGEST_WAIT_S))

    def _post(self, data: bytes) -> Reply:
        """Send one request; raises `_Failed`."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "twinreel"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.options.url, data=data, headers=headers)
        end = time.monotonic() + self.options.timeout
        try:
            with self._opener.open(request, timeout=self.options.timeout) as response:
                return _reply(_read(response, end=end))
        except urllib.error.HTTPError as error:
            self._answered.set()
            raise self._refused(error, end=end) from None
        except (TimeoutError, _TooSlow) as error:
            raise self._hangs() from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise self._hangs() from error
            raise self._unreachable(error.reason) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error

    def _hangs(self) -> "_Failed":
        why = f"gave no whole answer in {self.options.timeout:g} s; is it busy, or still loading its model? "
        return _Failed(f"{why}--timeout sets how long to wait", may_pass=self._answered.is_set())

    def _unreachable(self, error: object) -> "_Failed":
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        remedy = "start the server, or correct --endpoint"
        return _Failed(f"cannot be reached ({why}); {remedy}", may_pass=self._answered.is_set())

    def _refused(self, error: urllib.error.HTTPError, *, end: float) -> "_Failed":
        """What a status other than 200 means."""
        with contextlib.suppress(OSError, _TooSlow, http.client.HTTPException), error:
            said = _message(_read(error, end=end))
            return _of_status(error, said=said, options=self.options, has_key=bool(self._key))
        return _of_status(error, said="", options=self.options, has_key=bool(self._key))

    def _safe(self, text: str) -> str:
        """The text without the key, should an endpoint repeat it."""
        return text.replace(self._key, "***") if self._key else text


def add_flags(parser: Parser, *, needed: bool = True) -> None:
    """Add the flags of `ChatOptions`; `needed` = the help says that `--endpoint` has to be given."""
    group = parser.add_argument_group("the endpoint")
    more = "" if needed else "; without it, nothing is asked"
    words = f"base URL of an OpenAI-compatible server, http://127.0.0.1:8000/v1; or {ENDPOINT_ENV} is set{more}"
    group.add_argument("--endpoint", default="", metavar="URL", help=words)
    group.add_argument("--llm", default="", metavar="NAME", help="name of the language model at the endpoint")
    words = "environment variable that holds the key of the endpoint"
    group.add_argument("--key_env", default=KEY_ENV, metavar="NAME", help=words)
    group.add_argument("--timeout", type=float, default=120.0, help="seconds for one answer")
    group.add_argument("--retries", type=int, default=4, help="further tries of a request that failed")
    group.add_argument("--max_tokens", type=int, default=1024, help="the most tokens of an answer")
    group.add_argument("--temperature", type=float, default=0.0, help="of sampling; 0 = the likeliest")


def of_flags(args: Any) -> ChatOptions:
    """Return the options of the flags.

    Raises:
      UserError: no endpoint, or values that make no sense.
    """
    endpoint = args.endpoint or os.environ.get(ENDPOINT_ENV, "")
    if not endpoint:
        raise UserError(
            "no endpoint; give --endpoint URL of an OpenAI-compatible server (llama.cpp: llama-server -m MODEL.gguf "
            f"answers at http://127.0.0.1:8080/v1), or set {ENDPOINT_ENV}"
        )
    if args.key_env != KEY_ENV and not os.environ.get(args.key_env):
        raise UserError(f"--key_env {args.key_env}: this variable is not set; export it, or leave the flag out")
    names = ("key_env", "timeout", "retries", "max_tokens", "temperature")
    return ChatOptions(endpoint=endpoint, model=args.llm, **{name: getattr(args, name) for name in names})


class _Failed(Exception):
    """A request without an answer; `may_pass` = trying again may help, after `wait` seconds if that is known."""

    def __init__(self, why: str, *, may_pass: bool, wait: float | None = None, status: int = 0):
        super().__init__(why)
        self.may_pass, self.wait, self.status = may_pass, wait, status


class _TooSlow(Exception):
    """An answer that trickles in for longer than the timeout."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key would be sent to another server."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _parsed(endpoint: str) -> urllib.parse.SplitResult:
    try:
        url = urllib.parse.urlsplit(endpoint)
        _ = url.port  # raises for one that is no number
        return url
    except ValueError:
        return urllib.parse.SplitResult("", "", "", "", "")


def _read(response: Any, *, end: float) -> bytes:
    parts, size = [], 0
    while part := response.read1(2**16):
        parts.append(part)
        size += len(part)
        if size > _MOST:
            break
        if time.monotonic() > end:
            raise _TooSlow
    return b"".join(parts)


def _reply(body: bytes) -> Reply:
    """The answer in the body of a status 200; raises `_Failed` for anything else."""
    try:
        value = json.loads(body)
        choice = value["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        shown = _short(body.decode("utf-8", "replace")) or "nothing"
        why = f"does not answer as a chat endpoint: {shown!r}; --endpoint is the base URL, which often ends in /v1"
        raise _Failed(why, may_pass=True) from None
    if not isinstance(text, str) or not text.strip():
        why = f"answered without any text (finish_reason {choice.get('finish_reason')!r}); raise --max_tokens if a "
        raise _Failed(f"{why}model that reasons first has used them up", may_pass=True)
    model = value.get("model")
    cut = choice.get("finish_reason") == "length"
    return Reply(text=text.strip(), cut=cut, model=model if isinstance(model, str) else "")


def _message(body: bytes) -> str:
    """What an error of an endpoint says."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return _short(body.decode("utf-8", "replace"))
    error = value.get("error", value) if isinstance(value, dict) else value
    said = error.get("message") if isinstance(error, dict) else error
    return _short(said if isinstance(said, str) else json.dumps(value))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _of_status(error: urllib.error.HTTPError, *, said: str, options: ChatOptions, has_key: bool) -> _Failed:
    """The failure that a status means, with what the endpoint says of it."""
    status, key = error.code, options.key_env
    if status in (401, 403):
        remedy = f"check the key in {key}" if has_key else f"put its key into the environment variable {key}"
        why = f"refuses access; {remedy}"
    elif status == 429:
        why = "has too many requests, or the quota is used up; wait, or lower --parallel"
    elif status == 404:
        why = f"has no chat completions at {options.url}, or no model {options.model!r}; correct --endpoint or --llm"
    elif 300 <= status < 400:
        why = "redirects, which is not followed, as the key would go along; give the final URL as --endpoint"
    elif status >= 500:
        why = "has failed"
    else:
        why = "refuses the request; is --llm NAME missing, or the prompt longer than its context?"
    wait = _seconds(error.headers.get("Retry-After")) if error.headers else None
    told = f": {said!r}" if said else ""
    return _Failed(f"{why} (status {status}{told})", may_pass=status in _AGAIN, wait=wait, status=status)


def _seconds(value: str | None) -> float | None:
    """The seconds of a `Retry-After`, which may be a number or a date."""
    if not value:
        return None
    with contextlib.suppress(ValueError, TypeError):
        return max(float(value), 0.0)
    with contextlib.suppress(ValueError, TypeError):
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return None
