"""``python -m appliance``: the same as the command ``live-appliance``."""

from appliance.cli import main

main()
