"""The one port: it accepts connections, and no connection can hurt another.

The raw socket of each connection is ours, so that ready frames can be written to it (``live.wire.outgoing``).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

import trio
from structlog.typing import FilteringBoundLogger
from trio_websocket import ConnectionClosed

from appliance.counters import Counters
from appliance.live.wire.room import Room
from appliance.web.asgi import ASGIApp, run_app, scope_of
from appliance.web.forwarded import Proxies
from appliance.web.head import path_of
from appliance.web.http import Http, Traffic
from appliance.web.limits import Limits
from appliance.web.problem import Refused, place, unavailable
from appliance.web.sealed import Tls
from appliance.web.tcp import Tcp
from appliance.web.tls import Certificate
from appliance.web.upgrade import Upgrade, read_upgrade
from appliance.web.wire import Hangup, Wire

WEBSOCKET_PATHS: Final = frozenset(("/live",))
#: The kernel or this process has no descriptor or memory left: accepting again at once would spin.
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_EXHAUSTED_S = 0.1  # seconds to wait then; a closed connection frees a descriptor sooner or later
_ACCEPT_BATCH = 16  # connections taken at a stretch before others have their turn: some 20 ms of work
#: Connections over the limit that are answered at the same time, once each; the rest is only closed.
BEYOND: Final = 64
BEYOND_S: Final = 5.0  # seconds that such a one may take, its last linger included
#: What they are answered as any other: who watches a server that is full but well must not end it.
WATCHED: Final = frozenset(("/healthz", "/readyz", "/metrics"))

#: What the tasks are called: one name for all, which trio would make anew for each.
_CONNECTION = "appliance.web.door.Door._connection"

#: How a connection ends when its peer goes away. Nobody's fault, and not worth a line.
_DEPARTED = (Hangup, ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError)


class Door:
    """Serves HTTP and WebSockets on listening sockets.

    Args:
      listeners: non-blocking listening sockets (``open_listeners``); the door closes them.
      app: answers everything but WebSockets.
      websocket: is given each WebSocket's request, and answers it.
      certificate: TLS on all listeners, with the context it has at the time of each handshake.
      log: what fails is logged once: the kind of error and where, never what a client sent.
      counters: where connections and answers are counted.
      proxies: whose word on their clients is believed.

    Lifetime: ``run`` serves until it is cancelled (every connection ends at once) or until, after
    ``stop_accepting``, the last connection has ended.
    """

    def __init__(
        self,
        listeners: Iterable[socket.socket],
        *,
        app: ASGIApp,
        websocket: Callable[[Upgrade], Awaitable[None]],
        log: FilteringBoundLogger,
        limits: Limits,
        certificate: Certificate | None = None,
        counters: Counters | None = None,
        proxies: Proxies | None = None,
        websocket_paths: Collection[str] = WEBSOCKET_PATHS,
    ) -> None:
        #: Connections that are open now, those beyond the limit among them.
        self.connections = 0
        self._listeners = tuple(listeners)
        self._app = app
        self._websocket = websocket
        self._log = log
        self._limits = limits
        self._certificate = certificate
        self._paths = frozenset(websocket_paths)
        self._accepting = trio.CancelScope()
        self._counters = counters or Counters()
        shared = self._counters.http_answers, proxies or Proxies(), Room(limits.held_bytes)
        self._traffic, self._beyond = Traffic(*shared), Traffic(*shared, beyond=True)
        self._too_many = 0

    def configure(self, app: ASGIApp, limits: Limits, proxies: Proxies) -> None:
        """Serve from now on with this application, and new connections within these limits."""
        self._app = app
        self._limits = limits
        self._traffic.proxies = self._beyond.proxies = proxies

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve. The listeners are open already, so ``started`` comes at once."""
        async with trio.open_nursery() as nursery:
            try:
                with self._accepting:
                    async with trio.open_nursery() as accepting:
                        for listener in self._listeners:
                            accepting.start_soon(self._accept, listener, nursery)
                        task_status.started()
            finally:
                for listener in self._listeners:
                    trio.lowlevel.notify_closing(listener)
                    listener.close()

    def stop_accepting(self) -> None:
        """Close the listeners and the idle connections. Requests that came before are answered, others with 503."""
        self._accepting.cancel()
        self._traffic.stop()
        self._beyond.stop()

    # -- connections -------------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        exhausted = False
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(_ACCEPT_BATCH):
                try:
                    raw, address = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno not in _EXHAUSTED:
                        continue  # that connection is gone already (accept(2), "Error handling")
                    if not exhausted:
                        self._log.error(
                            "accept_exhausted",
                            error=errno.errorcode.get(error.errno or 0),
                            connections=self.connections,
                        )
                    exhausted = True
                    await trio.sleep(_EXHAUSTED_S)
                    break
                exhausted = False
                self._counters.connections += 1
                if self.connections - self._too_many < self._limits.connections:
                    self.connections += 1  # here: of a batch, none has had its turn yet
                    nursery.start_soon(self._connection, raw, address, self._traffic, name=_CONNECTION)
                elif self._too_many < BEYOND:
                    self.connections += 1
                    self._too_many += 1
                    nursery.start_soon(self._one_too_many, raw, address)
                else:
                    self._counters.turned_away += 1
                    raw.close()

    async def _connection(self, raw: socket.socket, address: tuple[str, int], traffic: Traffic) -> None:
        """Serve one connection; whatever goes wrong in it ends here."""
        # A WebSocket lives in this coroutine, and there may be 20,000 of them: nothing is kept for it in vain.
        remote, port = address[0].removeprefix("::ffff:"), address[1]
        del address
        try:
            stream = Tcp(raw) if self._certificate is None else Tls(raw, self._certificate.context)
            try:
                http = await self._open(stream, (remote, port), traffic)
                while http is not None:
                    upgrade = await self._converse(http)
                    if upgrade is None:
                        await http.wire.finish()
                        break
                    http = None
                    await self._websocket(upgrade)
                    http = await self._left(upgrade)
            finally:
                stream.close()
        except* _DEPARTED:
            pass
        except* Exception as group:
            self._log.error("connection_failed", remote=remote, error=place(group))
        finally:
            raw.close()
            self.connections -= 1

    async def _open(self, stream: Tcp, remote: tuple[str, int], traffic: Traffic) -> Http | None:
        if isinstance(stream, Tls):
            with traffic.waiting(self._limits.handshake_s) as patience:
                await stream.handshake()
            if patience.cancelled_caught:
                raise Hangup("the TLS handshake did not come in time")
        return Http(Wire(stream, remote=remote, write_s=self._limits.write_s), self._limits, traffic)

    async def _left(self, upgrade: Upgrade) -> Http | None:
        """Give the HTTP side of a request for a WebSocket that was rejected, if another request may come."""
        http = upgrade.http
        if http is None:
            return None
        if not http.answered:
            raise RuntimeError("a WebSocket's request was left unanswered")
        if await http.next():
            return http
        await http.wire.finish()
        return None

    async def _one_too_many(self, raw: socket.socket, address: tuple[str, int]) -> None:
        """Answer one request of a connection beyond the limit: once it is read, or closing would reset the answer."""
        try:
            with trio.move_on_after(BEYOND_S):
                await self._connection(raw, address, self._beyond)
        finally:
            self._too_many -= 1

    # -- requests ----------------------------------------------------------------------------------------

    async def _converse(self, http: Http) -> Upgrade | None:
        """Answer requests until one asks for a WebSocket; ``None`` when the connection is to be closed."""
        try:
            while (request := await http.request()) is not None:
                path, _, query = path_of(request.target)
                if http.beyond and path not in WATCHED:
                    self._counters.turned_away += 1
                    raise unavailable("the server has as many connections as it may have; try again later")
                if path in self._paths and request.method == b"GET":
                    return read_upgrade(request, path, query, http)
                try:
                    await run_app(self._app, scope_of(request, http), http, self._log)
                finally:
                    http.let_go()
                if not await http.next():
                    break
        except Refused as refused:
            await http.refuse(refused)
        return None
