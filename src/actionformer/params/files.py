"""Params files: found, merged key by key, validated strictly, and written.

    params/workflow.yaml             the rows of all tables, and what a call of Snakemake can change
    params/experiments/ROW.yaml      what a row changes against the defaults
    params/datasets/DATASET.yaml     the publisher's files, feature sets and subsets
    params/editions/EDITION.yaml     what the edition overrides in both
    params/extractors/NAME.yaml      how frames of a video become its features

An unknown key is an error that names the file. Params that a run has stored are read here, too,
also those that an earlier version has written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import ValidationError

from actionformer.errors import InputError
from actionformer.files.md5 import digest
from actionformer.files.reading import read_text
from actionformer.params.dataset import YAML, Dataset, Params, check_name
from actionformer.params.experiment import OWN, OWN_EDITION, DataParams, Edition, Experiment
from actionformer.params.extractor import Extractor

CHECKOUT = Path(__file__).resolve().parents[3]
# false where the package was installed from a wheel
IS_CHECKOUT = (CHECKOUT / "Snakefile").exists()
PACKAGED_PARAMS = Path(__file__).resolve().parents[1] / "published"
PARAMS = CHECKOUT / "params" if IS_CHECKOUT else PACKAGED_PARAMS

try:
    # libyaml's: every command reads params, and the one in Python takes ten times as long
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML was built without it
    from yaml import SafeLoader  # type: ignore[assignment]

# levels of a params file
DEEPEST = 100
# where weights of extractors lie
EXTRACTORS = Path("data/extractors")

AnyParams = TypeVar("AnyParams", bound=Params)

# ----------------------------------------------------------------------------------------- reading


class _PlainYaml(SafeLoader):
    """YAML without what surprises: a key that stands twice, of which PyYAML takes the last; a time
    of day that is a number to it (1:30 is 90), an octal number, a date.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            where = f"line {key_node.start_mark.line + 1}"
            if isinstance(key, bool) or not isinstance(key, str | int | float):
                raise yaml.YAMLError(f"{where}: a key that is no text")
            if key in seen:
                raise yaml.YAMLError(f"{where}: the key {key} stands there a second time")
            seen.add(key)
        return super().construct_mapping(node, deep)


# what a value without quotes may be beside text: kind -> (pattern, what it begins with)
_KINDS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    "float": (
        r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)",
        list("-+.0123456789"),
    ),
}


def _use_plain_kinds() -> None:
    """Let the loader know these kinds alone: `yes` and `no` are texts, too."""
    _PlainYaml.yaml_implicit_resolvers = {}
    for kind, (pattern, first) in _KINDS.items():
        regex = re.compile(f"^(?:{pattern})$")
        _PlainYaml.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", regex, first)


_use_plain_kinds()


