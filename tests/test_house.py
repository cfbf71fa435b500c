"""The house: who may import whom, what the pure packages may not do, and how long a module may be.

What is checked is the text of the modules, not what happens to be loaded when they run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "appliance"

#: What each part may import of the others. Whoever may import a part may import what that part may import, too:
#: cli → serve → {web, live, ops} → store → {capture, protocol} → {model, errors}.
MAY_IMPORT: dict[str, set[str]] = {
    "__main__": {"cli"},
    "cli": {"serve", "client", "config", "logs"},
    "serve": {"wiring", "signals", "logs"},
    "wiring": {"web", "config"},
    "signals": {"ops", "config"},
    "client": {"reach"},
    "reach": {"errors"},
    "config": {"errors"},
    "counters": {"model"},
    "logs": set(),
    "web": {"live", "ops"},  # the door hands a WebSocket to live; /readyz asks ops
    "ops": {"live"},  # health is how the tail is
    "live": {"store"},
    "store": {"capture", "protocol", "counters"},
    "capture": {"model", "errors"},
    "protocol": {"model", "errors"},
    "errors": {"model"},
    "model": set(),
}

#: What the rooms of a part, its folders, may import of each other; modules that stand in none are below or above them.
ROOMS: dict[str, dict[str, set[str]]] = {
    "live": {
        "upkeep": set(),
        "session": {"tail"},
        "tail": {"replay"},
        "replay": {"fanout"},
        "fanout": {"matching"},
        "matching": {"wire"},
        "wire": set(),
    },
    "store": {
        "access": {"tables"},
        "outbox": {"tables"},
        "tables": {"file"},
        "file": set(),
    },
}

PURE = ("capture", "protocol")
#: What the pure packages have no use for: clocks, randomness, I/O, tasks.
IMPURE_IMPORTS = frozenset(
    ("aiosqlite", "anyio", "asyncio", "datetime", "h11", "os", "pathlib", "random", "secrets", "select", "shutil",
     "signal", "socket", "sqlite3", "ssl", "starlette", "structlog", "subprocess", "sys", "tempfile", "threading",
     "time", "trio", "trio_asyncio", "trio_websocket", "urllib", "uuid")
)  # fmt: skip
#: coercion asks SQLite, in memory, what a value becomes under an affinity: arithmetic, two statements under a lock.
#: signatures keeps a package from being imported that PyJWT would load for nothing.
PURE_EXCEPTIONS = {"protocol/coercion.py": {"sqlite3", "threading"}, "protocol/signatures.py": {"sys"}}

LINES_LIMIT = 360  # "about 300"; a module over it has a second idea


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def part_of(module: Path) -> str:
    """Give the part of the house: a package's name, or a module's at the top."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> Iterator[tuple[int, str]]:
    """Give every import as its line and the full dotted name of what is imported."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(module)}:{node.lineno}: imports are absolute"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def reachable(part: str, rule: dict[str, set[str]] = MAY_IMPORT) -> set[str]:
    """Give all that a part may import, directly or because what it imports may."""
    found: set[str] = set()
    waiting = [part]
    while waiting:
        new = rule[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def offences(module: Path) -> list[str]:
    """Give the imports of a module that the direction does not allow."""
    part = part_of(module)
    allowed = {part, "__init__"} | reachable(part)
    found = []
    for line, name in imports(module):
        words = name.split(".")
        if words[0] != "appliance":
            continue
        imported = words[1] if words[1] in MAY_IMPORT else "__init__"  # appliance.__version__
        if imported not in allowed:
            found.append(f"{name_of(module)}:{line}: {part} may not import {name}")
        rooms, room = ROOMS.get(part, {}), module.parent.name
        if imported == part and room in rooms and words[2] in rooms.keys() - {room} - reachable(room, rooms):
            found.append(f"{name_of(module)}:{line}: {part}/{room} may not import {name}")
    return found


def test_the_import_rule_knows_every_part_and_has_no_circle() -> None:
    assert {part_of(module) for module in modules()} - {"__init__"} == set(MAY_IMPORT)
    assert all(part not in reachable(part) for part in MAY_IMPORT)
    for part, rooms in ROOMS.items():
        assert {each.parent.name for each in (PACKAGE / part).glob("*/*.py")} == set(rooms)
        assert all(room not in reachable(room, rooms) for room in rooms)


@pytest.mark.parametrize("module", modules(), ids=name_of)
def test_imports_run_one_way(module: Path) -> None:
    if module == PACKAGE / "__init__.py":
        assert not list(imports(module))
        return

    assert offences(module) == []


def test_an_import_against_the_direction_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    module = tmp_path / "store" / "file" / "new.py"
    module.parent.mkdir(parents=True)
    forbidden = ("from appliance.live.wire import frames", "from appliance.store.tables import watch")
    module.write_text("\n".join(("from appliance import model", *forbidden)))

    assert offences(module) == [
        "store/file/new.py:2: store may not import appliance.live.wire.frames",
        "store/file/new.py:3: store/file may not import appliance.store.tables.watch",
    ]


def test_only_the_store_knows_asyncio_and_aiosqlite() -> None:
    foreign = {"aiosqlite", "asyncio", "trio_asyncio"}
    users = {name_of(module) for module in modules() for _, name in imports(module) if name.split(".")[0] in foreign}

    assert users == {"store/file/bridge.py"}


@pytest.mark.parametrize("module", [each for each in modules() if part_of(each) in PURE], ids=name_of)
def test_the_pure_packages_await_nothing_and_import_nothing_that_acts(module: Path) -> None:
    tree = ast.parse(module.read_text())
    awaiting = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, (ast.AsyncFunctionDef, ast.Await, ast.AsyncWith, ast.AsyncFor))
    ]
    acting = {name.split(".")[0] for _, name in imports(module)} & IMPURE_IMPORTS
    opening = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("open", "print", "input")
    ]

    assert awaiting == []
    assert acting == PURE_EXCEPTIONS.get(name_of(module), set())
    assert opening == []


def quoting_functions() -> list[str]:
    """Find the functions that double quotation marks, as SQL identifiers need it."""
    return [
        f"{name_of(module)}:{node.name}"
        for module in modules()
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef) and any(map(_doubles_marks, ast.walk(node)))
    ]


def _doubles_marks(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "replace"
        and [each.value for each in node.args if isinstance(each, ast.Constant)] == ['"', '""']
    )


def test_one_function_quotes_sql_identifiers() -> None:
    assert len(quoting_functions()) == 1, quoting_functions()


@pytest.mark.parametrize("module", modules(), ids=name_of)
def test_a_module_is_no_longer_than_one_idea_needs(module: Path) -> None:
    lines = len(module.read_text().splitlines())

    assert lines <= LINES_LIMIT


def test_no_module_prints() -> None:
    printing = [
        f"{name_of(module)}:{node.lineno}"
        for module in modules()
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]

    assert printing == []
