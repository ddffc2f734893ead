"""Let the tests of the information core import the NumPy twins in tests/reference.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
