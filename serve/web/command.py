"""The command line of `twinreel serve`."""

import functools
import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from ...base.parser import Parser

TOKEN = "TWINREEL_TOKEN"
"""Environment variable of the token, which other users of a machine cannot see in its list of processes."""
_SHORTEST = 16

DESCRIPTION = f"""Search an index in the browser.

  twinreel serve library                                   http://127.0.0.1:8000
  {TOKEN}=... twinreel serve library --host 0.0.0.0     for other machines, with a token

Type a text, or drop a clip, a picture or a sound. Hits play on hover. /docs describes the HTTP API: searches, and
embeddings of texts and files (POST /api/encode, /api/encode/files), those of several requests in batches of at most
--batch_size rows. /healthz and /metrics (Prometheus) tell how the server is.

Only this machine can reach the page, unless --host names another address; that needs a token of at least {_SHORTEST}
characters in the environment variable {TOKEN} (`openssl rand -hex 24` makes one). Browsers then open /?token=TOKEN
once; programs send `Authorization: Bearer TOKEN`. The connection is not encrypted: put a proxy with TLS before it on
any network that you do not trust.

Only indexed files are served, by number. Uploads are limited in size and decoded by processes with limits of time and
memory; they are not kept. An index that changes is opened again by itself.

With --workers, several processes answer on the same port. They share the index by the page cache of the system, but
each has the model in its own memory; --rate and the limit of connections hold for each of them."""


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(verb="serve", description=DESCRIPTION)
    parser.add_argument("index", metavar="INDEX", help="the folder of `twinreel index`")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="0 = any free one")
    parser.add_argument("--model", default="", metavar="NAME", help="of the index; default: its first one")
    parser.add_argument("--model_path", default="", metavar="MODEL", help="where the model lies now, if it was moved")
    parser.add_argument("--max_upload_mb", type=int, default=200, help="largest file that may be uploaded, in MB")
    parser.add_argument("--rate", type=int, default=600, help="requests a minute of one address to the API")
    parser.add_argument(
        "--batch_size", type=int, default=16, help="texts or moments of several requests that are embedded at a time"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that answer, each with the model in its memory"
    )
    return parser


def main(argv: list[str]) -> int:
    """Run the verb."""
    args, _ = make_parser().parse(argv)
    token = checked_token(args.host, os.environ.get(TOKEN, ""))
    if not 0 <= args.port < 65_536 or min(args.max_upload_mb, args.rate, args.workers) < 1:
        raise UserError(
            f"--port is {args.port}, --max_upload_mb {args.max_upload_mb}, --rate {args.rate}, --workers "
            f"{args.workers}; wanted a port of 0 to 65535, and at least 1"
        )
    try:
        import fastapi  # noqa: F401  # pyright: ignore[reportMissingImports]
        import prometheus_client  # noqa: F401  # pyright: ignore[reportMissingImports]
        import python_multipart  # noqa: F401  # pyright: ignore[reportMissingImports]
        import uvicorn  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"the page needs {error.name}: pip install 'twinreel[serve]'") from error
    from .workers import run_workers, worker_of

    worker = worker_of(os.environ)
    listening = worker[0] if worker else _listen(args.host, args.port)
    with listening:
        if worker is None and args.workers > 1:
            package = (__package__ or "").split(".")[0]
            command = [sys.executable, "-m", package, "serve", *argv]
            shown = functools.partial(_say_where, listening, host=args.host)
            return run_workers(command, listening=listening, count=args.workers, ready=shown)
        _serve(args, listening=listening, token=token, uploads=worker[1] if worker else None)
    return 0


def _serve(args: Any, *, listening: socket.socket, token: str, uploads: Path | None) -> None:
    """Open the index and its model, and answer until a signal comes."""
    import uvicorn  # pyright: ignore[reportMissingImports]

    from .app import create_app
    from .guard import GuardOptions
    from .protocol import TimedProtocol
    from .workers import tell_ready

    service = _service(args, uploads=uploads)
    options = GuardOptions(token=token, upload_bytes=args.max_upload_mb * 2**20, per_minute=args.rate)
    config = uvicorn.Config(
        create_app(service, options=options),  # pyright: ignore[reportArgumentType]
        host=args.host,
        port=args.port,
        log_level="warning",
        server_header=False,
        http=TimedProtocol,
        ws="none",
        limit_concurrency=128,
        timeout_keep_alive=10,
    )
    server = uvicorn.Server(config)
    try:
        if uploads is None:
            _say_where(listening, host=args.host)
        else:
            tell_ready(lambda: setattr(server, "should_exit", True))
        server.run(sockets=[listening])
    finally:
        service.close()


def checked_token(host: str, token: str) -> str:
    """Return the token.

    Raises:
      UserError: other machines could reach the page, and there is no token, or a short one.
    """
    if not token and not _is_loopback(host):
        raise UserError(
            f"--host {host} lets other machines in, which needs a token: set the environment variable {TOKEN} to at "
            f"least {_SHORTEST} characters (`openssl rand -hex 24`)"
        )
    if token and (len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token):
        raise UserError(f"{TOKEN} must have at least {_SHORTEST} characters, printable ASCII without spaces")
    return token


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _service(args: Any, *, uploads: Path | None) -> Any:
    """Open the index and its model."""
    from ..search.collection import Collection
    from ..search.opened import open_for
    from .batching import BatchOptions
    from .service import Service

    batches = BatchOptions(most=args.batch_size)
    with Collection(Path(args.index), model=args.model) as collection:
        opened = open_for(collection, given=args.model_path)
        if uploads is None:
            print(f"{args.index}: model {collection.model.name}", file=sys.stderr)
    service = Service(Path(args.index), model=args.model, opened=opened, batches=batches, uploads=uploads)
    service.encoding.warm()
    return service


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
      UserError: the port is taken, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise UserError(f"cannot listen on {host}:{port} ({error.strerror}); give another --port") from error
    return listening


def _say_where(listening: socket.socket, *, host: str) -> None:
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{listening.getsockname()[1]}   (Ctrl-C ends it)", file=sys.stderr, flush=True)
