"""What ``check`` finds beside the store: files, ports, the certificate, the clock, the system's limits."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.errors import BadConfiguration
from appliance.ops import descriptors
from appliance.ops.check import Finding
from appliance.ops.sockets import listen, resolve
from appliance.store.access import keys

#: A certificate that ends within so many days is a warning: less than what is left when a renewal is due.
DAYS_LEFT: Final = 14
#: A WAL of so many bytes is a warning: a checkpoint has not come through for long.
LONG_WAL: Final = 256 << 20
#: A clock before this day (the release of Python 3.11) or behind the files is wrong, and tokens would be refused.
FIRST_DAY: Final = datetime.datetime(2022, 10, 24, tzinfo=datetime.UTC).timestamp()
CLOCK_SLACK_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What a server would use of the machine.

    ``addresses`` are host and port of all that it listens on. ``served``: a server does so already, and has them.
    """

    database: Path
    addresses: Sequence[tuple[str, int]]
    chain: Path | None
    key: Path | None
    secret: Path | None
    connections: int
    inotify: bool
    served: bool


def examine(setup: Setup) -> list[Finding]:
    """Examine the machine for a server with this setup. Changes nothing."""
    return [*_files(setup), *_secret(setup), *_ports(setup), *_certificate(setup), *_clock(setup), *_limits(setup)]


# --- files ------------------------------------------------------------------------------------------------------------


def _files(setup: Setup) -> Iterator[Finding]:
    beside = [Path(f"{setup.database}{suffix}") for suffix in ("", "-wal", "-live")]
    for path in (*beside, *(each for each in (setup.key, setup.secret) if each)):
        with contextlib.suppress(OSError):  # not there, or not to be looked at, as who looks at the store says
            others = path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH)
            if others:
                may = "write" if others & stat.S_IWOTH else "read"
                yield Finding("warning", f"every user of this machine may {may} {path}; run: chmod o-rwx {path}")
    live = beside[-1]
    with contextlib.suppress(OSError):
        if live.exists() and not os.access(live, os.R_OK | os.W_OK):
            yield Finding("problem", f"{live} is another user's; run serve as that user, or give the file to this one")
        if (size := beside[1].stat().st_size) > LONG_WAL:
            yield Finding("warning", f"the write-ahead log has {size >> 20} MiB: some program keeps a read transaction "
                                     "open; end it")  # fmt: skip


def _secret(setup: Setup) -> Iterator[Finding]:
    try:
        keys.given(setup.secret)
    except BadConfiguration as error:
        yield Finding("unusable", str(error))


# --- ports ------------------------------------------------------------------------------------------------------------


def _ports(setup: Setup) -> Iterator[Finding]:
    for host, port in () if setup.served else setup.addresses:
        if port == 0:
            continue
        try:
            listen(*resolve(host, port)).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                who = _listening(port) or "another program"
                yield Finding("problem", f"port {port} on {host} is in use by {who}; end it or choose another port")
            elif error.errno == errno.EACCES:
                yield Finding("unusable", f"port {port} is not allowed to this user; choose one above 1023")
            elif isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN:
                yield Finding("unusable", f"{host} cannot be listened on: there is no such address; name an address of "
                                          "this machine")  # fmt: skip
            elif host not in ("127.0.0.1", "::1"):
                yield Finding("problem", f"{host} cannot be listened on: {error.strerror or error}; name an address of "
                                         "this machine")  # fmt: skip
        else:
            yield Finding("ok", f"port {port} on {host} is free")


def _listening(port: int) -> str | None:
    """Name the process that listens on a port, as far as the system tells this user (proc(5), /proc/net/tcp)."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(os.readlink(each) in inodes for each in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return None


# --- the certificate --------------------------------------------------------------------------------------------------


def _certificate(setup: Setup) -> Iterator[Finding]:
    if setup.chain is None or setup.key is None:
        return
    # Large, and needed by nobody else here.
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        certificate = x509.load_pem_x509_certificates(setup.chain.read_bytes())[0]
        key = load_pem_private_key(setup.key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:  # TypeError: the key is encrypted
        words = error.strerror if isinstance(error, OSError) else str(error)
        yield Finding("unusable", f"{setup.chain} and {setup.key} cannot be read as certificate and key: {words}")
        return
    if certificate.public_key() != key.public_key():
        yield Finding("unusable", f"{setup.key} is not the key of the certificate in {setup.chain}")
    now = datetime.datetime.now(datetime.UTC)
    ends = certificate.not_valid_after_utc
    if ends <= now:
        yield Finding("problem", f"the certificate in {setup.chain} ended on {ends:%Y-%m-%d}; renew it and reload")
    elif (begins := certificate.not_valid_before_utc) > now:
        yield Finding("problem", f"the certificate in {setup.chain} begins on {begins:%Y-%m-%d}; use another, or look "
                                 "at this machine's clock")  # fmt: skip
    elif (left := ends - now).days < DAYS_LEFT:
        yield Finding("warning", f"the certificate in {setup.chain} ends in {left.days} days; renew it and reload")
    else:
        yield Finding("ok", f"the certificate is good until {ends:%Y-%m-%d}")


# --- the system -------------------------------------------------------------------------------------------------------


def _clock(setup: Setup) -> Iterator[Finding]:
    now = time.time()
    if now < FIRST_DAY:
        yield Finding("problem", f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(now))}; set it, or tokens are "
                                 "refused")  # fmt: skip
        return
    with contextlib.suppress(OSError):
        ahead = setup.database.stat().st_mtime - now
        if ahead > CLOCK_SLACK_S:
            yield Finding("warning", f"{setup.database} was changed {ahead / 60:.0f} minutes from now: the clock was "
                                     "set back; look at the time service (timedatectl)")  # fmt: skip


def _limits(setup: Setup) -> Iterator[Finding]:
    if (short := descriptors.short_of(setup.connections)) is not None:
        hard, wanted = short
        yield Finding("warning", f"{setup.connections} connections want {wanted} descriptors, the system has {hard}; "
                                 "raise LimitNOFILE in the unit (ulimit -Hn in a shell), or set connections to "
                                 f"{max(1, hard - descriptors.BESIDE)}")  # fmt: skip
    if setup.inotify and sys.platform == "linux":
        yield from _inotify(setup.database.parent)


def _inotify(folder: Path) -> Iterator[Finding]:
    from inotify_simple import INotify, flags  # the package is there on Linux only

    try:
        with INotify() as probe:
            probe.add_watch(str(folder), flags.MODIFY)
    except OSError as error:
        yield Finding("warning", f"the system announces no writes ({error.strerror}), so the file is polled; raise "
                                 "fs.inotify.max_user_instances and max_user_watches (sysctl)")  # fmt: skip
