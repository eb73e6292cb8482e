"""metrics.json of a run, read and checked: what tables, figures and MLflow tell of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actionformer.errors import InputError
from actionformer.files import items_of, number, read_object


def read_metrics(path: Path) -> dict[str, Any]:
    """What an evaluation has written: numbers that are numbers, under their names.

    Of a row whose published checkpoint is another row's it holds none, but why (`none`).

    Raises:
        InputError: no such file, a missing key, or something else in the place of a number.
    """
    metrics = read_object(path, "lineage")
    if "none" in metrics:
        return metrics
    try:
        for value in metrics["percent"].values():
            number(value)
        for count in (metrics["videos"], metrics["instances"]):
            _count(count)
        for counted in metrics.get("classes", {}).values():
            _count(counted["instances"])
            for value in items_of(counted["ap"]):
                number(value)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        wrong = f"missing or malformed key ({error})"
        raise InputError(f"{path}: {wrong}; evaluate again, which writes it anew") from None
    return metrics


def _count(value: Any) -> None:
    if type(value) is not int:
        raise ValueError(f"expected a whole number, found {value!r}")
