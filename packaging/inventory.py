"""Say what is in the one-file program: a bill of materials (CycloneDX JSON) and the licences.

Run by build.py with the Python of the build environment: inventory.py BUILD DIST SQLITE_VERSION. It starts from the
files that went in, not from what is installed: each belongs to a Python package, to Python itself, or to a package of
the system. A file that belongs to none, or a package without a licence's text, ends the build.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.contrib.this.builders import this_component
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from appliance import __version__  # noqa: E402

#: Names of licences that packages spell in their own way.
SPELLINGS = {"MIT -or- Apache License 2.0": "MIT OR Apache-2.0", "Apache 2.0": "Apache-2.0", "MIT License": "MIT"}
#: Packages whose metadata names no licence that has an SPDX identifier.
NAMED_ELSEWHERE = {
    "aiosqlite": "MIT",
    "trio-websocket": "MIT",
    "pyinstaller": "GPL-2.0-or-later WITH Bootloader-exception",
}
PUBLIC_DOMAIN = "SQLite is in the public domain: https://www.sqlite.org/copyright.html\n"


@dataclass(frozen=True)
class Part:
    """Something by others that is in the program: where it can be had (a package URL), its licence, and its text."""

    name: str
    version: str
    kind: str
    licence: str | None
    text: str
    namespace: str | None = None

    @property
    def url(self) -> PackageURL:
        """Its package URL."""
        return PackageURL(self.kind, self.namespace, self.name, self.version)


def parts(files: list[Path], sqlite_version: str) -> Iterator[Part]:
    """Find whose the files are; each part once."""
    owners = {
        Path(str(distribution.locate_file(file))).resolve(): distribution
        for distribution in metadata.distributions()
        for file in distribution.files or ()
    }
    stdlib = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    distributions, system = {}, set()
    for file in files:
        resolved = file.resolve()
        if resolved in owners:
            distributions[owners[resolved].name] = owners[resolved]
        elif ROOT in resolved.parents or any(folder in resolved.parents for folder in stdlib):
            continue  # our own, made by the build, or Python's
        else:
            system.add(resolved)
    distributions["pyinstaller"] = metadata.distribution("pyinstaller")  # its bootloader is the program's beginning
    for _, distribution in sorted(distributions.items(), key=lambda each: each[0].lower()):
        yield of_distribution(distribution)
    yield Part("sqlite", sqlite_version, "generic", "blessing", PUBLIC_DOMAIN)
    library = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")).resolve()
    yield python(library)
    yield from of_system(system - {library})


def of_distribution(distribution: metadata.Distribution) -> Part:
    """Describe a Python package."""
    name = distribution.name.lower().replace("_", "-")
    licence = distribution.metadata.get("License-Expression") or distribution.metadata.get("License") or ""
    texts = [
        Path(str(distribution.locate_file(file))).read_text("utf-8", "replace")
        for file in distribution.files or ()
        if ".dist-info" in str(file) and file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE"))
    ]
    if not texts:
        sys.exit(f"{name} has no text of its licence; find it and say so in packaging/inventory.py")
    licence = NAMED_ELSEWHERE.get(name) or SPELLINGS.get(licence, licence)
    return Part(name, distribution.version, "pypi", licence, "\n".join(texts))


def python(library: Path) -> Part:
    """Describe the interpreter with its standard library."""
    version = platform.python_version()
    own = Path(sysconfig.get_path("stdlib"), "LICENSE.txt")
    if own.exists():
        return Part("python", version, "generic", "PSF-2.0", own.read_text())
    package = owner(library)
    return Part(package.name, package.version, "deb", "PSF-2.0", package.text, package.namespace)


def of_system(libraries: set[Path]) -> Iterator[Part]:
    """Describe the system's packages that shared libraries come from."""
    found = {owner(library) for library in libraries}
    yield from sorted(found, key=lambda part: part.name)


def owner(library: Path) -> Part:
    """Ask the system's package manager whose a library is (Debian and its like)."""
    # /lib is /usr/lib on a merged system, and dpkg may know a file by either name.
    for path in (library, Path("/", *library.parts[2:]) if library.parts[:2] == ("/", "usr") else library):
        answer = subprocess.run(["dpkg-query", "-S", str(path)], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            break
    else:
        sys.exit(f"{library} belongs to no package of the system; its licence cannot be told")
    package = answer.stdout.split(": ")[0].split(",")[0]
    version = subprocess.check_output(["dpkg-query", "-W", "-f", "${Version}", package], text=True)
    name = package.partition(":")[0]
    text = Path("/usr/share/doc", name, "copyright").read_text("utf-8", "replace")
    return Part(name, version, "deb", None, text, "debian")


def bill(found: list[Part], moment: int) -> Bom:
    """Make the bill of materials."""
    licences = LicenseFactory()
    made = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"live-appliance {__version__} {moment}"))
    made.metadata.timestamp = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    made.metadata.tools.components.add(this_component())
    program = Component(
        name="live-appliance", version=__version__, type=ComponentType.APPLICATION, bom_ref="live-appliance",
        licenses=[licences.make_from_string("MIT")],
    )  # fmt: skip
    made.metadata.component = program
    components = [
        Component(
            name=part.name,
            version=part.version,
            type=ComponentType.LIBRARY,
            purl=part.url,
            bom_ref=str(part.url),
            licenses=[licences.make_from_string(part.licence, license_acknowledgement=LicenseAcknowledgement.DECLARED)]
            if part.licence
            else [],
        )
        for part in found
    ]
    made.components.update(components)
    made.register_dependency(program, components)
    return made


def main(build: Path, dist: Path, sqlite_version: str) -> None:
    """Write both files."""
    files = [Path(each) for each in json.loads((build / "contents.json").read_text())]
    found = list(parts(files, sqlite_version))
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    output = JsonV1Dot6(bill(found, moment)).output_as_string(indent=2)
    (dist / "live-appliance.cdx.json").write_text(output + "\n", "utf-8")
    with (dist / "live-appliance.licences.txt").open("w", encoding="utf-8") as file:
        file.write("What is in live-appliance by others, and under which licences.\n")
        for part in found:
            title = f"{part.name} {part.version}" + (f" – {part.licence}" if part.licence else "")
            file.write(f"\n{'=' * 100}\n{title}\n{'=' * 100}\n\n{part.text.strip()}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
