"""From the wire to the file: the value that a client gives for a column, as it is stored.

The other way round of ``values``, and every form that is sent is taken back:

=========================================  =======================================================================
given                                      stored
=========================================  =======================================================================
a string, a number, ``null``               itself; the column's affinity then applies, as in SQL
``true``, ``false``                        1, 0, in a column declared BOOLEAN
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
from appliance.model import JSON, Column, SQLiteValue
from appliance.protocol.json import encode
from appliance.protocol.wording import quote

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
        if not column.boolean:
            raise Invalid(f"{quote(column.name)} is not declared BOOLEAN; it takes 1 and 0")
        return int(value)
    if isinstance(value, (dict, list)):
        raise Invalid(
            f'{quote(column.name)} takes a string, a number, null, {{"$blob":"<base64>"}} or '
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
