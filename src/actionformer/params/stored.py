"""Params that a run has stored, also those that an earlier version has written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from actionformer.errors import InputError
from actionformer.params.dataset import Params
from actionformer.params.experiment import Experiment
from actionformer.params.validation import renamed, validated

# what `data.loading` was, in effect, before there was such a param
BEFORE_LOADING = "published"


def migrated(kind: type[Params], content: Mapping[str, Any]) -> dict[str, Any]:
    """Resolved params as an earlier version wrote them, under today's names."""
    result = renamed(kind, content)
    if kind is not Experiment:
        return result
    for part, field in Experiment.model_fields.items():
        schema = field.annotation
        if not isinstance(schema, type) or not issubclass(schema, Params):
            continue
        if isinstance(result.get(part), Mapping):
            result[part] = renamed(schema, result[part])
    if isinstance(result.get("data"), dict) and "loading" not in result["data"]:
        # its windows alone had a param then, everything else was as published
        result["data"].pop("window_protocol", None)
        result["data"]["loading"] = BEFORE_LOADING
    return result


def stored_experiment(content: Any, origin: str) -> Experiment:
    """An experiment from a file of ours, written by this or an earlier version.

    A param that did not exist then counts as its default, a renamed one by its new name; what is a
    param no longer is left out.

    Raises:
        InputError: what today's schema cannot read at all.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{origin}: expected params, found {type(content).__name__}")
    current = migrated(Experiment, content)
    try:
        return Experiment.model_validate(current)
    except ValidationError as error:
        for item in error.errors():
            if item["type"] == "extra_forbidden":
                _remove(current, item["loc"])
    return validated(Experiment, current, origin)


def _remove(content: Any, location: Sequence[Any]) -> None:
    """Remove a key that lies deep in mappings and lists, in a copy of each of those above it."""
    for part in location[:-1]:
        inner = content[part]
        content[part] = dict(inner) if isinstance(inner, Mapping) else list(inner)
        content = content[part]
    del content[location[-1]]


def evaluated_experiment(metrics: Mapping[str, Any], origin: str) -> Experiment:
    """The experiment of a metrics.json; earlier versions kept it under 'experiment'."""
    made = metrics.get("made_with")
    return stored_experiment(made["params"] if made else metrics.get("experiment"), origin)