def parsed_yaml(text: str, where: str) -> Any:
    """What a YAML text says, or one line that says why nothing."""
    try:
        _refuse_deep_nesting(text)
        return yaml.load(text, _PlainYaml)
    except RecursionError:
        reason = "a value that holds itself"
    # ValueError: also of a number of 5,000 digits
    except (yaml.YAMLError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
    raise InputError(f"{where}: not readable as YAML ({reason})")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, or one line that says why not."""
    content = parsed_yaml(read_text(path), str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        found = type(content).__name__
        raise InputError(f"{path}: expected a mapping of keys, found {found}")
    return content


def _refuse_deep_nesting(text: str) -> None:
    """Deeper than any params file is: libyaml would run out of stack, and the process die.

    Aliases, too: a value that holds itself would have no end.
    """
    depth = 0
    for event in yaml.parse(text, SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*), which params do without")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise yaml.YAMLError(f"nested more than {DEEPEST} deep")


def _refuse_odd_name(name: str, what: str) -> None:
    """Refuse a name that a folder is called after and that none should have."""
    try:
        check_name(name)
    except ValueError as error:
        raise InputError(f"{what} {error}") from None


def merged(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `override` on top.

    Mappings are merged, everything else is replaced.
    """
    result = dict(base)
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


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


Kind = Literal["experiments", "datasets", "editions", "extractors"]


def names(kind: Kind, params: Path = PARAMS) -> list[str]:
    """Names of all experiments, data sets, editions or extractors of a params folder."""
    return sorted(path.stem for path in (params / kind).glob("*.yaml"))


def published_rows(params: Path = PARAMS) -> list[str]:
    """The rows of all tables, in the order of the published page."""
    return list(read_yaml(params / "workflow.yaml")["rows"])


def load_edition(name: str, params: Path = PARAMS) -> Edition:
    """An edition by name; raises `InputError` if there is none of that name."""
    if name == OWN:
        return OWN_EDITION
    _refuse_odd_name(name, "edition")
    path = params / "editions" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(names("editions", params))
        raise InputError(f"{path}: no edition '{name}'; there are {known}")
    edition = validated(Edition, read_yaml(path), str(path))
    for kind, given in (("experiments", edition.experiments), ("datasets", edition.datasets)):
        for key in given:
            if not (params / kind / f"{key}.yaml").exists():
                raise InputError(f"{path}: {kind}.{key}: there is no such file in {params / kind}")
    return edition


def load_dataset(name: str, edition: str = OWN, params: Path = PARAMS) -> Dataset:
    """A data set by name, as the edition sees it, or by the path of a YAML file, as written."""
    if name.endswith(YAML):
        path = Path(name)
        _refuse_odd_name(path.stem, f"{path}: file")
        content = read_yaml(path)
        content["root"] = str((path.parent / str(content.get("root") or ".")).resolve())
        dataset = validated(Dataset, content, str(path))
        return _with_extractors_beside(dataset, path.parent)
    path = params / "datasets" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(names("datasets", params))
        raise InputError(f"{path}: no data set '{name}'; there are {known}")
    content = read_yaml(path)
    origin = str(path)
    if edition != OWN:
        override = load_edition(edition, params).datasets.get(name)
        if override:
            content = merged(content, override)
            origin = f"{path} with edition '{edition}'"
    return validated(Dataset, content, origin)


def _with_extractors_beside(dataset: Dataset, folder: Path) -> Dataset:
    """A data set whose extractors that are YAML files lie beside its own file."""
    features = {}
    for name, one in dataset.features.items():
        if one.extractor is not None and one.extractor.endswith(YAML):
            one = one.model_copy(update={"extractor": (folder / one.extractor).as_posix()})
        features[name] = one
    return dataset.model_copy(update={"features": features})


def load_extractor(name: str, params: Path = PARAMS) -> tuple[str, Extractor, Path]:
    """An extractor by name, or by the path of a YAML file: its name, itself, and its weights.

    The weights of the first lie under data/extractors/, those of the second beside its file.
    """
    path, root = params / "extractors" / f"{name}.yaml", EXTRACTORS
    if name.endswith(YAML):
        path, root = Path(name), Path(name).parent
    elif not path.exists():
        known = ", ".join(names("extractors", params))
        own = "or one of your own by the path of its YAML file"
        raise InputError(f"{path}: no extractor '{name}'; there are {known}, {own} (--extractor)")
    _refuse_odd_name(path.stem, f"{path}: file")
    extractor = validated(Extractor, read_yaml(path), str(path))
    return path.stem, extractor, root / extractor.weights


@dataclass(frozen=True)
class _Written:
    """An experiment as its files say it, before its data set is known."""

    name: str
    edition: str
    chosen: Edition
    content: dict[str, Any]
    path: Path
    # the files, in words
    origin: str


# the parts of an experiment that can be set on the command line
SETTABLE = ("data", "model", "training", "inference", "evaluation")
# longer differences are told by a digest in the name of a folder
LONGEST_DIFFERENCE = 60


def load_experiment(
    name: str,
    edition: str = "paper",
    *,
    dataset: str | None = None,
    params: Path = PARAMS,
    overrides: Sequence[str] = (),
) -> Experiment:
    """One row with every value resolved.

    A row whose values differ from those of the project's own params, because of `overrides` or of
    another params folder, says so in `departs` and is not comparable.

    Args:
        name: a row of `params/experiments`, or the path of a YAML file, which is taken as written.
        edition: 'demo', 'paper', ...; without effect on a YAML file given by path.
        dataset: name or path of a data set to use instead of the one that the experiment names.
        params: the params folder.
        overrides: values on top, 'training.schedule_epochs=4'; the row then has a name of its own
            and, beside the row's, a folder of its own.

    Raises:
        InputError: unknown row, data set or key; a value of the wrong type; sizes that don't fit
            together.
    """
    experiment = _resolved(name, edition, dataset, params, overrides)
    if overrides:
        reference: Experiment | None = _resolved(name, edition, dataset, params, ())
        if _is_published(name, edition, params):
            reference = _resolved(name, edition, None, PARAMS, ())
    elif _is_published(name, edition, params):
        reference = _resolved(name, edition, None, PARAMS, ())
    else:
        reference = None
    departs = [] if reference is None else _departures(reference, experiment)
    if not departs:
        return experiment
    changed: dict[str, Any] = {"departs": tuple(departs), "comparable": False}
    if overrides:
        # it was published with the row, in whose folder it is evaluated
        changed["released"] = None
    return experiment.model_copy(update=changed)


def _is_published(name: str, edition: str, params: Path) -> bool:
    """Is there a row of this name in the project's own params, which these could differ from?"""
    if name.endswith(YAML) or edition == OWN:
        return False
    there = (PARAMS / "experiments" / f"{name}.yaml").exists()
    return there and (PARAMS / "editions" / f"{edition}.yaml").exists()


# of a data set, what a number depends on
COUNTED = (
    "excluded_videos",
    "drop_segments_past_end",
    "blocked",
    "class_lists",
    "train_subset",
    "eval_subset",
    "num_classes",
)


def _departures(reference: Experiment, experiment: Experiment) -> list[str]:
    """What differs between two resolved experiments, in what a number depends on."""
    return differences(_numbers_depend_on(reference), _numbers_depend_on(experiment))


def _numbers_depend_on(experiment: Experiment) -> dict[str, Any]:
    # how many threads, how steps reach a GPU, and which epochs are reported, change no meaning
    unread = {"training": {"threads", "cuda_graphs", "first_eval_epoch"}}
    values = experiment.model_dump(mode="json", include=set(SETTABLE), exclude=unread)
    values["dataset"] = experiment.dataset.model_dump(mode="json", include=set(COUNTED))
    unread_of_features = {"file", "dataset", "extractor", "videos"}
    values["features"] = experiment.features.model_dump(mode="json", exclude=unread_of_features)
    return values


def differences(then: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two mappings of values, such as 'training.lr: 0.0001 -> 0.001'."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        found = []
        for part in dict.fromkeys([*then, *now]):
            inner = f"{name}.{part}" if name else str(part)
            found += differences(then.get(part), now.get(part), inner)
        return found
    return [] if then == now else [f"{name}: {_short(then)} -> {_short(now)}"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _overridden(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """An experiment's content with values of the command line on top."""
    for text in overrides:
        key, equals, value = text.partition("=")
        parts = key.strip().split(".")
        if not equals or len(parts) < 2 or parts[0] not in SETTABLE:
            known = ", ".join(f"{part}.*" for part in SETTABLE)
            raise InputError(f"--set {text}: expected KEY=VALUE, KEY one of {known}")
        setting: Any = parsed_yaml(value, f"--set {text}")
        for part in reversed(parts):
            setting = {part: setting}
        content = merged(content, setting)
    return content


def _difference_name(overrides: Sequence[str]) -> str:
    """What a folder's name says of overrides."""
    text = "".join(f"-{override}" for override in sorted(overrides))
    # what a path cannot hold as it is would make two differences one
    if len(text) <= LONGEST_DIFFERENCE and re.fullmatch(r"[\w.=+-]*", text):
        return text
    return f"-{digest(sorted(overrides))[:8]}"


def verbs_of(experiment: Experiment) -> str:
    """How commands name the row of verbs that a row of nouns is fused with."""
    return str(experiment.actions_with).removesuffix(_difference_name(experiment.overrides))


def _resolved(
    name: str, edition: str, dataset: str | None, params: Path, overrides: Sequence[str]
) -> Experiment:
    """An experiment from its files."""
    written = _written(name, edition, params, overrides)
    content, path = written.content, written.path
    data = content.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("dataset"), str):
        raise InputError(f"{path}: data.dataset must name a data set")
    wanted = dataset or data["dataset"]
    if dataset is None and wanted.endswith(YAML):
        wanted = str(path.parent / wanted)
    try:
        facts = load_dataset(wanted, written.edition, params)
    except InputError as error:
        raise InputError(f"{path}: data.dataset: {error}") from None
    _check_owner(data.get("features"), facts, written.edition, params)

    # by its name alone: where the file lies must not change what a run was made with
    named = data | {"dataset": Path(wanted).stem}
    data_params = validated(DataParams, named, f"{written.origin}, data")
    if data_params.features not in facts.features:
        wrong = f"data.features '{data_params.features}' is not a feature set of {wanted}"
        raise InputError(f"{path}: {wrong}: {', '.join(facts.features)}")
    where = f"{path}, data set {wanted}"
    # what the data set says of the model, so that a row need not repeat it
    defaults = {
        "in_channels": _in_channels(data_params, facts, where),
        "num_classes": _num_classes(data_params, facts, where),
    }
    # what was resolved comes last: an experiment's file must not contradict its data set
    resolved = content | {
        "name": written.name,
        "called": name,
        "overrides": tuple(overrides),
        "edition": written.edition,
        "comparable": written.chosen.comparable,
        "table": content.get("table", written.name),
        "row": content.get("row", written.name),
        "dataset": facts.model_dump(),
        "dataset_file": wanted if wanted.endswith(YAML) else None,
        "data": data_params.model_dump(),
        "model": defaults | (content.get("model") or {}),
    }
    experiment = validated(Experiment, resolved, f"{written.origin}, data set {wanted}")
    if experiment.inference.use_classifier and facts.classifier is None:
        raise InputError(
            f"{path}: inference.use_classifier needs a classifier in data set {wanted}"
        )
    channels = experiment.model.in_channels
    if channels != defaults["in_channels"]:
        wrong = f"model.in_channels is {channels}, the features have {defaults['in_channels']}"
        raise InputError(f"{path}: {wrong}")
    return experiment


def _written(name: str, edition: str, params: Path, overrides: Sequence[str]) -> _Written:
    """The experiment's own file, with what the edition and the command line override in it."""
    difference = _difference_name(overrides)
    settings = f" with {', '.join(overrides)}" if overrides else ""
    if name.endswith(YAML):
        path = Path(name)
        _refuse_odd_name(path.stem, f"{path}: file")
        content = _overridden(read_yaml(path), overrides)
        own = path.stem + difference
        return _Written(own, OWN, OWN_EDITION, content, path, f"{path}{settings}")
    path = params / "experiments" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(names("experiments", params))
        raise InputError(f"{path}: no experiment '{name}'; there are {known}")
    chosen = load_edition(edition, params)
    # what the edition says of all rows, then what it says of this one
    content = merged(read_yaml(path), chosen.all_experiments)
    content = _overridden(merged(content, chosen.experiments.get(name, {})), overrides)
    if content.get("actions_with"):
        content = content | {"actions_with": content["actions_with"] + difference}
    origin = f"{path} with edition '{edition}'{settings}"
    return _Written(name + difference, edition, chosen, content, path, origin)


def _check_owner(name: Any, dataset: Dataset, edition: str, params: Path) -> None:
    """Features that another data set owns must be described there in the same way."""
    features = dataset.features.get(str(name))
    if features is None or features.dataset is None:
        return
    owner = load_dataset(features.dataset, edition, params).features.get(str(name))
    if owner is None or owner.model_copy(update={"dataset": features.dataset}) != features:
        both = f"{dataset.name} and {features.dataset}"
        raise InputError(f"{params / 'datasets'}: features '{name}' differ between {both}")


def _in_channels(data: DataParams, dataset: Dataset, where: str) -> int:
    dim = dataset.features[data.features].dim
    if data.channels_used is None:
        return dim
    start, stop = data.channels_used
    if not 0 <= start < stop <= dim:
        wrong = f"data.channels_used {start}..{stop} does not lie within the {dim} channels"
        raise InputError(f"{where}: {wrong}")
    return stop - start


def _num_classes(data: DataParams, dataset: Dataset, where: str) -> int:
    if data.class_agnostic:
        return 1
    if isinstance(dataset.num_classes, int):
        return dataset.num_classes
    if data.label_field not in dataset.num_classes:
        known = ", ".join(dataset.num_classes)
        raise InputError(f"{where}: data.label_field '{data.label_field}' is none of {known}")
    return dataset.num_classes[data.label_field]


def seeds_of(experiment: Experiment, params: Path = PARAMS) -> tuple[int, ...]:
    """The seeds of an experiment's edition."""
    return load_edition(experiment.edition, params).seeds


def why_not_comparable(experiment: Experiment, params: Path = PARAMS) -> str:
    """The sentence that tables of an edition print; empty where numbers are comparable."""
    return load_edition(experiment.edition, params).why_not_comparable


# ------------------------------------------------------------------------ params that a run stored

# kind of params -> name in an earlier version -> today's; the only place that knows old names
RENAMED: dict[type[Params], dict[str, str]] = {
    DataParams: {"protocol": "loading"},
    Dataset: {"protocol": "remark"},
}

# what `data.loading` was, in effect, before there was such a param
BEFORE_LOADING = "published"


def renamed(kind: type[Params], values: Mapping[str, Any]) -> dict[str, Any]:
    """Params of one kind as an earlier version wrote them, under today's names."""
    today = RENAMED.get(kind, {})
    return {today.get(key, key): value for key, value in values.items()}


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


# ----------------------------------------------------------------------------------------- writing


def as_yaml(experiment: Experiment) -> str:
    """A row with every value resolved, as YAML."""
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, width=120)


def schemas() -> dict[str, str]:
    """JSON Schema of every kind of params file, by file name."""
    row = Experiment.model_json_schema()
    resolved_alone = ("name", "edition", "comparable", "dataset", "dataset_file")
    for resolved in (*resolved_alone, "called", "overrides", "departs"):
        row["properties"].pop(resolved)
    row["required"] = ["data"]
    row["$defs"]["ModelParams"]["required"] = []  # the data set gives channels and classes
    kinds = {
        "dataset": Dataset.model_json_schema(),
        "experiment": row,
        "edition": Edition.model_json_schema(),
    }
    return {
        f"{name}.schema.json": json.dumps(kind, indent=1) + "\n" for name, kind in kinds.items()
    }
