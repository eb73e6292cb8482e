"""A mapping as params of a kind: every key that is wrong is named, also under an earlier name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from actionformer.errors import InputError
from actionformer.params.dataset import Dataset, Params
from actionformer.params.experiment import DataParams

AnyParams = TypeVar("AnyParams", bound=Params)

# kind of params -> name in an earlier version -> today's; the only place that knows old names
RENAMED: dict[type[Params], dict[str, str]] = {
    DataParams: {"protocol": "loading"},
    Dataset: {"protocol": "remark"},
}


def validated(kind: type[AnyParams], content: dict[str, Any], origin: str) -> AnyParams:
    """Params of a kind, or one line that names every key that is wrong."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"]) or "(whole file)"
            reason = item["msg"]
            if item["type"] == "extra_forbidden":
                reason = "unknown key"
                today = RENAMED.get(kind, {}).get(key)
                known = _known_keys(kind, item["loc"])
                if today is not None:
                    reason += f" (called {today} now)"
                elif known:
                    reason += f" (there are {', '.join(known)})"
            problems.append(f"{key}: {reason}")
        raise InputError(f"{origin}: {'; '.join(problems)}") from None


def _known_keys(kind: type[Params], place: Sequence[int | str]) -> list[str]:
    """What could stand where an unknown key does; nothing in the midst of a list or mapping."""
    for part in place[:-1]:
        field = kind.model_fields.get(str(part))
        inner = None if field is None else field.annotation
        if not isinstance(inner, type) or not issubclass(inner, Params):
            return []
        kind = inner
    return sorted(kind.model_fields)


def renamed(kind: type[Params], values: Mapping[str, Any]) -> dict[str, Any]:
    """Params of one kind as an earlier version wrote them, under today's names."""
    today = RENAMED.get(kind, {})
    return {today.get(key, key): value for key, value in values.items()}
