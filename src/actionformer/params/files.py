"""Params files: found, merged key by key, and written.

    params/workflow.yaml             the rows of all tables, and what a call of Snakemake can change
    params/experiments/ROW.yaml      what a row changes against the defaults
    params/datasets/DATASET.yaml     the publisher's files, feature sets and subsets
    params/editions/EDITION.yaml     what the edition overrides in both
    params/extractors/NAME.yaml      how frames of a video become its features

How they are read is `params.yaml_files`, what is said of a wrong key `params.validation`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from actionformer.errors import InputError
from actionformer.files.md5 import digest
from actionformer.params.dataset import YAML, Dataset, check_name
from actionformer.params.experiment import OWN, OWN_EDITION, DataParams, Edition, Experiment
from actionformer.params.extractor import Extractor
from actionformer.params.validation import validated
from actionformer.params.yaml_files import parsed_yaml, read_yaml

CHECKOUT = Path(__file__).resolve().parents[3]
# false where the package was installed from a wheel
IS_CHECKOUT = (CHECKOUT / "Snakefile").exists()
PACKAGED_PARAMS = Path(__file__).resolve().parents[1] / "published"
PARAMS = CHECKOUT / "params" if IS_CHECKOUT else PACKAGED_PARAMS
# where weights of extractors lie
EXTRACTORS = Path("data/extractors")


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
