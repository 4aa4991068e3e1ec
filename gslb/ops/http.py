"""The debug pages that every process serves: /livez /readyz /healthz /statusz /metrics /profilez.

Plain WSGI on threads of its own, so that the pages answer while the process's event loop is stuck: that is when one
needs them. Everything is read-only; what changes something lives in the admin API.
"""

import html
import json
import logging
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from typing_extensions import override

from bns.transport import is_loopback
from gslb.ops.profile import ProfileBusyError, sample_stacks
from gslb.ops.tables import html_of

log = logging.getLogger(__name__)

PROFILE_DEFAULT_S = 3.0
PROFILE_MAX_S = 30.0
REQUEST_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 64

StatusOf = Callable[[], Mapping[str, object]]
ReadyOf = Callable[[], tuple[bool, str]]
Page = tuple[HTTPStatus, str, bytes]


class OpsListenError(OSError):
    """The debug address cannot be bound; the message names it and says what to do."""


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT_S

    @override
    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, address: tuple[str, int]) -> None:
        self._room = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(address, _Handler)

    @override
    def server_bind(self) -> None:
        # The base class looks the host's name up in DNS, which may hang; the address says enough. A restarted process
        # must get its address back although connections to the old one still linger.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    @override
    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a debug-page connection from %s ended early", client_address)


class OpsServer:
    """Serves the debug pages of one process.

    `ready` says whether the process can do its work and, if not, why; `status` gives what /statusz shows, as nested
    mappings, lists and plain values.
    """

    def __init__(self, title: str, *, registry: CollectorRegistry, ready: ReadyOf, status: StatusOf) -> None:
        self._title = title
        self._registry = registry
        self._ready = ready
        self._status = status
        self._server: _Server | None = None

    def start(self, address: str) -> str:
        """Binds `HOST:PORT` (port 0: any), serves from a daemon thread; returns the bound `HOST:PORT`.

        Raises OpsListenError.
        """
        host, _, port = address.rpartition(":")
        if host and not is_loopback(host.strip("[]")):
            raise OpsListenError(
                f"will not serve debug pages on {address!r}: they have no TLS and no credentials, so they stay on loopback;"
                " use 127.0.0.1 and let what scrapes them come through a proxy that knows who asks"
            )
        try:
            self._server = _Server((host.strip("[]") or "127.0.0.1", int(port)))
        except (OSError, ValueError, OverflowError) as error:
            raise OpsListenError(f"cannot serve debug pages on {address!r}: {error}; choose another --http") from error
        self._server.set_app(self._app)
        threading.Thread(target=self._server.serve_forever, args=(0.2,), name="ops-http", daemon=True).start()
        return f"{self._server.server_name}:{self._server.server_port}"

    def close(self) -> None:
        """Stops serving; safe to call twice."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        query = urllib.parse.parse_qs(environ.get("QUERY_STRING", ""))
        if environ.get("REQUEST_METHOD") not in {"GET", "HEAD"}:
            status, content_type, body = HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"GET only\n"
        else:
            status, content_type, body = self._page(str(environ.get("PATH_INFO")), query, environ)
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [b"" if environ.get("REQUEST_METHOD") == "HEAD" else body]

    def _page(self, path: str, query: Mapping[str, list[str]], environ: Mapping[str, Any]) -> Page:
        match path:
            case "/livez":
                return HTTPStatus.OK, "text/plain", b"ok\n"
            case "/readyz" | "/healthz":
                ready, why = self._ready()
                status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
                return status, "text/plain", f"{why or ('ok' if ready else 'not ready')}\n".encode()
            case "/metrics":
                encode, content_type = choose_encoder(str(environ.get("HTTP_ACCEPT", "")))
                return HTTPStatus.OK, content_type, encode(self._registry)
            case "/profilez":
                return _profile_page(query)
            case "/" | "/statusz":
                return self._status_page(query)
            case _:
                return HTTPStatus.NOT_FOUND, "text/plain", b"try /statusz /metrics /livez /readyz /healthz /profilez\n"

    def _status_page(self, query: Mapping[str, list[str]]) -> Page:
        status = self._status()
        if query.get("format") == ["json"]:
            return HTTPStatus.OK, "application/json", json.dumps(status, default=str, indent=1).encode()
        title = html.escape(self._title)
        text = (
            f"<!doctype html><meta charset=utf-8><title>{title}</title>"
            "<style>body{font:14px/1.4 sans-serif;margin:2em}table{border-collapse:collapse;margin:.3em 0}"
            "td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left;vertical-align:top}"
            "th{background:#f3f3f3}</style>"
            f"<h1>{title}</h1><p><a href=/metrics>metrics</a> <a href='/statusz?format=json'>json</a> "
            f"<a href='/profilez?seconds=3'>profile</a></p>{html_of(status)}"
        )
        return HTTPStatus.OK, "text/html; charset=utf-8", text.encode()


def _profile_page(query: Mapping[str, list[str]]) -> Page:
    try:
        seconds = float(query.get("seconds", [str(PROFILE_DEFAULT_S)])[0])
    except ValueError:
        return HTTPStatus.BAD_REQUEST, "text/plain", b"seconds must be a number\n"
    if not 0.0 < seconds <= PROFILE_MAX_S:
        message = f"seconds must be above 0 and at most {PROFILE_MAX_S:g}\n"
        return HTTPStatus.BAD_REQUEST, "text/plain", message.encode()
    try:
        return HTTPStatus.OK, "text/plain", sample_stacks(seconds).encode()
    except ProfileBusyError as error:
        return HTTPStatus.TOO_MANY_REQUESTS, "text/plain", f"{error}\n".encode()
