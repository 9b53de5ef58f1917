"""Matrices of which the suite takes pairs: every row, every column, and not every row with every
column. For where the two meet in code that has the whole product elsewhere, which each use names.
``TESTS_WHOLE=1`` takes the whole product.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

WHOLE = os.environ.get("TESTS_WHOLE", "") not in ("", "0")


def pairs(rows: Sequence[tuple[Any, ...]], columns: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Each row with a column behind it: the next row has the next one, and after each round of the
    columns one is left out, so that rows which alternate meet all of them."""
    if WHOLE:
        return [(*row, column) for row in rows for column in columns]
    count = len(columns)
    return [(*row, columns[(n + n // count) % count]) for n, row in enumerate(rows)]
