"""What the agent needs inside a Python kernel.

`enter` and `leave` bracket a cell that has environment variables of its own. They are called with data, never with
code built from data, and the user's code is run exactly as it was sent.
"""

import base64
import json
import os

# Name to value before the cell; None where there was none. Filled before each change, so that an interrupt at any
# point leaves a record that `leave` can finish with.
_before = {}


def enter(payload):
    """Sets variables from a JSON object of strings in base64, after undoing those of an earlier cell."""
    leave()
    for name, value in json.loads(base64.b64decode(payload)).items():
        previous = os.environ.get(name)
        _before[name] = previous
        try:
            os.environ[name] = value
        except (ValueError, OSError):
            # Names that no environment can hold: empty, or with "=" or a NUL inside.
            del _before[name]


def leave():
    """Puts back what `enter` has changed, whatever the cell did to it in between."""
    while _before:
        name, previous = next(iter(_before.items()))
        if previous is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = previous
        _before.pop(name, None)


def start(shell):
    """Prepares a fresh kernel. Nothing heavy is imported before the user does."""
    from _envd_kernel import formatters, images

    formatters.install(shell)
    images.install()
