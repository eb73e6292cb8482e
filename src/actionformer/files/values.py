"""Values of foreign files: a number, a text, a list that is one, or what was found instead."""

from __future__ import annotations

import json
import math
import re
from typing import Any

# a number as text: float() would take `1_0` and the digits of every script
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def number(value: Any) -> float:
    """A finite number from a JSON number or from the text of one.

    Raises:
        ValueError: anything else, also a truth value, which Python takes for 0 or 1.
    """
    if type(value) is float and math.isfinite(value):
        return value  # nearly all are
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, found {_as_said(value)}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f"expected a finite number, found {_as_said(value)}")
    return found


def as_given(value: Any) -> int | float:
    """`number`, but a whole one stays whole: what is written again keeps its digits."""
    found = number(value)
    return value if isinstance(value, int | float) else found


def text_of(value: Any, *, empty: bool = False) -> str:
    """A name or label that is a text, and not empty unless it may be.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, str) or not (empty or value.strip()):
        raise ValueError(f"expected a text, found {_as_said(value)}")
    return value


def items_of(value: Any) -> list[Any]:
    """A list that is one.

    Raises:
        ValueError: anything else, also a text, of which Python would give the letters.
    """
    if not isinstance(value, list):
        raise ValueError(f"expected a list, found {_as_said(value)}")
    return value


def _as_said(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
