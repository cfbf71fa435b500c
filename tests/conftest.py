"""What all tests share."""

import os

# Hundreds of tests start the program: where this is set, each start would compile all of it anew, a third of a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
