"""Any Python value as plain JSON data, so that no odd value ever costs the user the whole result."""

import base64
import datetime
import math

_DEEPEST = 200
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1


def convert(value, depth=0):
    """None, bool, int, float, str, list or dict of the same; numbers that JSON lacks become None."""
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if _SMALLEST <= value <= _LARGEST else _large(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if depth > _DEEPEST:
        return str(value)
    if isinstance(value, dict):
        return {_text(key): convert(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [convert(item, depth + 1) for item in value]
    return _convert_rare(value, depth)


def _convert_rare(value, depth):
    name = type(value).__name__
    if name == "NaTType":
        return "NaT"
    if name == "NAType":
        return None
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, datetime.timedelta) or isinstance(value, complex):
        return str(value)
    if name in ("datetime64", "timedelta64"):
        return str(value)
    if type(value).__module__ == "numpy":
        plain = value.tolist() if hasattr(value, "tolist") else value
        if type(plain) is not type(value):
            return convert(plain, depth + 1)
        return str(value)
    if isinstance(value, int):
        return convert(int(value), depth + 1)
    if isinstance(value, float):
        return convert(float(value), depth + 1)
    return str(value)


def _large(value):
    # JSON readers take such numbers for doubles; one beyond those is told by its digits.
    try:
        return float(value)
    except OverflowError:
        return hex(value)


def _text(key):
    return key if type(key) is str else str(key)
