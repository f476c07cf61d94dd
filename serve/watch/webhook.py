"""Events to a webhook by HTTP POST, from a thread of its own: a slow receiver never delays the video."""

import json
import os
import queue
import threading
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from ...base.errors import UserError

_BACKOFF_S = 0.5  # before the second attempt; doubles with each


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Refuse: events go to the receiver that was named."""
        return


class Webhook:
    """Sends JSON events in order; waits for no one.

    Attributes:
      sent: events that the receiver took.
      failed: events that it did not take after all attempts.
      dropped: events for which there was no room in the queue.
      reason: why the last attempt failed; "" = none did.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, attempts: int = 3, room: int = 100, token: str = ""):
        """Set up; nothing is sent yet.

        Args:
          url: http:// or https://.
          timeout_s: of one attempt.
          attempts: for each event.
          room: events that may wait.
          token: sent as `Authorization: Bearer`; "" = the environment's TWINREEL_WEBHOOK_TOKEN, or none.

        Raises:
          UserError: another kind of URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"--webhook is {url!r}; wanted a URL such as http://127.0.0.1:9000/events")
        self._url, self._timeout_s, self._attempts = url, timeout_s, attempts
        self._host = parts.hostname + (f":{parts.port}" if parts.port else "")
        self._token = token or os.environ.get("TWINREEL_WEBHOOK_TOKEN", "")
        self._open = urllib.request.build_opener(_NoRedirects).open
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(maxsize=room)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
        self.sent = self.failed = self.dropped = 0
        self.reason = ""

    def start(self, first: dict[str, Any]) -> None:
        """Send a first event and wait for the answer, so that a wrong URL is noticed at the start.

        Raises:
          UserError: the receiver cannot be reached, or refuses the event.
        """
        if not self._deliver(first):
            raise UserError(
                f"--webhook: {self._host} took no event ({self.reason}); start the receiver, correct the URL, or leave "
                "--webhook out"
            )
        self._thread.start()

    def send(self, event: dict[str, Any]) -> None:
        """Queue an event; where the queue is full, it is dropped and counted."""
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self.dropped += 1

    def close(self, *, wait_s: float = 5.0) -> None:
        """Send what is queued, as far as that takes no longer than `wait_s`; the rest counts as dropped."""
        if not self._thread.is_alive():
            return
        try:
            self._waiting.put(None, timeout=wait_s)
            self._thread.join(timeout=wait_s)
        except queue.Full:
            pass
        self._stopped.set()
        while not self._waiting.empty():
            self.dropped += self._waiting.get_nowait() is not None

    def counts(self) -> dict[str, Any]:
        """Return what became of the events, as JSON values."""
        found = {"sent": self.sent, "failed": self.failed, "dropped": self.dropped}
        return found | ({"reason": self.reason} if self.reason else {})

    def _run(self) -> None:
        while not self._stopped.is_set():
            event = self._waiting.get()
            if event is None:
                return
            self._deliver(event)

    def _deliver(self, event: dict[str, Any]) -> bool:
        headers = {"content-type": "application/json", "user-agent": "twinreel"}
        headers |= {"authorization": f"Bearer {self._token}"} if self._token else {}
        body = json.dumps(event, ensure_ascii=False).encode()
        for attempt in range(self._attempts):
            if attempt and self._stopped.wait(_BACKOFF_S * 2 ** (attempt - 1)):
                break
            request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
            try:
                with self._open(request, timeout=self._timeout_s):
                    self.sent += 1
                    return True
            except urllib.error.HTTPError as error:
                self.reason = f"HTTP {error.code}"
                error.close()
                if error.code < 500 and error.code != 429:
                    break  # another attempt would not help
            except (OSError, ValueError) as error:
                self.reason = str(getattr(error, "reason", error)) or type(error).__name__
        self.failed += 1
        return False
