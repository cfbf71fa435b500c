"""The composition root: everything is made here, and the nesting below is the order in which it ends.

asyncio bridge ⊃ store ⊃ tail, announcements, keeper ⊃ connections ⊃ accepting
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog
import trio
from starlette.applications import Starlette

from appliance import logs, wiring
from appliance.config import Config
from appliance.counters import Counters
from appliance.errors import ApplianceError, StoreUnusable, first_of
from appliance.live.fanout.hub import Hub
from appliance.live.fanout.sessions import Pings, Sessions
from appliance.live.matching.access import Access
from appliance.live.session.accounts import Accounts
from appliance.live.session.session import Backend, SessionLimits
from appliance.live.tail import announcements
from appliance.live.tail.absence import REAPPEAR_S, taken_away
from appliance.live.tail.rights import Rights
from appliance.live.tail.tail import Tail
from appliance.live.tail.waking import Waking
from appliance.live.upkeep.keeper import Keeper
from appliance.live.upkeep.survey import survey
from appliance.live.upkeep.watchman import Watchman
from appliance.live.wire.unsent import Unsent
from appliance.ops import descriptors, memory
from appliance.ops.health import Health
from appliance.ops.metrics import Metrics, Sources
from appliance.ops.notify import ServiceManager
from appliance.protocol.values import ValueOptions
from appliance.signals import Reload, obey
from appliance.store.access.accounts import setup_code
from appliance.store.file import live_file
from appliance.store.file.bridge import open_bridge
from appliance.store.file.connections import OLD_SQLITE_BUGS, SOUND_SQLITE, starting
from appliance.store.file.incarnation import StoreReplaced
from appliance.store.file.place import identity
from appliance.store.file.writer import NotOurs
from appliance.store.store import Store, open_store
from appliance.store.tables import standard
from appliance.store.tables.catalog import Catalog
from appliance.store.tables.migration import Suspended
from appliance.store.tables.secrecy import Secrecy
from appliance.web.admission import Admission
from appliance.web.api.entrance import Rates
from appliance.web.api.paths import paths
from appliance.web.door import Door
from appliance.web.forwarded import Proxies
from appliance.web.limits import Limits
from appliance.web.listen import open_listeners, passed_listeners
from appliance.web.metrics import MetricsPage
from appliance.web.routes import application
from appliance.web.tls import Certificate

log = structlog.get_logger()

#: For how long connections may take to end when the server stops, seconds; the whole stop stays under 10.
GRACE_S: Final = 7.0
#: Then a write waits no longer than this for another program's lock, seconds, but for one that waits already.
STOP_PATIENCE_S: Final = 0.5
#: Why a start is begun anew.
WHILE_OPENED: Final = "the file was replaced by another while it was opened"
#: Connections that may ask for metrics at a time, on a port of their own.
METRICS_CONNECTIONS: Final = 32


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a person should know once the server is ready.

    ``addresses`` are host and port. ``setup_code`` makes the first administrator's account, where there is none.
    """

    addresses: Sequence[tuple[str, int]]
    secure: bool
    tables: Sequence[str]
    secret: str
    setup_code: str | None


async def serve(reload: Reload, announce: Callable[[Announcement], None]) -> None:
    """Serve until SIGTERM or SIGINT, then end in order; a second signal ends the process at once. SIGHUP reloads.

    Raises ``CommandError``: the store cannot be used or is in use, a certificate or an address is not right.
    """
    config = reload.config
    certificate = wiring.certificate(config)
    stop = trio.Event()
    manager = ServiceManager(os.environ)

    def announced(announcement: Announcement) -> None:
        reload.fix(port=announcement.addresses[0][1])  # the same port if it has to begin anew
        announce(announcement)
        manager.ready()

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(obey, signals, stop, reload, manager)
            async with open_bridge():
                while not stop.is_set():
                    replaced: BaseException | None = None
                    try:
                        await _serve_store(reload, certificate, announced, stop)
                    except* StoreReplaced as group:
                        replaced = first_of(group)
                    if replaced is None:
                        break
                    log.warning("store_replaced", reason=str(replaced))
                    await _reappeared(config, stop)
            nursery.cancel_scope.cancel()
    log.info("stopped")


