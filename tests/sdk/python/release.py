"""What the two SDK releases under test do differently; everything else is asserted for both."""

from importlib.metadata import version

import httpcore
import pytest
from e2b import TimeoutException

IS_NEWEST = tuple(map(int, version("e2b").split(".")[:2])) >= (2, 63)
newest_only = pytest.mark.skipif(not IS_NEWEST, reason=f"e2b {version('e2b')} cannot do this")

# The older synchronous client waits for each piece of a stream just as long as the limit that it sends along, and lets
# that error of its own out as it is: a race within the client, which it loses when the agent's word is late by a moment.
TIME_LIMIT_ERRORS = TimeoutException if IS_NEWEST else (TimeoutException, httpcore.ReadTimeout)
