"""What makes a stage run again: one identity per product, for Snakemake, `status` and MLflow alike.

A product is a function of three things and of nothing else:

    the resolved params that its stage reads      `READS`
    the content of its inputs                     md5s, under "inputs" in its record
    what the code computes from them              `ARITHMETIC`

Every product stores what it was made with, its record: {"stage", "key", "arithmetic", "inputs",
"values", "params"}, of which "values" are those that its stage read and "params" all of them. As
long as the stored values, read by today's schema, equal today's, the product keeps the key that it
was made with. So a new param with a default changes nothing, and a changed default outdates every
product that was made with the old one.

A record lies under "made_with" in a product's manifest or in the product itself; `layout` says
where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from actionformer.errors import InputError
from actionformer.files.md5 import digest
from actionformer.files.reading import read_object
from actionformer.params.dataset import Classifier, Dataset, FeatureSet, Params
from actionformer.params.experiment import (
    DataParams,
    EvaluationParams,
    Experiment,
    InferenceParams,
    ModelParams,
    Released,
    TrainingParams,
)
from actionformer.params.files import differences
from actionformer.params.validation import renamed

Values = dict[str, Any]
Record = dict[str, Any]

# Raise a stage's number where its code gives other results for good, and say why beside it. Results
# of a lower number are then outdated: `status` and a dry run say so, and the next call makes them
# anew. Sums in another order, and another draw from the same distribution, are no such results:
# a GPU instead of a CPU gives both.
ARITHMETIC = {
    "convert": 1,
    "pack": 1,
    "audit": 1,
    "train": 1,
    "detect": 1,
    "evaluate": 1,
    "released": 1,
    "actions": 1,
}

# The same for what people look at: raised where a page shows something else.
PAGES = {
    "bootstrap": 1,
    "draw": 3,  # counts of bins beside their values, thresholds by name
    "card": 5,  # what to cite
    "tabulate": 5,  # licence and citation of the data
    "report": 5,  # licence and citation of the data
}

# ------------------------------------------------------------------------------ what a stage reads


def _conversion(dataset: Dataset) -> Values:
    parts = {
        "format",
        "annotations",
        "blocked",
        "class_lists",
        "excluded_videos",
        "drop_segments_past_end",
    }
    return dataset.model_dump(mode="json", include=parts)


def _packing(features: FeatureSet) -> Values:
    parts = {"file", "dim", "prefix", "suffix", "transposed", "arrays"}
    return features.model_dump(mode="json", include=parts)


def _audit(experiment: Experiment) -> Values:
    parts = {"train_subset", "eval_subset", "num_classes", "published", "blocked"}
    values = experiment.dataset.model_dump(mode="json", include=parts)
    values |= experiment.model_dump(mode="json", include={"comparable"})
    values["label_field"] = experiment.data.label_field
    values["videos"] = experiment.data.videos
    values["features"] = experiment.features.model_dump(
        mode="json", include={"stride_frames", "fps"}
    )
    return values


def _training(experiment: Experiment) -> Values:
    # windows and padding are those of the evaluation; the first evaluated epoch is only reported;
    # how steps reach a GPU is as little part of a run as which device it is
    unread = {
        "data": {"dataset", "features", "window_size", "window_overlap_ratio", "test_pad_length"},
        "training": {"first_eval_epoch", "cuda_graphs"},
    }
    values = experiment.model_dump(
        mode="json", include={"data", "model", "training"}, exclude=unread
    )
    values["features"] = _grid(experiment)
    values["train_subset"] = experiment.dataset.train_subset
    return values


def _detection(experiment: Experiment) -> Values:
    # what is only done to ground truth and crops in training
    unread = {
        "dataset",
        "features",
        "truncate_to_frames",
        "drop_short_gt_in_training",
        "drop_outside_gt_in_training",
        "random_trunc",
    }
    values = experiment.model_dump(
        mode="json", include={"data", "inference"}, exclude={"data": unread}
    )
    values["features"] = _grid(experiment)
    values["eval_subset"] = experiment.dataset.eval_subset
    classifier = experiment.dataset.classifier
    if experiment.inference.use_classifier and classifier is not None:
        values["classifier"] = classifier.model_dump(mode="json", include={"kind", "top_k"})
    return values


def _evaluation(experiment: Experiment) -> Values:
    values = experiment.model_dump(mode="json", include={"evaluation"})
    values["eval_subset"] = experiment.dataset.eval_subset
    values["label_field"] = experiment.data.label_field
    values["videos"] = experiment.data.videos
    values["bin_edges"] = experiment.dataset.model_dump(mode="json")["bin_edges"]
    return values


def _released(experiment: Experiment) -> Values:
    values = experiment.model_dump(mode="json", include={"model", "released"})
    return values | _detection(experiment) | _evaluation(experiment)


def _actions(experiment: Experiment) -> Values:
    values = experiment.model_dump(mode="json", include={"actions_with"})
    return values | _detection(experiment) | _evaluation(experiment)


def _grid(experiment: Experiment) -> Values:
    """Where the steps of the features lie in time."""
    parts = {"dim", "stride_frames", "offset_frames", "fps"}
    return experiment.features.model_dump(mode="json", include=parts)


# stage -> the params that it is given, and what it reads of them
READS: dict[str, tuple[type[Any], Callable[[Any], Values]]] = {
    "convert": (Dataset, _conversion),
    "pack": (FeatureSet, _packing),
    "audit": (Experiment, _audit),
    "train": (Experiment, _training),
    "detect": (Experiment, _detection),
    "evaluate": (Experiment, _evaluation),
    "released": (Experiment, _released),
    "actions": (Experiment, _actions),
}


# part of the values of a stage that is given an experiment -> its schema
PARTS: dict[str, type[Params]] = {
    "data": DataParams,
    "model": ModelParams,
    "training": TrainingParams,
    "inference": InferenceParams,
    "evaluation": EvaluationParams,
    "released": Released,
    "features": FeatureSet,
    "classifier": Classifier,
}


def shown(experiment: Experiment) -> Values:
    """What figures, and all other pages, print of a row, beside its runs."""
    return {
        "name": experiment.name,
        "table": experiment.table,
        "row": experiment.row,
        "comparable": experiment.comparable,
        "published": experiment.expect.published,
        "tiou": list(experiment.evaluation.tiou),
        "threads": experiment.training.threads,
        "released": experiment.released is not None,
        "actions_with": experiment.actions_with,
        "dataset": experiment.dataset.name,
        "protocol": experiment.dataset.protocol,
        "loading": experiment.data.loading_text,
        "remark": experiment.dataset.remark,
        "departs": list(experiment.departs),
    }


def in_tables(experiment: Experiment) -> Values:
    """What tables and reports print of a row, beside its runs."""
    dataset = experiment.dataset
    return shown(experiment) | {
        "homepage": dataset.homepage,
        "licence": dataset.licence,
        "citation": dataset.citation,
    }


def on_card(experiment: Experiment) -> Values:
    """What a model card prints of a row, beside its runs."""
    dataset, features, training = experiment.dataset, experiment.features, experiment.training
    return in_tables(experiment) | {
        "subsets": [dataset.train_subset, dataset.eval_subset],
        "features": [experiment.data.features, features.dim, features.fps, features.stride_frames],
        "training": [training.epochs, training.batch_size, training.lr],
        "loader": experiment.data.loader,
    }


AnySubject = Dataset | FeatureSet | Experiment


def values(stage: str, subject: AnySubject) -> Values:
    """The resolved params that a stage reads."""
    return READS[stage][1](subject)


# ----------------------------------------------------------------------------------------- records


def key(stage: str, subject: AnySubject, made: Mapping[str, Any] | None) -> str:
    """The key of a stage's product under today's params and code.

    Args:
        made: the record of the product that lies there, or None. Its key goes on as long as nothing
            that the stage reads has changed since.
    """
    if made is not None and not changes(stage, subject, made):
        return str(made["key"])
    return digest([values(stage, subject), ARITHMETIC[stage]])


def record(
    stage: str,
    subject: AnySubject,
    inputs: Mapping[str, Any],
    before: Mapping[str, Any] | None = None,
) -> Record:
    """What a product is made with, to be stored beside it.

    Args:
        inputs: name -> md5 of what it is made from (a seed is an input, too).
        before: the record of the product that it replaces.
    """
    return {
        "stage": stage,
        "key": key(stage, subject, before),
        "arithmetic": ARITHMETIC[stage],
        "inputs": dict(inputs),
        "values": values(stage, subject),
        "params": subject.model_dump(mode="json"),
    }


def stored(path: Path) -> Record | None:
    """The record in a file; None: no such file, not readable, or older than records."""
    try:
        content = read_object(path)
    except InputError:
        return None
    made = content.get("made_with") if isinstance(content, Mapping) else None
    return made if made and isinstance(made, dict) else None


def plain_record(stage: str, printed: Any) -> Record:
    """The record of a page: what it prints is listed by name, so that a new param is no change."""
    return {"stage": stage, "key": plain_key(stage, printed), "values": printed}


def plain_key(stage: str, printed: Any) -> str:
    """The key of a page."""
    return digest([stage, PAGES[stage], printed])


def short_name(made: Mapping[str, Any]) -> str:
    """A short name of everything that a product is a function of."""
    return digest([made["stage"], made["key"], made["inputs"]])


def same(stage: str, subject: AnySubject, then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Are two records of the same params, inputs and arithmetic, whatever names the params had?"""
    return not changes(stage, subject, then) and then["inputs"] == now["inputs"]


