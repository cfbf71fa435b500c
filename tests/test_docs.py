"""The documentation says what the code does: nothing missing, nothing that is not there."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner

from appliance import config
from appliance.cli import commands
from appliance.cli.options import DEFAULT_URL
from appliance.errors import (
    REQUEST_ERRORS,
    AddressMissing,
    BadConfiguration,
    CloseCode,
    CommandError,
    StoreInUse,
    StoreLinked,
    StoreLocked,
    StoreUnusable,
)
from appliance.live.fanout import notices
from appliance.live.session import exchange, session
from appliance.live.wire import frames as live_frames
from appliance.live.wire import outgoing, room
from appliance.ops import metrics
from appliance.protocol import filters, message_operators, operators, requests, tokens
from appliance.protocol import json as strict_json
from appliance.protocol.frames import EVENT_TYPES
from appliance.web import admission, routes
from appliance.web.api import actions
from appliance.web.limits import Limits
from tests.bench import report
from tests.e2e.live import serving, sql, until
from tests.e2e.server_process import PATIENCE_S

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "appliance"
README = ROOT / "README.md"
PROTOCOL = PACKAGE / "docs" / "protocol.md"
CONFIGURATION = PACKAGE / "docs" / "configuration.md"
ACCOUNTS = PACKAGE / "docs" / "accounts.md"
DEPLOYMENT = PACKAGE / "docs" / "deployment.md"
HTTP_API = PACKAGE / "docs" / "http-api.md"
OPERATIONS = PACKAGE / "docs" / "operations.md"
ARCHITECTURE = PACKAGE / "docs" / "architecture.md"
DOOR = config.Config().part(Limits)
PAGES = (README, PROTOCOL, CONFIGURATION, ACCOUNTS, DEPLOYMENT, HTTP_API, OPERATIONS, ARCHITECTURE)

# --- reading Markdown -------------------------------------------------------------------------------------------------


def section(page: Path, heading: str) -> str:
    """Give what stands under a heading, up to the next one of the same or a higher level."""
    lines = page.read_text().splitlines()
    assert heading in lines, f"{page.name} has no heading {heading!r}"
    level = heading.split(" ")[0]
    found: list[str] = []
    fenced = False
    for line in lines[lines.index(heading) + 1 :]:
        fenced ^= line.startswith("```")
        if not fenced and re.match(rf"#{{1,{len(level)}}} ", line):
            break
        found.append(line)
    return "\n".join(found)


def table(text: str, *first_columns: str) -> list[list[str]]:
    """Give the rows of all tables in ``text`` whose head begins with ``first_columns``, each a list of cells."""
    rows: list[list[str]] = []
    head: list[str] | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            head = None
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if head is None:
            head = cells
        elif not set(line) <= set("|- ") and head[: len(first_columns)] == list(first_columns):
            assert len(cells) == len(head), f"this row has {len(cells)} cells, its head {len(head)}: {line}"
            rows.append(cells)
    assert rows, f"there is no table that begins with {first_columns}"
    return rows


def code(text: str) -> list[str]:
    """Give what a cell or a text has in backticks, fenced blocks left out."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def blocks(page: Path, language: str) -> list[str]:
    """Give the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


# --- the protocol -----------------------------------------------------------------------------------------------------


def test_every_error_code_is_documented_with_status_cause_and_cure() -> None:
    rows = table(section(PROTOCOL, "## Error codes"), "code", "status")

    assert [[code(row[0])[0], *row[1:]] for row in rows] == [
        [each.code, str(each.status), each.cause, each.cure] for each in REQUEST_ERRORS
    ]


def test_every_close_code_is_documented_by_number_and_name() -> None:
    rows = table(section(PROTOCOL, "## Close codes"), "code", "name")

    assert [(int(row[0]), row[1]) for row in rows] == [(each.value, each.name) for each in CloseCode]
    assert all(row[2] and row[3] for row in rows)


def test_every_method_is_documented_with_its_attributes() -> None:
    rows = table(section(PROTOCOL, "## Methods"), "method", "attributes")
    documented = {
        code(row[0])[0]: (
            re.findall(r"`(\w+)`(?!\?)", row[1]),
            re.findall(r"`(\w+)`\?", row[1]),
        )
        for row in rows
    }

    assert documented == {
        name: (list(method.required), list(method.optional)) for name, method in requests.METHODS.items()
    }


@pytest.mark.parametrize("method", [name for name, each in requests.METHODS.items()])
def test_every_method_has_a_section_with_an_example(method: str) -> None:
    text = section(PROTOCOL, f"### {method}")

    assert f'"method": "{method}"' in text


def test_every_filter_operator_is_documented_with_its_sql_and_operand() -> None:
    rows = table(section(PROTOCOL, "### Operators on tables"), "operator", "SQL")

    assert [[code(row[0])[0], code(row[1])[0], row[2].replace(" or ", ", ")] for row in rows] == [
        [name, each.sql, each.takes.replace(" or ", ", ")] for name, each in operators.OPERATORS.items()
    ]


def test_user_topics_have_the_same_operators_as_the_reference_says() -> None:
    assert list(message_operators.OPERATORS) == list(operators.OPERATORS)


def test_every_event_type_is_documented() -> None:
    (row,) = (row for row in table(section(PROTOCOL, "## Events"), "key") if row[0] == "`EventType`")

    assert code(row[1]) == [*EVENT_TYPES.values(), "new-message"]


def test_every_notice_is_documented_with_all_its_reasons() -> None:
    rows = table(section(PROTOCOL, "## Notices"), "`EventType`", "`reason`")
    documented = [(code(row[0])[0], "" if row[1].startswith("–") else code(row[1])[0]) for row in rows]

    assert documented == [
        (event_type, reason) for event_type, reasons in notices.NOTICES.items() for reason in reasons or ("",)
    ]


def test_every_fixed_limit_is_documented_with_its_number() -> None:
    documented = dict(table(section(PROTOCOL, "## Limits"), "what", "limit"))

    assert documented == {
        "depth of JSON": str(strict_json.DEPTH_LIMIT),
        "characters of `id`": str(requests.ID_LIMIT),
        "characters of a new topic's name": str(requests.TOPIC_NAME_LIMIT),
        "keys of `filters`": str(filters.KEYS_LIMIT),
        "values in a filter's list": str(operators.ITEMS_LIMIT),
        "bytes of a token": str(tokens.TOKEN_LIMIT),
        "malformed frames in a row": str(exchange.MALFORMED_LIMIT),
        "seconds for the first frame with `?auth=frame`": f"{session.AUTHENTICATE_S:g}",
        "seconds in which a client must take something": f"{outgoing.WRITE_S:g}",
        "seconds for the TLS or WebSocket handshake": f"{DOOR.handshake_s:g}",
        "seconds that an idle HTTP connection is kept": f"{DOOR.idle_s:g}",
        "seconds for a request's body": f"{DOOR.body_s:g}",
        "bytes of that frame": str(admission.FIRST_BYTES),
        f"bytes that all messages of more than {room.SHORT >> 10} KiB announce together, from their beginning until "
        "they are answered": str(room.MOST),
        "of these, those of one address (of IPv6, of a /64 network)": str(room.MOST // room.SHARES),
        "bytes of a body sent to `/action/…` or `/setup`": str(actions.BODY_LIMIT),
    }


def test_the_figures_of_the_readme_are_those_that_were_measured() -> None:
    measured = report.read((ROOT / "tests" / "bench" / "figures.json").read_text())

    assert report.table(measured) in README.read_text()


def test_every_http_path_is_documented() -> None:
    rows = table(section(PROTOCOL, "## HTTP paths"), "path")

    assert [code(row[0])[0] for row in rows] == list(routes.PATHS)


def test_the_claims_of_a_token_are_documented() -> None:
    account = {"email": "a@example.com", "name": "A"}
    issued = tokens.issue("s" * 32, subject="s", admin=True, now=0, ttl_s=1, token_id="t", **account)
    claims = tokens.jwt.decode(issued, options={"verify_signature": False})
    rows = table(section(PROTOCOL, "## Tokens"), "claim")

    assert {name for row in rows for name in code(row[0])} == set(claims)
    assert claims["iss"] in section(PROTOCOL, "## Tokens")


def examples() -> list[tuple[str, str]]:
    """Give every JSON example of all pages: its page, and one JSON text."""
    return [
        (page.name, line) for page in PAGES for block in blocks(page, "json") for line in block.splitlines() if line
    ]


@pytest.mark.parametrize(("page", "text"), examples())
def test_every_json_example_is_what_the_server_takes_or_sends(page: str, text: str) -> None:
    example: Any = strict_json.decode(text)

    if "method" in example:
        asked = requests.parse(text)
        assert asked.object_type in (example["method"], "topic-list")
    elif example["MessageSource"] != "system":
        assert example["EventType"] in (*EVENT_TYPES.values(), "new-message", "snapshot")
        assert list(example)[:4] == ["MessageSource", "EventType", "ObjectType", "EventData"]
        assert example["EventType"] == "new-message" or example["EventData"]["__type"] == example["ObjectType"]
    elif example["EventType"] == "error":
        assert example["EventData"]["code"] in {each.code for each in REQUEST_ERRORS}
    elif example["EventType"] == "response":
        rows = table(section(PROTOCOL, "## Methods"), "method", "attributes")
        shapes = {("topic-list" if (name := code(row[0])[0]) == "list-topic" else name): row[2] for row in rows}
        documented = re.findall(r"`(\w+)`(\?)?", shapes[example["ObjectType"]])
        assert list(example["EventData"]) in (
            [name for name, _ in documented],
            [name for name, optional in documented if not optional],
        )
    else:
        reasons = notices.NOTICES[example["EventType"]]
        assert example["EventData"].get("reason") in (reasons or (None,))


def test_the_numbers_that_the_text_repeats_are_those_of_the_code() -> None:
    text = PROTOCOL.read_text()
    default = {each.name: each.default for each in config.settings()}

    for words in (
        f"silent for {default['ping_every_s']:g} s",
        f"sent nothing for {default['pong_within_s']:g} s",
        f"clocks may differ by {tokens.LEEWAY_S:g} s",
        f"nesting deeper than {strict_json.DEPTH_LIMIT}",
        f"within {session.AUTHENTICATE_S:g} s",
        f"at most {filters.KEYS_LIMIT} keys",
        f"`unsent_bytes` ({default['unsent_bytes'] >> 20} MiB)",
        f"`event_bytes` ({default['event_bytes'] >> 20} MiB)",
        f"took nothing for {outgoing.WRITE_S:g} s",
    ):
        assert words in " ".join(text.split()), words
    assert default["message_bytes"] == live_frames.MESSAGE_LIMIT


# --- operations -------------------------------------------------------------------------------------------------------


def test_every_metric_is_documented_with_type_labels_and_words() -> None:
    rows = table(section(OPERATIONS, "## Metrics"), "metric", "type", "labels")
    given = [(metrics.PREFIX + each.name, each.kind, list(each.labels), each.words) for each in metrics.METRICS]
    given += [(metrics.PREFIX + each.name, "histogram", [], each.words) for each in metrics.HISTOGRAMS]
    given += [(name, "counter" if name.endswith("_total") else "gauge", [], words)
              for name, words in metrics.PROCESS.items()]  # fmt: skip

    assert [(code(row[0])[0], row[1], code(row[2]), row[3]) for row in rows] == given


# --- the configuration ------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def documented_settings() -> dict[str, list[str]]:
    rows = table(section(CONFIGURATION, "## Settings"), "setting", "flag", "variable")
    names = [code(row[0])[0] for row in rows]
    assert len(set(names)) == len(names)
    return dict(zip(names, (row[1:] for row in rows), strict=True))


def test_every_setting_is_documented_and_no_other() -> None:
    assert set(documented_settings()) == {each.name for each in config.settings()}


@pytest.mark.parametrize("setting", config.settings(), ids=lambda each: each.name)
def test_a_setting_is_documented_with_its_names_default_bounds_and_words(setting: Any) -> None:
    flag, variable, default, may_be, words = documented_settings()[setting.name]
    least, most, choices = (setting.metadata[key] for key in ("least", "most", "choices"))
    boolean = isinstance(setting.default, bool)

    option = config.flag(setting)
    assert code(flag) == ([option, f"--no-{option[2:]}"] if boolean else [option])
    assert code(variable) == [config.variable(setting)]
    assert words == setting.metadata["help"]
    if isinstance(setting.default, tuple):
        assert tuple(code(default)) == setting.default
    elif setting.default in (None, ""):
        assert default == "none"
    elif isinstance(setting.default, (int, float)) and not boolean:
        assert code(default) == [number(setting.default)]
        shown = re.search(r"\((\d+) ([KM])iB\)", default)
        if shown is not None:
            assert int(shown[1]) << {"K": 10, "M": 20}[shown[2]] == setting.default
    else:
        assert code(default) == [str(setting.default).lower() if boolean else str(setting.default)]
    bounds = [number(each) for each in (least, most) if each is not None]
    assert code(may_be) == (list(choices) or (["true", "false"] if boolean else bounds))


def test_the_example_of_a_configuration_file_is_accepted(tmp_path: Path) -> None:
    (example,) = blocks(CONFIGURATION, "toml")
    file = tmp_path / "live-appliance.toml"
    file.write_text(example)

    loaded = config.load({}, {}, file)

    assert all(getattr(loaded, name) is not None for name in tomllib.loads(example))


def test_the_settings_that_a_running_server_takes_up_are_listed() -> None:
    text = section(CONFIGURATION, "### What a running server takes up")
    listed = next(paragraph for paragraph in text.split("\n\n") if paragraph.startswith("`"))

    assert code(listed) == [each.name for each in config.settings() if each.metadata["live"]]


def test_the_variables_that_are_no_settings_are_named() -> None:
    assert set(config.OTHER_VARIABLES) <= set(code(section(CONFIGURATION, "## Where a setting comes from")))


# --- the command line -------------------------------------------------------------------------------------------------


CONTEXT = click.Context(commands)


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Give every command that does something, with the words that call it."""
    for name in group.commands or group.list_commands(CONTEXT):  # the first are in order, and the program's none yet
        command = group.get_command(CONTEXT, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(leaves(commands))


def spellings(parameter: click.Parameter) -> set[str]:
    if isinstance(parameter, click.Argument):
        return {(parameter.metavar or str(parameter.name).upper()).strip("[]")}
    return {*parameter.opts, *parameter.secondary_opts}


def test_every_command_is_documented_and_no_other() -> None:
    headings = re.findall(r"^### `live-appliance (.+)`$", CONFIGURATION.read_text(), re.MULTILINE)

    assert headings == [" ".join(path) for path in COMMANDS]


def test_what_help_says_of_a_command_in_a_line_is_a_whole_sentence() -> None:
    for group in ["", *{path[0] for path in COMMANDS if len(path) > 1}]:
        said = CliRunner().invoke(commands, [*group.split(), "--help"], terminal_width=80, prog_name="live-appliance")
        lines = said.output.partition("Commands:\n")[2].splitlines()
        assert lines
        assert [line for line in lines if not line.endswith(".") or line.endswith("...")] == []


def test_the_version_is_an_option_too() -> None:
    by_option, by_command = (CliRunner().invoke(commands, [word]) for word in ("--version", "version"))
    assert (by_option.exit_code, by_option.output) == (0, by_command.output)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_of_a_command_is_documented_and_no_other(path: tuple[str, ...]) -> None:
    known = set().union(*(spellings(each) for each in COMMANDS[path].params))
    text = section(CONFIGURATION, f"### `live-appliance {' '.join(path)}`")
    if path == ("serve",):
        known -= {word for row in documented_settings().values() for word in code(row[0])}
    if not known:
        assert "|" not in text
        return

    assert {word for row in table(text, "option") for word in code(row[0])} == known


def test_the_defaults_of_options_are_documented() -> None:
    assert f"`{DEFAULT_URL}` unless given" in section(CONFIGURATION, "### `live-appliance tail`")
    ttl = next(each for each in COMMANDS["token", "create"].params if each.name == "ttl")
    assert f"`{ttl.default}` unless given" in section(CONFIGURATION, "### `live-appliance token create`")


def test_every_variable_that_an_option_reads_is_documented() -> None:
    read = {str(each.envvar) for command in COMMANDS.values() for each in command.params if each.envvar}

    assert read <= set(code(section(CONFIGURATION, "## Commands")))


def called() -> list[tuple[str, list[str]]]:
    """Give every call of the program in a shell block or in running text: its page and its words."""
    found = []
    for page in PAGES:
        lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
        prose = re.sub(r"\n(?!\n)", " ", page.read_text())  # a call may run over the end of a line
        lines += re.findall(r"`((?:live-appliance|serve) --?[^`]*|live-appliance [a-z][^`]*)`", prose)
        for line in lines:
            words = shlex.split(line, comments=True)
            if words and words[0].endswith("live-appliance") and len(words) > 1:
                found.append((page.name, words[1:]))
            elif words and words[0] == "serve":
                found.append((page.name, words))
    return found


@pytest.mark.parametrize(("page", "words"), [(page, words) for page, words in called() if "COMMAND" not in words])
def test_every_call_in_the_documentation_is_one_that_the_program_takes(page: str, words: list[str]) -> None:
    command: click.Command | None = commands
    rest = list(words)
    while isinstance(command, click.Group):
        command = command.get_command(CONTEXT, rest.pop(0))
    assert command is not None
    command.make_context(words[0], rest, resilient_parsing=not rest)  # a bare name mentions a command, not a call


def test_every_exit_status_of_an_error_is_documented() -> None:
    rows = table(section(CONFIGURATION, "## Exit statuses"), "status")
    statuses = {int(row[0]) for row in rows}

    kinds = (CommandError, StoreInUse, StoreUnusable, StoreLinked, StoreLocked, BadConfiguration, AddressMissing)
    raised = {each.exit_status for each in kinds}
    assert raised | {0, click.UsageError.exit_code, 130, 143} == statuses


def test_every_kind_of_command_error_has_been_looked_at() -> None:
    below = {each for each in CommandError.__subclasses__() if each.__module__ == "appliance.errors"}

    assert below == {StoreInUse, StoreUnusable, BadConfiguration}


def test_every_log_event_is_documented_with_level_and_fields() -> None:
    rows = table(section(CONFIGURATION, "## Log events"), "event", "level", "fields")

    assert {code(row[0])[0]: (row[1], set(code(row[2]))) for row in rows} == log_events()


def log_events() -> dict[str, tuple[str, set[str]]]:
    """Find every log call in the package: name, level and fields."""
    found: dict[str, tuple[str, set[str]]] = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("debug", "info", "warning", "error", "critical", "exception")
                and ast.unparse(node.func.value) in ("log", "self._log")
            ):
                assert isinstance(node.args[0], ast.Constant), f"{file}:{node.lineno}: an event's name is constant"
                name, level = node.args[0].value, node.func.attr
                before = found.get(name, (level, set()))
                assert before[0] == level, f"{name} is logged at two levels"
                found[name] = (level, before[1] | {str(each.arg) for each in node.keywords})
    return found


