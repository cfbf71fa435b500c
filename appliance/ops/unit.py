"""The systemd units that run live-appliance, as text. What they say is explained in ``docs/deployment.md``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Where the program is expected unless it runs from elsewhere.
PROGRAM: Final = Path("/usr/local/bin/live-appliance")
#: What it is called unless somebody runs several.
NAME: Final = "live-appliance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What of a unit is not always the same.

    ``db`` is a database that is there already, with the ``owner`` (user, group) whose rights the server has; without
    it the server runs as a user of its own, on a database in its own state directory. ``user`` is a unit for the
    service manager that every user has, who is then the owner; it needs ``db``.
    ``secret`` is the file of secrets that tokens are signed with. ``socket``: a socket unit opens the port.
    """

    program: Path = PROGRAM
    db: Path | None = None
    owner: tuple[str, str] | None = None
    config: Path | None = None
    certificate: tuple[Path, Path] | None = None
    secret: Path | None = None
    socket: bool = False
    user: bool = False

    def unit(self) -> str:
        """Give the text of the ``.service`` file."""
        parts = [_UNIT, self._service(), _LIFE]
        if not self.user:
            parts += [self._rights(), _CONFINEMENT]
        parts.append(f"[Install]\nWantedBy={'default' if self.user else 'multi-user'}.target\n")
        return "\n".join(parts)

    def _service(self) -> str:
        program, db = _quoted(self.program), str(self.db) if self.db else "%S/%N/live.db"
        lines = [
            "[Service]",
            "Type=notify",
            "# The program is one file and runs as two processes: the second serves and reports.",
            "NotifyAccess=all",
            "# What check finds goes to the journal. It does not keep serve from starting, which refuses by itself",
            "# what cannot be served, with exit status 78, and makes the database where there is none.",
            f"ExecStartPre=-{program} check{' --socket' if self.socket else ''}",
            f"ExecStart={program} serve",
            "ExecReload=kill -HUP $MAINPID",
            "",
            "# Settings: LIVE_APPLIANCE_<NAME>=… in this file, one a line.",
            f"EnvironmentFile=-{'%E' if self.user else '/etc'}/%N/environment",
            f"Environment={_assigned('LIVE_APPLIANCE_DB', db)}",
        ]
        if self.config:
            lines.append(f"Environment={_assigned('LIVE_APPLIANCE_CONFIG', str(self.config))}")
        lines += [
            "# Where it unpacks itself; gone when it has stopped, however it ended.",
            "RuntimeDirectory=%N",
            "RuntimeDirectoryMode=0700",
            "Environment=TMPDIR=%t/%N",
        ]
        if self.db is None:
            lines += ["StateDirectory=%N", "StateDirectoryMode=0700"]
        chain, key = self.certificate or ("/etc/%N/tls.crt", "/etc/%N/tls.key")
        mark = "" if self.certificate else "#"
        lines += [
            "# Files that only root may read are handed over as credentials: copied at each start, not on a reload.",
            f"{mark}LoadCredential=tls.crt:{chain}",
            f"{mark}LoadCredential=tls.key:{key}",
            f"{mark}Environment=LIVE_APPLIANCE_TLS_CERT=%d/tls.crt LIVE_APPLIANCE_TLS_KEY=%d/tls.key",
        ]
        if self.secret:
            lines.append(f"LoadCredential=secret:{self.secret}")
        elif not self.user:
            lines += [
                "# What signs tokens, if there is /etc/credstore/%N.secret; else the store has a secret of its own.",
                "LoadCredential=secret:%N.secret",
            ]
        return "\n".join(lines) + "\n"

    def _rights(self) -> str:
        if self.db is None or self.owner is None:
            return "# A user of its own, made at each start.\nDynamicUser=yes\nProtectHome=yes\n"
        folder = _quoted(self.db.parent)
        lines = [f"User={self.owner[0]}", f"Group={self.owner[1]}"]
        if self.db.parts[:2] in (("/", "home"), ("/", "root"), ("/", "run")):
            lines += ["ProtectHome=tmpfs", f"BindPaths={folder}"]
        else:
            lines += ["ProtectHome=yes", f"ReadWritePaths={folder}"]
        return "# Who owns the database; SQLite writes beside it, too.\n" + "\n".join(lines) + "\n"


def socket_unit(addresses: tuple[str, ...] = ("127.0.0.1:6336", "[::1]:6336")) -> str:
    """Give the text of a ``.socket`` file: systemd opens the port, also one below 1024, and keeps it over restarts."""
    listen = "\n".join(f"ListenStream={address}" for address in addresses)
    return (
        "[Unit]\nDescription=The port of live-appliance\n\n"
        f"[Socket]\n{listen}\nBindIPv6Only=ipv6-only\nBacklog=4096\n\n"
        "[Install]\nWantedBy=sockets.target\n"
    )


def _quoted(path: Path) -> str:
    """Write a path as systemd reads it: % begins a specifier, a space ends a word."""
    text = str(path).replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if " " in text or '"' in text else text


def _assigned(name: str, value: str) -> str:
    text = value if value.startswith("%S") else value.replace("%", "%%")
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}={text}"' if " " in text or '"' in text else f"{name}={text}"


_UNIT: Final = """\
[Unit]
Description=live-appliance, a SQLite file as a realtime backend
After=network.target
# It is started again for as long as it fails; what only a person can mend ends with 78 or 2 and is left alone.
StartLimitIntervalSec=0
"""

_LIFE: Final = """\
# A large database may have to be examined or migrated before it is served.
TimeoutStartSec=10min
TimeoutStopSec=20
# Fed by the tail of the outbox as it moves: one that is stuck is killed, with a stack in the journal.
WatchdogSec=30
Restart=on-failure
RestartSec=1
RestartPreventExitStatus=2 78
KillMode=control-group
LimitNOFILE=65536
TasksMax=256
MemoryMax=75%
OOMPolicy=stop
"""

_CONFINEMENT: Final = """\
# What it needs is the network and its files; nothing else is there.
# /run is mounted noexec on many systems, and the program runs from what it has unpacked.
ExecPaths=%t/%N
ProtectSystem=strict
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
PrivateIPC=yes
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
UMask=0077
"""
