from __future__ import annotations

import pwd
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from appliance.cli import commands
from appliance.config import SECRET_CREDENTIAL, load
from appliance.errors import BadConfiguration
from appliance.ops.unit import Service, socket_unit
from tests.test_house import PACKAGE

SYSTEMD = PACKAGE.parent / "systemd"
OWNED = Service(db=Path("/srv/shop/shop 1%.db"), owner=("www-data", "www-data"), config=Path("/etc/shop.toml"))
AT_HOME = Service(
    db=Path("/home/alice/shop.db"), owner=("www-data", "www-data"), certificate=(Path("/etc/a"), Path("/etc/b"))
)
OF_A_USER = Service(db=Path("/home/alice/shop.db"), user=True)


def test_the_units_in_the_repository_are_those_that_are_installed() -> None:
    assert (SYSTEMD / "live-appliance.service").read_text() == Service().unit()
    assert (SYSTEMD / "live-appliance.socket").read_text() == socket_unit()


def lines(service: Service) -> list[str]:
    return service.unit().splitlines()


def test_a_database_that_is_there_is_served_with_its_owners_rights() -> None:
    unit = lines(OWNED)
    assert 'Environment="LIVE_APPLIANCE_DB=/srv/shop/shop 1%%.db"' in unit
    assert "Environment=LIVE_APPLIANCE_CONFIG=/etc/shop.toml" in unit
    assert "User=www-data" in unit
    assert "ReadWritePaths=/srv/shop" in unit
    assert not any(line.startswith(("DynamicUser", "StateDirectory")) for line in unit)


def test_of_home_only_the_folder_of_the_database_is_seen() -> None:
    unit = lines(AT_HOME)
    assert "ProtectHome=tmpfs" in unit
    assert "BindPaths=/home/alice" in unit


def test_a_certificate_is_handed_over_as_a_credential() -> None:
    unit = lines(AT_HOME)
    assert "LoadCredential=tls.crt:/etc/a" in unit
    assert "LoadCredential=tls.key:/etc/b" in unit
    assert "Environment=LIVE_APPLIANCE_TLS_CERT=%d/tls.crt LIVE_APPLIANCE_TLS_KEY=%d/tls.key" in unit
    assert "#LoadCredential=tls.crt:/etc/%N/tls.crt" in lines(Service())


def test_a_secret_is_handed_over_where_the_server_looks_for_it(tmp_path: Path) -> None:
    unit = lines(Service(secret=Path("/etc/shop.secret")))
    assert f"LoadCredential={SECRET_CREDENTIAL}:/etc/shop.secret" in unit
    assert f"LoadCredential={SECRET_CREDENTIAL}:%N.secret" in lines(Service())
    credentials = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load({}, credentials, None).secret_file is None
    (tmp_path / SECRET_CREDENTIAL).touch()
    assert load({}, credentials, None).secret_file == tmp_path / SECRET_CREDENTIAL
    assert load({"secret_file": "mine"}, credentials, None).secret_file == Path("mine")


def test_a_secret_that_cannot_be_looked_at_is_not_taken_for_none() -> None:
    with pytest.raises(BadConfiguration, match=r"cannot be looked at .* \(LoadCredential=\)"):
        load({}, {"CREDENTIALS_DIRECTORY": "/" + "x" * 300}, None)


def test_check_leaves_a_port_alone_that_systemd_opens() -> None:
    assert "ExecStartPre=-/usr/local/bin/live-appliance check" in lines(Service())
    assert "ExecStartPre=-/usr/local/bin/live-appliance check --socket" in lines(Service(socket=True))


def test_a_users_own_service_asks_for_nothing_that_only_root_may_give() -> None:
    unit = lines(OF_A_USER)
    assert "WantedBy=default.target" in unit
    assert not any(line.startswith(("DynamicUser", "Protect", "Private", "User=", "Capability")) for line in unit)


def install(*options: str | Path) -> Result:
    return CliRunner().invoke(commands, ["service", "install", "--dry-run", *map(str, options)])


def test_what_the_command_prints_is_what_it_writes() -> None:
    assert install().output == f"# /etc/systemd/system/live-appliance.service\n{Service().unit()}\n"
    both = install("--name", "shop", "--socket").output
    assert "# /etc/systemd/system/shop.service\n" + Service(socket=True).unit() in both
    assert "# /etc/systemd/system/shop.socket\n" + socket_unit() in both


def test_files_that_the_service_would_not_see_are_refused(tmp_path: Path) -> None:
    db, config = Path("/tmp/unit.db"), tmp_path / "live.toml"
    config.touch()
    refused = install("--config", config)
    assert "does not see" in str(refused.exception)
    owner = pwd.getpwnam("nobody")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("appliance.cli.service._owner", lambda _: (owner.pw_name, "nogroup"))
        assert "move it" in str(install("--db", db).exception)
        at_home = install("--db", "/home/ann/shop/shop.db", "--config", config)
        assert "does not see" in str(at_home.exception)


def test_a_certificate_without_its_key_and_a_name_that_is_none_are_refused(tmp_path: Path) -> None:
    assert "belong together" in install("--tls-cert", tmp_path).output
    assert "--name takes" in install("--name", "a b").output
    assert "there is no file" in str(install("--secret-file", tmp_path / "none").exception)


def analyze(folder: Path, verb: str, service: Service) -> subprocess.CompletedProcess[str]:
    """Have systemd judge a unit; the program it names stands in for the one that is not installed here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    program = folder / "live-appliance"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = folder / "live-appliance.service"
    unit.write_text(service.unit().replace("/usr/local/bin/live-appliance", str(program)))
    (folder / "live-appliance.socket").write_text(socket_unit())
    return subprocess.run(
        ["systemd-analyze", *verb.split(), str(unit)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("service", [Service(), OWNED, AT_HOME, OF_A_USER], ids=["own", "owned", "home", "user"])
def test_systemd_finds_no_fault_with_a_unit(tmp_path: Path, service: Service) -> None:
    done = analyze(tmp_path, "verify", service)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("service", [Service(), OWNED, AT_HOME], ids=["own", "owned", "home"])
def test_a_unit_exposes_little(tmp_path: Path, service: Service) -> None:
    done = analyze(tmp_path, "security --offline=true --threshold=15 --no-pager", service)  # 15 is 1.5

    assert done.returncode == 0, done.stdout