async def _serve_store(
    reload: Reload, certificate: Certificate | None, announce: Callable[[Announcement], None], stop: trio.Event
) -> None:
    """Serve one file until ``stop``. Raises ``StoreReplaced``, perhaps in a group, when another is at its place."""
    config = reload.config
    wiring.check(config)
    settings = wiring.store_settings(config)
    live_file.check_free(settings.path)  # its server has the port, too: that is not the trouble
    passed = passed_listeners(os.environ)
    listeners, notes = (passed, []) if passed else open_listeners(config.host, config.port)
    with contextlib.ExitStack() as opened:
        for listener in listeners:
            opened.enter_context(listener)
        inside = [
            opened.enter_context(listener)
            for host, port in wiring.metrics_addresses(config)
            for listener in open_listeners([host], port)[0]
        ]
        for note in notes:
            log.warning("not_listening", reason=note)
        found = identity(settings.path)
        try:
            async with open_store(settings) as store:
                await _serve_on(store, listeners, inside, reload, certificate, announce, stop)
        except StoreUnusable as error:
            if found in (None, identity(settings.path)):
                raise
            raise StoreReplaced(WHILE_OPENED) from error


async def _serve_on(
    store: Store,
    listeners: Sequence[socket.socket],
    inside: Sequence[socket.socket],
    reload: Reload,
    certificate: Certificate | None,
    announce: Callable[[Announcement], None],
    stop: trio.Event,
) -> None:
    config = reload.config
    options = ValueOptions("string" if config.big_integers == "string" else "number", config.event_bytes)
    counters = Counters()
    access = Access(store)
    access.configure(external=wiring.external_keys(config), lifetime_s=config.token_lifetime_s, guests=config.guests)
    with _replaced_meanwhile(store), starting(store.path):
        try:
            catalog = await store.synchronise(stop)
        except Suspended:  # and it is to end before it has begun
            return
        begun = await store.position()  # the tail sees what changes rights behind it
        await access.read_keys()
        await access.read_grants()
        idle = await store.read(Secrecy(config.secret_columns, config.reveal).idle)
        secret = await store.read(store.secrets.signing)
        code = await store.commit(setup_code) if config.accounts else None
    hub = Hub(catalog, begun, options, access, counters)
    sessions = Sessions(Pings(config.ping_every_s, config.pong_within_s))
    rights = Rights(access, hub, sessions)
    waking = Waking(announced=config.inotify and announcements.available())
    tail = Tail(store, hub, rights, catalog, waking)
    store.on_commit(waking.wake)
    backend = Backend(store, hub, sessions, config.part(SessionLimits), Unsent(config.unsent_total_bytes), rights, tail)
    admission = Admission(backend, allowed_origins=wiring.origins(config))
    addresses = [listener.getsockname()[:2] for listener in listeners]
    health = Health(tail.state, store.condition.problems, config.ready_lag_s, config.ready_lag_rows)
    accounts = Accounts(store, kept=config.accounts, signup=config.signup, ttl_s=config.token_ttl_s)
    keeper = Keeper(store, lambda: hub.position.id)
    keeper.token_lifetime_s = config.token_lifetime_s
    watchman = Watchman(store, checkpoints=config.checkpoint == "auto")
    metrics = MetricsPage(
        Metrics(
            Sources(
                path=store.path,
                counters=counters,
                sessions=sessions,
                tail=tail.state,
                kept=lambda: keeper.kept,
                health=health,
                commit_seconds=store.commit_seconds,
                connections=lambda: door.connections,
                position=lambda: hub.position,
            )
        ),
        access,
    )

    def app(config: Config) -> Starlette:
        routes = paths(
            store, hub, tail, access, accounts, options,
            query_s=config.query_s, message_bytes=config.message_bytes, rates=config.part(Rates),
        )  # fmt: skip
        return application(health, routes, metrics, allowed_origins=wiring.origins(config))

    limits = _limits(config)
    door = Door(
        listeners,
        app=app(config),
        websocket=admission,
        log=log,
        limits=limits,
        certificate=certificate,
        counters=counters,
        proxies=Proxies(config.trusted_proxies),
    )

    def renewed(config: Config) -> Callable[[], None]:
        """Say how to change what can be changed while the server runs. Raises ``BadConfiguration``."""
        limits, proxies, now = _limits(config), Proxies(config.trusted_proxies), app(config)
        origins = wiring.origins(config)
        certified, external = wiring.renewed_certificate(config, certificate), wiring.external_keys(config)
        secrets = wiring.given_secrets(config, store.secrets.given)

        def change() -> None:
            store.secrets.given = secrets
            access.configure(external=external, lifetime_s=config.token_lifetime_s, guests=config.guests)
            tail.distrust()
            door.configure(now, limits, proxies)
            accounts.configure(signup=config.signup, ttl_s=config.token_ttl_s)
            keeper.token_lifetime_s = config.token_lifetime_s
            admission.allow(origins)
            backend.limits = config.part(SessionLimits)
            backend.unsent.most = config.unsent_total_bytes
            sessions.pings = Pings(config.ping_every_s, config.pong_within_s)
            if certificate is not None and certified is not None:
                certificate.context = certified
            logs.configure(config.log_format, config.log_level)
            descriptors.raise_limit(config.connections)

        return change

    inner = Door(
        inside,
        app=metrics.application(),
        websocket=admission,
        websocket_paths=(),
        log=log,
        limits=replace(limits, connections=METRICS_CONNECTIONS),
    )
    async with trio.open_nursery() as background:
        background.start_soon(tail.run)
        background.start_soon(_announcements, store, waking)
        background.start_soon(keeper.run)
        background.start_soon(sessions.keep)
        background.start_soon(ServiceManager(os.environ).keep_told, tail.state, lambda: _status(hub, sessions, health))
        async with trio.open_nursery() as connections:
            await connections.start(door.run)
            await connections.start(inner.run)
            descriptors.raise_limit(config.connections)
            _report(catalog)
            if not config.secret_columns:
                log.warning("nothing_secret")
            for rule in idle:
                log.warning("no_such_column", column=rule)
            for listener in inside:
                log.info("metrics_listening", address="{}:{}".format(*listener.getsockname()[:2]))
            names = [each.table for each in hub.tables() if not (each.standard and standard.is_system(each.table))]
            announce(Announcement(addresses, certificate is not None, sorted(names), secret, code))
            background.start_soon(_settle, background, watchman)
            background.start_soon(survey, store, begun.id)
            with reload.concerning(renewed):
                await stop.wait()
            connections.cancel_scope.deadline = trio.current_time() + GRACE_S
            store.hurry(STOP_PATIENCE_S)
            door.stop_accepting()
            inner.stop_accepting()
            await sessions.end_all()
        background.cancel_scope.cancel()


