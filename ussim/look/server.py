"""The server of a page: on this machine alone, for the one who started it.

It listens at 127.0.0.1 on a port that was free. A request counts where its Host header names that address (a web page
elsewhere cannot reach it under a name of its own), and its path begins with the token that only the address printed has.
A request names things of the server's lists; it holds no path of a file.

    server = Server({"": page, "facts": facts, "image": image})
    server.serve(browser=True)
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import socket
import webbrowser
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from ..errors import DataError, UssimError
from .cache import Superseded

ADDRESS = "127.0.0.1"
LARGEST_REQUEST = 4 << 20  # bytes: a picture of one's own
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Answer:
    """Answer of a route: a body, its type, and facts about it that go with it."""

    body: bytes
    kind: str = "application/json"
    facts: dict[str, Any] | None = None

    @classmethod
    def of(cls, value: Any) -> Answer:
        """Return the answer that is a value as JSON."""
        return cls(json.dumps(value, allow_nan=False).encode())


@dataclass(frozen=True)
class Request:
    """Request to a route: the rest of the path, the fields of the address or of the JSON sent, and the bytes sent."""

    rest: str
    values: dict[str, Any]
    body: bytes = b""


Route = Callable[[Request], Awaitable[Answer]]


def page(package: str, name: str) -> Answer:
    """Return a page of a package, the style and the script that all pages share put into it."""
    shared = files(__package__)
    text = files(package).joinpath(name).read_text(encoding="utf-8")
    for mark in ("shared.css", "shared.js"):
        text = text.replace(f"/* {mark} */", shared.joinpath(mark).read_text(encoding="utf-8"))
    return Answer(text.encode(), "text/html; charset=utf-8")


@dataclass
class Server:
    """Routes by their name (the first part of the path behind the token), served until it is stopped.

    Attributes
    ----------
    routes : mapping
        "" is the page itself.
    token : str
        First part of every path.
    port : int
        That it listens on, once `start` has run; 0 asks for a free one.
    """

    routes: Mapping[str, Route]
    port: int = 0
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    _http: HTTPServer | None = None

    @property
    def url(self) -> str:
        """The address to open: with the token."""
        return f"http://{ADDRESS}:{self.port}/{self.token}/"

    def start(self) -> None:
        """Listen, in the event loop that runs.

        Raises
        ------
        DataError
            The port is taken, or is not for this user.
        """
        application = Application([(r"/(.*)", _Handler, {"server": self})], log_function=lambda handler: None)
        self._http = HTTPServer(
            application, max_body_size=LARGEST_REQUEST, max_buffer_size=LARGEST_REQUEST + (64 << 10)
        )
        try:
            self._http.listen(self.port, ADDRESS, family=socket.AF_INET)
        except (OSError, OverflowError) as error:
            raise DataError(
                f"port {self.port}: expected a port that is free, got {getattr(error, 'strerror', None) or error}; "
                "without --port one is found"
            ) from None
        (first, *_) = self._http._sockets.values()
        self.port = first.getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and close what is open."""
        if self._http is not None:
            self._http.stop()
            await self._http.close_all_connections()

    def serve(self, ready: Callable[[str], None], browser: bool = False) -> None:
        """Serve until ctrl-C or SIGTERM, which come out of here; `ready` is given the address."""

        async def main() -> None:
            self.start()
            try:
                ready(self.url)
                if browser:
                    await asyncio.get_running_loop().run_in_executor(None, webbrowser.open, self.url)
                await asyncio.Event().wait()
            finally:
                await self.stop()

        asyncio.run(main())

    def is_host(self, name: str) -> bool:
        """Return whether the Host header is an address of this server."""
        return name.lower() in (f"{ADDRESS}:{self.port}", f"localhost:{self.port}")


class _Handler(RequestHandler):
    """Finds the route of a request that is from this machine and has the token."""

    def initialize(self, server: Server) -> None:
        """Keep the server that it works for."""
        self._server = server

    def set_default_headers(self) -> None:
        """Set what every answer has."""
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse who asks from elsewhere."""
        if not self._server.is_host(self.request.host):
            self._refuse(403, f"expected Host {ADDRESS}:{self._server.port}, got another one")
            return
        origin = self.request.headers.get("Origin")
        if origin is not None and not (origin.startswith("http://") and self._server.is_host(origin[len("http://") :])):
            self._refuse(403, "expected a request of the page itself, got one of another page")
            return
        token = self.request.path.lstrip("/").partition("/")[0]
        if not hmac.compare_digest(token.encode(), self._server.token.encode()):
            self._refuse(403, "expected the address that was printed at the start, with its token, got another one")

    async def get(self, path: str) -> None:
        """Answer a request whose fields are in the address."""
        values = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        await self._answer(path, values, b"")

    async def post(self, path: str) -> None:
        """Answer a request whose fields are JSON, or whose body is bytes."""
        if self.request.headers.get("Content-Type", "").partition(";")[0] != "application/json":
            await self._answer(path, {}, self.request.body)
            return
        try:
            values = json.loads(self.request.body)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            self._refuse(400, "expected a JSON object, got something else")
            return
        await self._answer(path, values, b"")

    async def _answer(self, path: str, values: dict[str, Any], body: bytes) -> None:
        if "/" not in path:  # without the slash at its end the page's own addresses would lack the token
            self.redirect(self._server.url)
            return
        name, _, rest = path.partition("/")[2].partition("/")
        route = self._server.routes.get(name)
        if route is None:
            self._refuse(404, f"there is no {name!r} here")
            return
        try:
            answer = await route(Request(rest, values, body))
        except Superseded:
            self.set_status(204)
            self.finish()
            return
        except (UssimError, ValueError, MemoryError) as error:
            self._refuse(400, " ".join(str(error).split()) or type(error).__name__)
            return
        self.set_header("Content-Type", answer.kind)
        if answer.facts is not None:
            self.set_header("X-Facts", json.dumps(answer.facts, allow_nan=False))
        self.finish(answer.body)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer what went wrong in one line: no traceback, no path."""
        self._refuse(status_code, "a defect of the server" if status_code >= 500 else f"refused ({status_code})")

    def log_exception(self, *error: Any) -> None:
        """Log a defect, and nothing that a stranger sent."""
        if error[0] is not None and not issubclass(error[0], ValueError):
            super().log_exception(*error)

    def _refuse(self, status: int, reason: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": reason}))
