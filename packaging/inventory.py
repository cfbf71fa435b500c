"""Say what is in the one-file program: a bill of materials (CycloneDX JSON) and the licences.

Run by build.py with the Python of the build environment: inventory.py BUILD DIST SQLITE_VERSION. It starts from the
files that went in, not from what is installed: each belongs to a Python package, to Python itself, or to a package of
the system. What a wheel has compiled into its extensions is told by the wheel's own bill, where it has one, and by the
extensions themselves; no wheel brings the texts of their licences, so they are in ``licences/``. A file that belongs
to nobody, and whatever there is no licence's text of, ends the build.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.contrib.this.builders import this_component
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import LicenseWithExceptionSymbol, get_spdx_licensing
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
    "openssl": "Apache-2.0",
    "libexpat1": "MIT",
    "libffi8": "MIT",
    "libgcc-s1": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libssl3": "Apache-2.0",
    "zlib1g": "Zlib",
}
#: What a wheel links into its extension and does not say: the symbol that shows it, and the licence.
LINKED = {"cffi": ("libffi", b"ffi_prep_closure_loc", "MIT")}
#: A crate's source, as the extensions that Rust has compiled name it where they may panic.
CRATE = re.compile(rb"/(?:registry/src/[^/]+|rust/deps)/([\w-]+?)-(\d+\.\d+\.\d+[\w.+-]*)/src/")
#: What crates say of themselves where no bill does.
CRATES = {"bcrypt": "MIT", "miniz_oxide": "MIT OR Zlib OR Apache-2.0"} | dict.fromkeys(
    ("addr2line", "base64", "bcrypt-pbkdf", "blowfish", "gimli", "hashbrown", "once_cell", "pbkdf2", "pyo3", "pyo3-ffi",
     "rustc-demangle", "sha2"), "MIT OR Apache-2.0",
)  # fmt: skip
#: Texts of licences: by the name of the part, where its authors are named in it, or by the licence's.
TEXTS = {file.stem: file for file in sorted((ROOT / "packaging" / "licences").glob("*.txt"))}
SPDX = get_spdx_licensing()
PUBLIC_DOMAIN = "SQLite is in the public domain: https://www.sqlite.org/copyright.html\n"


@dataclass(frozen=True)
class Part:
    """Something by others that is in the program: where it can be had, its licence (SPDX), and that licence's text.

    ``version`` is empty where nobody says it.
    """

    name: str
    version: str
    url: PackageURL
    licence: str | None
    text: str


def generic(name: str, version: str, licence: str, text: str) -> Part:
    """Describe what comes from no registry."""
    return Part(name, version, PackageURL("generic", None, name, version or None), licence, text)


def parts(files: list[Path], sqlite_version: str, bootloader: Path) -> Iterator[Part]:
    """Find whose the files are; each part once."""
    owners = {
        Path(str(distribution.locate_file(file))).resolve(): distribution
        for distribution in metadata.distributions()
        for file in distribution.files or ()
    }
    extensions: dict[str, set[Path]] = {}
    stdlib = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    distributions, system = {}, set()
    for file in files:
        resolved = file.resolve()
        if resolved in owners:
            distributions[owners[resolved].name] = owners[resolved]
            if ".so" in resolved.suffixes:
                extensions.setdefault(owners[resolved].name, set()).add(resolved)
        elif ROOT in resolved.parents or any(folder in resolved.parents for folder in stdlib):
            continue  # our own, made by the build, or Python's
        else:
            system.add(resolved)
    distributions["pyinstaller"] = metadata.distribution("pyinstaller")  # its bootloader is the program's beginning
    for _, distribution in sorted(distributions.items(), key=lambda each: each[0].lower()):
        yield of_distribution(distribution)
    yield from sorted(compiled_in(distributions, extensions), key=lambda part: (part.name, part.version))
    yield of_bootloader(bootloader)
    yield generic("sqlite", sqlite_version, "blessing", PUBLIC_DOMAIN)
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
    url = PackageURL("pypi", None, name, distribution.version)
    return Part(name, distribution.version, url, licence, "\n".join(texts))


def compiled_in(distributions: dict[str, metadata.Distribution], extensions: dict[str, set[Path]]) -> Iterator[Part]:
    """Describe what wheels have compiled into their extensions; each once."""
    found: dict[PackageURL, str | None] = {}
    for name, distribution in distributions.items():
        for file in distribution.files or ():
            if file.parent.name == "sboms" and file.suffix == ".json":
                for each in json.loads(Path(str(distribution.locate_file(file))).read_text("utf-8"))["components"]:
                    url = PackageURL.from_string(each["purl"].partition("?")[0])
                    found.setdefault(url, licence_in(each))
        for content in map(Path.read_bytes, extensions.get(name, ())):
            for crate, version in CRATE.findall(content):
                found.setdefault(PackageURL("cargo", None, crate.decode(), version.decode()), None)
            library, symbol, licence = LINKED.get(name, ("", b"", ""))
            if library and symbol in content:
                yield generic(library, "", licence, texts_of(library, licence))
    for url, said in found.items():
        licence = said or (CRATES if url.type == "cargo" else NAMED_ELSEWHERE).get(url.name)
        yield Part(url.name, url.version or "", url, licence, texts_of(url.name, licence))


def texts_of(name: str, licence: str | None) -> str:
    """Give the texts under which what is compiled in may be passed on."""
    keys = [name] if name in TEXTS else needed(SPDX.parse(licence, validate=True)) if licence else []
    if not keys:
        sys.exit(f"{name} ({licence}) is compiled in; put the text of its licence into packaging/licences")
    return "\n".join(TEXTS[key].read_text("utf-8") for key in keys)


def needed(term: Any) -> list[str]:
    """Name the texts of a licence (SPDX, parsed), of alternatives the first that is at hand; none: one is missing."""
    if isinstance(term, SPDX.OR):
        return next(filter(None, map(needed, term.args)), [])
    if isinstance(term, LicenseWithExceptionSymbol):
        lists = [needed(term.license_symbol), needed(term.exception_symbol)]
    elif isinstance(term, SPDX.AND):
        lists = [needed(each) for each in term.args]
    else:
        return [term.key] if term.key in TEXTS else []
    return list(chain.from_iterable(lists)) if all(lists) else []


def licence_in(component: dict[str, Any]) -> str | None:
    """Give the licence that another bill of materials says of a component."""
    said = [each.get("expression") or each.get("license", {}).get("id") for each in component.get("licenses", ())]
    return " AND ".join(filter(None, said)) or None


def of_bootloader(source: Path) -> Part:
    """Describe what the bootloader has been linked with: its own zlib."""
    version = re.search(r'#define ZLIB_VERSION "([\d.]+)"', (source / "zlib" / "zlib.h").read_text("utf-8"))
    if version is None:
        sys.exit(f"zlib.h in {source} does not say its version")
    return generic("zlib", version[1], "Zlib", (source / "zlib" / "LICENSE").read_text("utf-8"))


def python(library: Path) -> Part:
    """Describe the interpreter with its standard library: the system's package, else what Python says of itself."""
    own = Path(sysconfig.get_path("stdlib"), "LICENSE.txt")
    package = owner(library)
    if package is None:
        return generic("python", platform.python_version(), "PSF-2.0", own.read_text("utf-8"))
    text = own.read_text("utf-8") if own.exists() else package.text
    return replace(package, name="python", licence="PSF-2.0", text=text)


