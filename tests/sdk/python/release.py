"""What the two SDK releases under test do differently; everything else is asserted for both."""

from importlib.metadata import version

import pytest

IS_NEWEST = tuple(map(int, version("e2b").split(".")[:2])) >= (2, 63)
newest_only = pytest.mark.skipif(not IS_NEWEST, reason=f"e2b {version('e2b')} cannot do this")
