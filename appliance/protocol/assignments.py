"""From the wire to the file: the value that a client gives for a column, as it is stored.

The other way round of ``values``, and every form that is sent is taken back:

=========================================  =======================================================================
given                                      stored
=========================================  =======================================================================
a string, a number, ``null``               itself; the column's affinity then applies, as in SQL
``true``, ``false``                        1, 0 (not in a TEXT column)
``{"$blob":"<base64>"}``                   BLOB
``{"$real":"Infinity"}``, ``"-Infinity"``  an infinite REAL
anything in a JSON column                  but for a BLOB and ``null``: the JSON text of it
=========================================  =======================================================================
"""

from __future__ import annotations

import base64
import binascii
import math

from appliance.errors import Invalid
from appliance.model import JSON, Affinity, Column, SQLiteValue
from appliance.protocol.json import encode
from appliance.protocol.wording import kind, quote

_REALS = {"Infinity": math.inf, "-Infinity": -math.inf}


def stored(column: Column, value: JSON) -> SQLiteValue:
    """Give what is stored for ``value`` in ``column``. Raises ``Invalid``, naming the column."""
    if value is None:
        return None
    if isinstance(value, dict) and len(value) == 1:
        blob = _blob(value.get("$blob"))
        if blob is not None:
            return blob
        real = value.get("$real")
        if not column.json and isinstance(real, str) and real in _REALS:
            return _REALS[real]
    if column.json:
        return encode(value).decode()
    if isinstance(value, bool):
        if column.affinity is Affinity.TEXT:
            raise Invalid(f"{quote(column.name)} holds text, this is {kind(value)}")
        return int(value)
    if isinstance(value, (dict, list)):
        raise Invalid(
            f'{quote(column.name)} takes a string, a number, true, false, null, {{"$blob":"<base64>"}} or '
            f'{{"$real":"Infinity"}}; objects and arrays are for columns that are declared JSON'
        )
    return value


def _blob(text: JSON) -> bytes | None:
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