def is_record(made: Any, stage: str) -> bool:
    """Is this a record of this stage?"""
    needed = {"stage", "key", "arithmetic", "inputs", "values"}
    return isinstance(made, Mapping) and needed <= set(made) and made["stage"] == stage


def changes(stage: str, subject: AnySubject, made: Mapping[str, Any]) -> list[str]:
    """What differs from today's params and code, such as 'training.lr: 0.0001 -> 0.001'."""
    if not is_record(made, stage):
        return ["what it was made with is not known"]
    now = values(stage, subject)
    found = differences(_read_today(stage, made["values"], now), now)
    if made["arithmetic"] != ARITHMETIC[stage]:
        found.append(f"the arithmetic of {stage}: {made['arithmetic']} -> {ARITHMETIC[stage]}")
    return found


def _read_today(stage: str, stored: Values, now: Values) -> Values:
    """Stored values under today's schema: renamed, with defaults for what did not exist then."""
    kind = READS[stage][0]
    if kind is not Experiment:
        return _filled(kind, renamed(kind, stored), now)
    result = dict(stored)
    for part, schema in PARTS.items():
        if isinstance(stored.get(part), Mapping) and isinstance(now.get(part), Mapping):
            result[part] = _filled(schema, renamed(schema, stored[part]), now[part])
    return result


def _filled(kind: type[Params], stored: Values, now: Values) -> Values:
    """Values of a part of the params: what a stage reads today, and what is a param no longer."""
    fields = kind.model_fields
    # what the stage has ceased to read, though it is a param still, makes no difference
    result = {key: value for key, value in stored.items() if key in now or key not in fields}
    for key, value in now.items():
        inner = fields[key].annotation if key in fields else None
        # a param that did not exist when the record was made
        if key not in result and key in fields and not fields[key].is_required():
            result[key] = to_jsonable_python(fields[key].get_default(call_default_factory=True))
        elif (
            isinstance(inner, type)
            and issubclass(inner, Params)
            and isinstance(result.get(key), Mapping)
        ):
            result[key] = _filled(inner, renamed(inner, result[key]), value)
    return result
