"""``service``: have systemd run the server."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

import click

from appliance.errors import CommandError
from appliance.ops import unit

#: Folders that the service has as its own, empty: what is in them is not what it would find there.
_ITS_OWN: Final = ("/tmp", "/var/tmp")  # noqa: S108 – only compared
#: Folders that the service cannot see, or that are emptied: no program stays there.
_UNSUITABLE: Final = ("/home", "/root", "/tmp", "/var/tmp", "/run", "/dev")  # noqa: S108 – only compared
_PATH: Final = click.Path(path_type=Path)


@click.group()
def service() -> None:
    """Have systemd start the server and keep it running."""


@service.command("install")
@click.option("--name", default=unit.NAME, show_default=True, help="What the service is called.")
@click.option("--db", type=_PATH, help="A database that is there already; else the service has one of its own.")
@click.option("--config", "config_file", type=_PATH, help="TOML file with settings.")
@click.option("--tls-cert", type=_PATH, help="Certificate chain (PEM); with --tls-key.")
@click.option("--tls-key", type=_PATH, help="Its private key (PEM).")
@click.option("--secret-file", type=_PATH, help="The secret that tokens are signed with; else the store has its own.")
@click.option("--socket", is_flag=True, help="Have systemd open port 6336, and keep it over restarts.")
@click.option("--user", is_flag=True, help="A service of your own, without root.")
@click.option("--dry-run", "--print", is_flag=True, help="Print the units and write nothing.")
def service_install(
    name: str,
    db: Path | None,
    config_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    secret_file: Path | None,
    socket: bool,
    user: bool,
    dry_run: bool,
) -> None:
    """Write the systemd unit and say what to do next. It starts nothing; run again, it writes the unit anew."""
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise click.UsageError("--name takes letters, digits, - and _")
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key belong together: give both, or neither")
    if user and db is None:
        db = Path.home() / ".local" / "share" / name / "live.db"
        if not dry_run:
            db.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = unit.Service(
        program=_program(user=user, dry_run=dry_run),
        db=db.resolve() if db else None,
        owner=_owner(db.resolve()) if db and not user else None,
        config=_existing(config_file) if config_file else None,
        certificate=(_existing(tls_cert), _existing(tls_key)) if tls_cert and tls_key else None,
        secret=_existing(secret_file) if secret_file else None,
        socket=socket,
        user=user,
    )
    if not user:
        _see_that_it_sees(made)
    texts = {f"{name}.service": made.unit()}
    if socket:
        texts[f"{name}.socket"] = unit.socket_unit()
    folder = _folder(user)
    if dry_run:
        for file, text in texts.items():
            click.echo(f"# {folder / file}\n{text}")
        return
    _write(folder, texts)
    _say_what_next(name, made, texts)


def _program(*, user: bool, dry_run: bool) -> Path:
    """Find the file that the service is to run."""
    if not getattr(sys, "frozen", False):
        # From a checkout there is no one file; what is printed is for the file that the build makes.
        if dry_run:
            return unit.PROGRAM
        raise CommandError("service install is for the one-file program: build it with python3 packaging/build.py")
    program = Path(sys.executable).resolve()
    if not user and not dry_run and _in(program, _UNSUITABLE):
        raise CommandError(
            f"a service cannot run {program}; put it into a folder for programs first: "
            f"install -m 755 {program} {unit.PROGRAM}, then run {unit.PROGRAM} service install"
        )
    return program


def _owner(db: Path) -> tuple[str, str]:
    """Name the user and the group whose database it is."""
    try:
        status = db.stat()
    except OSError as error:
        raise CommandError(f"{db} cannot be looked at: {error.strerror}; without --db the service makes one") from None
    try:
        owner, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        raise CommandError(f"the owner of {db} has no name on this machine; chown it to a user") from None
    if owner == "root":
        raise CommandError(
            f"{db} belongs to root, as whom no server should run; chown the file and its folder to the user whose "
            "program writes it"
        )
    return owner, group


def _see_that_it_sees(made: unit.Service) -> None:
    """Refuse files where the service would look in vain, or, worse, make new ones. Raises ``CommandError``."""
    if made.db is not None and _in(made.db, _ITS_OWN):
        raise CommandError(f"the service has a /tmp and a /var/tmp of its own and does not see {made.db}; move it")
    beside = made.db is not None and made.config is not None and made.config.is_relative_to(made.db.parent)
    if made.config is not None and _in(made.config, _UNSUITABLE) and not beside:
        raise CommandError(f"the service does not see {made.config}; put it into /etc, or beside the database")


def _in(path: Path, folders: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise CommandError(f"there is no file {path}")
    return path.resolve()


def _folder(user: bool) -> Path:
    if not user:
        return Path("/etc/systemd/system")
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "systemd" / "user"


def _write(folder: Path, texts: dict[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            (folder / file).write_text(text, "utf-8")
            click.echo(f"wrote {folder / file}")
    except PermissionError:
        raise CommandError(f"{folder} cannot be written; run this with sudo, or give --user") from None
    except OSError as error:
        raise CommandError(f"{folder} cannot be written: {error.strerror}") from None


def _say_what_next(name: str, made: unit.Service, texts: dict[str, str]) -> None:
    control, journal = ("systemctl --user", "journalctl --user") if made.user else ("systemctl", "journalctl")
    units = " ".join(sorted(texts, reverse=True))
    db = made.db or Path("/var/lib", name, "live.db")
    settings = f"{Path.home() / '.config' if made.user else '/etc'}/{name}/environment"
    click.echo("next:")
    if not shutil.which("systemctl"):
        click.echo("  (this machine has no systemctl; these are for one that has)")
    click.echo(f"  {control} daemon-reload")
    click.echo(f"  {control} enable --now {units}")
    if made.user:
        click.echo("  loginctl enable-linger            # so that it also runs while you are not logged in")
    click.echo(f"  {control} status {name}       # how it is")
    click.echo(f"  {journal} -u {name} -f      # what it logs")
    click.echo(f"  {shlex.quote(str(made.program))} token create --admin --db {shlex.quote(str(db))}")
    click.echo(f"settings: {settings}, a line each, such as LIVE_APPLIANCE_PORT=8080;")
    click.echo(f"  then {control} restart {name}")