def of_system(libraries: set[Path]) -> Iterator[Part]:
    """Describe the system's packages that shared libraries come from."""
    found = set()
    for library in libraries:
        part = owner(library)
        if part is None:
            sys.exit(f"{library} belongs to no package of the system; its licence cannot be told")
        found.add(part)
    yield from sorted(found, key=lambda part: part.name)


def owner(library: Path) -> Part | None:
    """Ask the system's package manager whose a library is (Debian and its like)."""
    # /lib is /usr/lib on a merged system, and dpkg may know a file by either name.
    for path in (library, Path("/", *library.parts[2:]) if library.parts[:2] == ("/", "usr") else library):
        answer = subprocess.run(["dpkg-query", "-S", str(path)], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            break
    else:
        return None
    package = answer.stdout.split(": ")[0].split(",")[0]
    asked = ["dpkg-query", "-W", "-f", "${Version} ${Architecture}", package]
    version, architecture = subprocess.check_output(asked, text=True).split()
    name = package.partition(":")[0]
    text = Path("/usr/share/doc", name, "copyright").read_text("utf-8", "replace")
    system = platform.freedesktop_os_release()
    # Whoever looks up what is known of a version needs to know whose it is.
    distribution = "-".join(filter(None, (system["ID"], system.get("VERSION_ID"))))
    url = PackageURL("deb", system["ID"], name, version, {"arch": architecture, "distro": distribution})
    return Part(name, version, url, NAMED_ELSEWHERE.get(name), text)


def bill(found: Iterable[Part], moment: int, program: Path) -> Bom:
    """Make the bill of materials of a program."""
    licences = LicenseFactory()
    made = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"live-appliance {__version__} {moment}"))
    made.metadata.timestamp = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    made.metadata.tools.components.add(this_component())
    digest = HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(program.read_bytes()).hexdigest())
    whole = Component(
        name="live-appliance", version=__version__, type=ComponentType.APPLICATION, bom_ref="live-appliance",
        licenses=[licences.make_from_string("MIT")], hashes=[digest],
    )  # fmt: skip
    made.metadata.component = whole
    components = [
        Component(
            name=part.name,
            version=part.version or None,
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
    made.register_dependency(whole, components)
    return made


def main(build: Path, dist: Path, sqlite_version: str) -> None:
    """Write both files."""
    files = [Path(each) for each in json.loads((build / "contents.json").read_text())]
    (bootloader,) = (build / "pyinstaller").glob("*/bootloader")
    found = list(parts(files, sqlite_version, bootloader))
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    output = JsonV1Dot6(bill(found, moment, dist / "live-appliance")).output_as_string(indent=2)
    if (wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(output)) is not None:
        sys.exit(f"the bill of materials is not valid: {wrong}")
    (dist / "live-appliance.cdx.json").write_text(output + "\n", "utf-8")
    under: dict[str, list[str]] = {}  # many are under the same text
    for part in found:
        title = f"{part.name} {part.version}".rstrip() + (f" – {part.licence}" if part.licence else "")
        under.setdefault(part.text.strip(), []).append(title)
    with (dist / "live-appliance.licences.txt").open("w", encoding="utf-8") as file:
        file.write("What is in live-appliance by others, and under which licences.\n")
        for text, titles in under.items():
            file.write("\n".join(["", "=" * 100, *titles, "=" * 100, "", text, ""]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