@contextlib.contextmanager
def _replaced_meanwhile(store: Store) -> Iterator[None]:
    """Have a start that fails as another file has come to the place be begun anew. Raises ``StoreReplaced``."""
    try:
        yield
    except ApplianceError as error:
        if not isinstance(error, NotOurs) and store.place.is_ours():
            raise
        store.replaced = True
        raise StoreReplaced(WHILE_OPENED) from error


def _limits(config: Config) -> Limits:
    limits = config.part(Limits)
    return replace(limits, connections=descriptors.room_for(limits.connections))


async def _settle(background: trio.Nursery, watchman: Watchman) -> None:
    """Give back what only the start needed; the watchman's first look, too, reads the schema with a new connection."""
    await background.start(watchman.run)
    memory.settle()


async def _announcements(store: Store, waking: Waking) -> None:
    """Have the system say when the tail is to look; where it cannot, a poll tells."""
    if waking.announced:
        try:
            with announcements.Announcements(store.path) as words:
                await waking.listen(words)
            reason = "the WAL file went away"
        except OSError as error:
            reason = str(error)
        waking.announced = False
        log.warning("polling", reason=reason)
    await announcements.poll(store.path, waking.notice)


def _status(hub: Hub, sessions: Sessions, health: Health) -> str:
    """Say in a line how the server is."""
    for problem in health.problems():
        return f"not ready: {problem}"
    return f"serving {len(hub.tables())} tables to {len(sessions)} connections"


def _report(catalog: Catalog) -> None:
    if sqlite3.sqlite_version_info < SOUND_SQLITE:
        sound = ".".join(map(str, SOUND_SQLITE))
        log.warning("old_sqlite", version=sqlite3.sqlite_version, reason=f"{OLD_SQLITE_BUGS}; {sound} is sound")
    for table, reason in catalog.skipped.items():
        log.warning("table_not_captured", table=table, reason=reason)
    for table, warnings in catalog.warnings.items():
        for warning in warnings:
            log.warning("table_captured_in_part", table=table, reason=warning)


async def _reappeared(config: Config, stop: trio.Event) -> None:
    """Wait until there is a file again, or ``stop``: a copy over the old one may take a moment.

    Raises ``StoreUnusable``.
    """
    with trio.move_on_after(REAPPEAR_S):
        while not (config.db.exists() or stop.is_set()):  # noqa: ASYNC110 – nothing tells of a file that comes
            await trio.sleep(0.1)
    if not (config.db.exists() or stop.is_set()):
        raise taken_away(config.db)
