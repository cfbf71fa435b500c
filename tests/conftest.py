"""What all tests share."""

import os

from hypothesis import HealthCheck, settings

# Hundreds of tests start the program: where this is set, each start would compile all of it anew, a third of a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
