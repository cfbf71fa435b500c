"""Where a setting comes from, what it may be, and what is said when it is not that."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import config
from appliance.config import Config, flag, load, settings, variable
from appliance.errors import BadConfiguration
from appliance.live.session.session import SessionLimits
from appliance.web.limits import Limits

BY_NAME = {each.name: each for each in settings()}
#: What must be given beside a setting.
TOGETHER: dict[str, dict[str, object]] = {
    "tls_cert": {"tls_key": "k.pem"},
    "tls_key": {"tls_cert": "c.pem"},
    "token_lifetime_s": {"token_ttl_s": 1},
}


def toml(folder: Path, text: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(text)
    return file


def refusal(
    flags: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None, file: Path | None = None
) -> str:
    with pytest.raises(BadConfiguration) as caught:
        load(flags or {}, environment or {}, file)
    return str(caught.value)


# --- where it comes from ----------------------------------------------------------------------------------------------


def test_without_anything_every_setting_has_its_default() -> None:
    assert load({}, {}, None) == Config()


def test_a_flag_counts_more_than_the_environment_than_the_file_than_the_default(tmp_path: Path) -> None:
    file = toml(tmp_path, "port = 1\nsubscriptions = 1\nuser_topics = 1\n")
    environment = {"LIVE_APPLIANCE_PORT": "2", "LIVE_APPLIANCE_SUBSCRIPTIONS": "2"}

    loaded = load({"port": "3"}, environment, file)

    assert (loaded.port, loaded.subscriptions, loaded.user_topics, loaded.connections) == (3, 2, 1, 20_000)


def test_a_list_replaces_the_list_of_the_lower_place(tmp_path: Path) -> None:
    file = toml(tmp_path, 'host = ["10.0.0.1", "10.0.0.2"]')

    assert load({}, {}, file).host == ("10.0.0.1", "10.0.0.2")
    assert load({}, {"LIVE_APPLIANCE_HOST": " 10.0.0.3 ,10.0.0.4,"}, file).host == ("10.0.0.3", "10.0.0.4")
    assert load({"host": ("::",)}, {"LIVE_APPLIANCE_HOST": "10.0.0.3"}, file).host == ("::",)


def test_variables_that_are_not_ours_or_no_settings_are_left_alone() -> None:
    others = dict.fromkeys((*config.OTHER_VARIABLES, "PORT", "HOME"), "x")

    assert load({}, others, None) == Config()


@pytest.mark.parametrize("setting", settings(), ids=lambda each: each.name)
def test_every_setting_can_be_given_in_every_place(setting: Any, tmp_path: Path) -> None:
    texts = {
        "int": "65536",
        "float": "10.5",
        "bool": str(setting.default is False).lower(),
        "Path": "x.pem",
        "Path | None": "x.pem",
    }
    text = texts.get(str(setting.type), "x")
    if setting.metadata["choices"]:
        text = setting.metadata["choices"][-1]
    if setting.name == "port":
        text = "65535"
    several = str(setting.type).startswith("tuple")
    quoted = text if str(setting.type) in ("int", "float", "bool") else f'"{text}"'
    pair: dict[str, object] = TOGETHER.get(setting.name, {})

    by_flag = load({setting.name: (text,) if several else text, **pair}, {}, None)
    by_variable = load(pair, {variable(setting): text}, None)
    by_file = load(pair, {}, toml(tmp_path, f"{setting.name} = {f'[{quoted}]' if several else quoted}"))

    assert by_flag == by_variable == by_file
    assert getattr(by_flag, setting.name) != setting.default or setting.default == (text,)


def test_a_part_of_the_server_takes_the_settings_by_their_names() -> None:
    limits = Config(message_bytes=2048).part(Limits)

    assert (limits.message_bytes, limits.connections) == (2048, Config().connections)
    assert {each.name for each in fields(Limits)} - BY_NAME.keys() == {"idle_s", "body_s", "held_bytes"}
    assert {each.name for each in fields(SessionLimits)} <= BY_NAME.keys()


# --- names ------------------------------------------------------------------------------------------------------------


def test_an_unknown_name_in_the_file_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    file = toml(tmp_path, "prot = 1")

    assert refusal(file=file) == f'{file}: there is no setting "prot"; did you mean port?'


def test_an_unknown_variable_is_refused_with_the_nearest_one() -> None:
    assert refusal(environment={"LIVE_APPLIANCE_CONECTIONS": "1"}) == (
        "there is no setting for the variable LIVE_APPLIANCE_CONECTIONS; did you mean LIVE_APPLIANCE_CONNECTIONS?"
    )


def test_a_name_that_is_near_nothing_gets_no_suggestion(tmp_path: Path) -> None:
    assert "did you mean" not in refusal(file=toml(tmp_path, "zzzzzz = 1"))


# --- what it may be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("port", "many", "must be a whole number, not 'many'"),
        ("port", "1.5", "must be a whole number, not '1.5'"),
        ("port", "", "must be a whole number, not ''"),
        ("port", "-1", "must be at least 0, not '-1'"),
        ("port", "65536", "must be at most 65535, not '65536'"),
        ("busy_timeout_s", "soon", "must be a number, not 'soon'"),
        ("busy_timeout_s", "nan", "must be a number, not 'nan'"),
        ("busy_timeout_s", "inf", "must be a number, not 'inf'"),
        ("busy_timeout_s", "0", "must be at least 0.1, not '0'"),
        ("inotify", "maybe", "must be true or false, not 'maybe'"),
        ("log_level", "loud", "must be one of debug, info, warning, error, not 'loud'"),
        ("tls_cert", "", "must be a path, not ''"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_and_its_source_named(name: str, text: str, complaint: str) -> None:
    setting = BY_NAME[name]

    assert refusal({name: text}) == f"{flag(setting)} {complaint}"
    assert refusal(environment={variable(setting): text}) == f"{variable(setting)} {complaint}"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('port = "many"', "\"port\" must be a whole number, not 'many'"),
        ("port = true", '"port" must be a whole number, not True'),
        ("port = 6336.0", '"port" must be a whole number, not 6336.0'),
        ("busy_timeout_s = false", '"busy_timeout_s" must be a number, not False'),
        ("inotify = 1", '"inotify" must be true or false, not 1'),
        ('host = "::1"', "\"host\" must be a list of strings, not '::1'"),
        ("host = [1]", '"host" must be a list of strings, not [1]'),
        ('host = [""]', "\"host\" must be a list of strings, not ['']"),
        ('jwt_keys = ["k\\u0000.json"]', "\"jwt_keys\" must be a list of strings, not ['k\\x00.json']"),
        ('secret_file = "s\\u0000"', "\"secret_file\" must be a path, not 's\\x00'"),
        ("log_format = 1", '"log_format" must be a string, not 1'),
        ("db = 1", '"db" must be a path, not 1'),
        ("[port]\nx = 1", "\"port\" must be a whole number, not {'x': 1}"),
    ],
)
def test_a_value_of_the_wrong_type_in_the_file_is_refused(line: str, complaint: str, tmp_path: Path) -> None:
    file = toml(tmp_path, line)

    assert refusal(file=file) == f"{file}: {complaint}"


def test_a_bad_value_is_refused_even_where_a_better_place_names_the_setting(tmp_path: Path) -> None:
    assert "settings.toml" in refusal({"port": "1"}, {}, toml(tmp_path, "port = -1"))


@pytest.mark.parametrize("setting", [each for each in settings() if each.metadata["least"] is not None], ids=flag)
def test_bounds_belong_to_what_is_allowed(setting: Any) -> None:
    least, most = setting.metadata["least"], setting.metadata["most"]
    beside = TOGETHER.get(setting.name, {})

    assert getattr(load({setting.name: least, **beside}, {}, None), setting.name) == least
    assert "must be at least" in refusal({setting.name: least - 1})
    if most is not None:
        assert getattr(load({setting.name: most}, {}, None), setting.name) == most
        assert "must be at most" in refusal({setting.name: most + 1})


@pytest.mark.parametrize("setting", settings(), ids=flag)
def test_every_default_is_allowed_itself(setting: Any) -> None:
    if setting.default is None:
        return
    beside = TOGETHER.get(setting.name, {})

    assert getattr(load({setting.name: setting.default, **beside}, {}, None), setting.name) == setting.default


@given(st.sampled_from(settings()), st.text())
def test_any_text_is_taken_or_refused_with_the_name_of_the_variable(setting: Any, text: str) -> None:
    refused = ""
    try:
        load({}, {variable(setting): text}, None)
    except BadConfiguration as error:
        refused = str(error)
    assert not refused or variable(setting) in refused or flag(setting) in refused


@pytest.mark.parametrize("only", ["tls_cert", "tls_key"])
def test_a_certificate_and_its_key_belong_together(only: str) -> None:
    assert refusal({only: "x.pem"}) == "--tls-cert and --tls-key belong together: give both, or neither"


def test_a_list_of_no_addresses_is_refused(tmp_path: Path) -> None:
    said = "--host names no address to listen on: give one, such as 127.0.0.1, or leave it out"

    assert refusal(environment={"LIVE_APPLIANCE_HOST": ","}) == said
    assert refusal(file=toml(tmp_path, "host = []")) == said


def test_a_sign_in_gives_no_token_that_would_be_refused() -> None:
    said = refusal({"token_ttl_s": "1e9"})

    assert said.startswith("--token-ttl-s (1000000000) is longer than --token-lifetime-s (31622400)")
    assert load({"token_ttl_s": "1e9", "token_lifetime_s": "1e9"}, {}, None).token_ttl_s == 1e9


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "none.toml"

    assert refusal(file=file) == f"the configuration {file} cannot be read: No such file or directory"


def test_a_file_that_is_not_toml_is_refused_with_the_place(tmp_path: Path) -> None:
    file = toml(tmp_path, "port = \ndb = 1")

    assert refusal(file=file).startswith(f"{file} is not TOML: ")
    assert "line 1" in refusal(file=file)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes(b'db = "\xe9"')

    assert refusal(file=file).startswith(f"{file} is not TOML: ")


# --- from the command line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--port", "70000"], {}, "--port must be at most 65535"),
        ([], {"LIVE_APPLIANCE_PORT": "many"}, "LIVE_APPLIANCE_PORT must be a whole number"),
        ([], {"LIVE_APPLIANCE_PROT": "1"}, "did you mean LIVE_APPLIANCE_PORT?"),
        (["--config", "none.toml"], {}, "none.toml cannot be read"),
        (["--reveal", "password"], {}, "--reveal takes table.column"),
        (["--jwt-keys", "RS256:/nowhere"], {}, "/nowhere cannot be read"),
        (["--jwt-issuer", "live-appliance"], {}, '--jwt-issuer cannot be "live-appliance"'),
        (["--trusted-proxies", "nobody"], {}, "--trusted-proxies must be addresses or networks"),
        (["--allowed-origins", "shop.example.com"], {}, "--allowed-origins must be scheme://host"),
        ([], {"LIVE_APPLIANCE_HOST": ","}, "--host names no address"),
        (["--tls-cert", "none.pem", "--tls-key", "none.key"], {}, "none.pem cannot be read"),
    ],
)
def test_a_wrong_configuration_ends_serve_with_78_and_one_line(
    arguments: list[str], environment: dict[str, str], words: str, tmp_path: Path
) -> None:
    done = run(tmp_path, ["serve", "--db", "shop.db", *arguments], environment)

    assert done.returncode == 78
    assert words in done.stderr
    assert done.stderr.startswith("live-appliance: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []  # nothing was begun


def test_an_unknown_flag_ends_serve_with_2_and_the_nearest_one(tmp_path: Path) -> None:
    done = run(tmp_path, ["serve", "--prot", "1"], {})

    assert done.returncode == 2
    assert "--port" in done.stderr


def run(folder: Path, arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(config.ENVIRONMENT_PREFIX)}
    root = str(Path(__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-m", "appliance", *arguments],
        cwd=folder,
        env={**own, **environment, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("name", [":memory:", "file:/srv/shop.db?mode=ro"])
def test_what_is_no_path_for_sqlite_is_told_what_to_write_instead(name: str) -> None:
    with pytest.raises(BadConfiguration, match="the path of a file that can be written"):
        load({"db": name}, {}, None)
