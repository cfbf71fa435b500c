"""Run in the one-file program before its own first line: unpacks what only some installations need when it is imported.

``cryptography`` brings 14 MB that only tokens signed with RSA or elliptic curves ask for. Unpacked at every start they
would cost each command a tenth of a second and each server as much room again as all the rest.
"""

import gzip
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

UNPACKED = Path(sys._MEIPASS)
LATER = UNPACKED / "later"


class Later(MetaPathFinder):
    """Puts a module's file into its place before the ordinary finders look there."""

    def find_spec(self, name, path=None, target=None):
        """Find nothing; unpack the module if it is one of those that wait."""
        packed = LATER / (name.replace(".", "/") + ".abi3.so.gz")
        if name.startswith("cryptography.") and packed.exists():
            place = UNPACKED / packed.relative_to(LATER).with_suffix("")
            place.parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(packed) as content, place.open("wb") as file:
                while chunk := content.read(1 << 20):
                    file.write(chunk)
            place.chmod(0o700)
            packed.unlink()
        return


sys.meta_path.insert(0, Later())