# --- the README and the changelog -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dev() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dev", ROOT / "packaging" / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_two_commands_of_the_readme_are_there(dev: ModuleType) -> None:
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    calls = [shlex.split(line, comments=True) for line in lines if "packaging/dev.py" in line]

    assert [call[:3] for call in calls] == [
        ["python3", "packaging/dev.py", "serve"],
        ["python3", "packaging/dev.py", "test"],
    ]
    assert all(callable(getattr(dev, call[2])) for call in calls)
    COMMANDS[("serve",)].make_context("serve", calls[0][3:])


def test_the_python_of_the_readme_is_python() -> None:
    (example,) = blocks(README, "python")

    compile(example, "README.md", "exec")


@pytest.mark.e2e
def test_what_the_readme_shows_is_what_happens(tmp_path: Path) -> None:
    lines = [line for block in blocks(README, "sh") for line in block.splitlines() if line.startswith("sqlite3 ")]
    create, *writes = (shlex.split(line)[2] for line in lines)
    shown = next(block for block in blocks(README, "json") if '"database"' in block).splitlines()

    with serving(tmp_path / "shop.db") as live:
        sql(live.db, create)
        with live.client() as client:
            until(lambda: client.ask("subscribe", topic="orders")["EventType"] == "response", "the table is a topic")
            for write in writes:
                sql(live.db, write)
            assert [client.connection.recv(timeout=PATIENCE_S) for _ in shown] == shown


def test_the_readme_gives_a_reason_for_every_dependency_and_no_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = table(section(README, "## Architecture"), "dependency", "why")

    assert sorted(row[0] for row in rows) == sorted(re.match(r"[\w-]+", each)[0] for each in project["dependencies"])
    assert all(row[1] for row in rows)


def test_the_readme_names_every_part_of_the_package() -> None:
    text = section(README, "## Architecture")
    named = set(code(" ".join(row[0] for row in table(text, "part"))))
    parts = {f"{each.name}/" for each in PACKAGE.iterdir() if (each / "__init__.py").exists()}
    parts |= {each.name for each in PACKAGE.glob("*.py") if not each.name.startswith("__")}

    assert named == parts


def test_the_changelog_has_an_entry_for_this_version() -> None:
    import appliance

    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert appliance.__version__ in headings[0]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_link_inside_the_documentation_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, target


def test_the_documentation_is_shipped_with_the_package() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert wheel["packages"] == [PACKAGE.name]
    assert "exclude" not in wheel
    assert all(PACKAGE in page.parents for page in PAGES[1:])
