"""Typed params: everything that defines a run, and nothing that computes.

An `Experiment` is one row of a results table with every value resolved:

    params/experiments/ROW.yaml      what the row changes against the defaults below
    params/datasets/DATASET.yaml     the publisher's files, feature sets and subsets
    params/editions/EDITION.yaml     what the edition overrides in both

The defaults below are those that most published rows share (METHOD: reference page of the OpenTAD 0.1.3 benchmark).
Files are merged key by key, then validated strictly: an unknown key is an error that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from actionformer.errors import InputError

OWN = "own"
"""the edition of experiments and data sets given by path"""

CHECKOUT = Path(__file__).resolve().parents[2]
PARAMS = CHECKOUT / "params"


class Params(BaseModel):
    """Base of all params: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# ---------------------------------------------------------------------------------------------- data set


class Source(Params):
    """One address of a file. Addresses are tried in order."""

    kind: Literal["google_drive", "google_drive_folder", "https", "hugging_face", "local", "manual"]
    address: str
    path: str | None = Field(None, description="the file's name inside a folder or a Hugging Face data set")
    member: str | None = Field(None, description="where the address is an archive, of which only this file is kept")
    md5: str = Field("unknown", description="of what lies at the address, as published beside it")
    note: str | None = None


class File(Params):
    """One publisher's file of a data set, as it lies under data/{edition}/{dataset}/."""

    sources: list[Source] = []
    md5: str = Field("unknown", description="as published; 'unknown' where the publisher names none")
    size: int | Literal["unknown"] = Field("unknown", description="bytes, as published")
    estimate: int | None = Field(None, description="bytes, reckoned from steps x channels, where no size is published")
    licence: str = "unknown"
    gated: str | None = Field(None, description="what to ask for, and where, before this file can be had")
    only_by_name: bool = Field(False, description="no stage reads it: fetched only where it is named")


class FeatureSet(Params):
    """One set of per-snippet features, shared by every row that reads it."""

    file: str = Field(description="archive or folder under data/{edition}/{dataset}/, one (T, C) array per video")
    dim: int = Field(gt=0)
    stride_frames: float | None = Field(
        None, gt=0, description="frames between two steps; null: features span the video"
    )
    offset_frames: float | None = Field(None, description="frame of the centre of step 0")
    fps: float | None = Field(None, gt=0, description="null: the video's own, frames / duration")
    prefix: str = Field("", description="what the publisher puts before the video's name")
    dataset: str | None = Field(None, description="the data set that owns the file, where it is another one")


class Classifier(Params):
    """Video-level scores of an external classifier, for class-agnostic rows."""

    kind: Literal["cuhk", "tcanet", "standard"]
    file: str
    top_k: int


class Counts(Params):
    """Published size of one subset under the published protocol."""

    videos: int | None = None
    instances: int | None = None


class Dataset(Params):
    """A data set: where its files come from, what they are, and what is known of them."""

    name: str = Field(description="as the results table writes it")
    format: Literal[
        "database", "thumos14", "multithumos", "activitynet", "hacs", "epic", "ego4d", "charades", "fineaction"
    ] = "database"
    homepage: str | None = None
    licence: str = "unknown"
    root: str | None = Field(None, description="folder of the files; null: data/{edition}/{dataset}")
    annotations: list[str] = Field(description="files and folders that the converter reads, relative to the root")
    files: dict[str, File] = {}
    features: dict[str, FeatureSet]
    classifier: Classifier | None = None
    blocked: str | None = Field(None, description="JSON list of videos left out of the evaluation")
    class_lists: dict[str, str] = Field(
        {}, description="label field -> published class order, one class per line; none: labels by code point"
    )
    excluded_videos: list[str] = Field([], description="left out of the database by the published protocol")
    drop_segments_past_end: bool = Field(False, description="drop instances that start after their video's end")
    train_subset: str = "training"
    eval_subset: str = "validation"
    num_classes: int | dict[str, int] = Field(description="per label field where there are several")
    remark: str | None = Field(None, description="what a table says of the data beside the protocol")
    published: dict[str, Counts] = Field({}, description="subset -> counts")
    bin_edges: dict[Literal["coverage", "length", "instances"], tuple[float, ...]] = Field(
        {}, description="of the diagnosis: upper edges of all bins but the last; none: fifths of the ground truth"
    )

    @property
    def protocol(self) -> str:
        """Which videos and instances count, in words, from the params that leave some out."""
        parts = []
        if self.excluded_videos:
            parts.append(f"without {', '.join(self.excluded_videos)}")
        if self.drop_segments_past_end:
            parts.append("without instances past their video's end")
        if self.blocked is not None:
            parts.append("without the blocked list")
        return "; ".join(parts or ["all videos and instances"])

    def needed_files(self) -> list[str]:
        """Files that a stage reads, of those that have sources."""
        return [name for name, file in self.files.items() if not file.only_by_name]


# ---------------------------------------------------------------------------------------------- experiment


class RandomTruncation(Params):
    length: int = Field(2304, gt=0)
    threshold: float = 0.5
    crop_ratio: tuple[float, float] = (0.9, 1.0)


class DataParams(Params):
    """How a video becomes what the model sees (METHOD section 4)."""

    dataset: str
    features: str
    label_field: str = "label"
    loader: Literal["pad", "sliding", "resize"] = Field("pad", description="of the evaluation; training always crops")
    channels_used: tuple[int, int] | None = Field(None, description="half-open range of feature channels")
    class_agnostic: bool = False
    loading: Literal["published", "corrected"] = Field(
        "corrected",
        description="published: as the rows were produced, faults included; corrected: windows cover the whole video, "
        "ground truth is not cut to whole frames, features are resampled in full precision (docs/differences.md)",
    )
    truncate_to_frames: bool = Field(True, description="under loading 'published': ground truth at int(s * fps)")
    drop_short_gt_in_training: bool = False
    drop_outside_gt_in_training: bool = False
    resize_length: int | None = Field(None, gt=0)
    window_size: int | None = Field(None, gt=0)
    window_overlap_ratio: float = Field(0.0, ge=0, lt=1)
    test_pad_length: int | None = Field(None, gt=0)
    random_trunc: RandomTruncation = RandomTruncation()

    @property
    def loading_text(self) -> str:
        """How the loaders cut and resample, in words: what of it differs between the two ways for this loader."""
        if self.loader == "sliding" and self.loading == "published":
            return f"published, windows of overlap {self.window_overlap_ratio:g}, a tail can go unseen"
        if self.loader == "sliding":
            return "corrected, windows cover the whole video"
        return self.loading

    @model_validator(mode="after")
    def _lengths(self) -> DataParams:
        if self.loader == "resize" and self.resize_length is None:
            raise ValueError("loader 'resize' needs resize_length")
        if self.loader == "sliding" and self.window_size is None:
            raise ValueError("loader 'sliding' needs window_size")
        return self


class ModelParams(Params):
    """The network and its losses (METHOD sections 1 and 2)."""

    in_channels: int = Field(gt=0)
    num_classes: int = Field(gt=0)
    channels: int = Field(512, gt=0)
    embed_convs: int = Field(2, gt=0)
    stem_blocks: int = Field(2, ge=0)
    branch_blocks: int = Field(5, ge=0)
    heads: int = Field(4, gt=0)
    attention_window: int | tuple[int, ...] = -1
    max_seq_len: int = Field(2304, gt=0)
    absolute_position_embedding: bool = False
    input_dropout: float = Field(0.0, ge=0, lt=1)
    projection_dropout: float = Field(0.0, ge=0, lt=1)
    drop_path: float = Field(0.1, ge=0, lt=1)
    head_convs: int = Field(2, ge=0)
    regression_range: tuple[tuple[float, float], ...] = (
        (0, 4),
        (4, 8),
        (8, 16),
        (16, 32),
        (32, 64),
        (64, 10000),
    )
    cls_prior_prob: float = 0.01
    center_sample_radius: float = 1.5
    label_smoothing: float = 0.0
    loss_normalizer_init: float = 100
    loss_normalizer_momentum: float = 0.9
    reg_loss_weight: float = 1.0
    keep_only_shortest_gt: bool = True
    conv_norm_eps: float = Field(1e-6, description="LayerNorm eps after embedding and head convolutions and per level")
    mask_after_norm: bool = Field(True, description="mask again after norm and ReLU of those convolutions")

    @property
    def strides(self) -> tuple[int, ...]:
        """Grid units between two points, per level."""
        return tuple(2**level for level in range(self.branch_blocks + 1))

    @property
    def attention_windows(self) -> tuple[int, ...]:
        """Window of the stem, then of each branch block."""
        if isinstance(self.attention_window, int):
            return (self.attention_window,) * (self.branch_blocks + 1)
        return self.attention_window

    @model_validator(mode="after")
    def _shapes(self) -> ModelParams:
        levels = self.branch_blocks + 1
        if len(self.regression_range) != levels:
            raise ValueError(f"regression_range has {len(self.regression_range)} entries, the pyramid {levels} levels")
        if len(self.attention_windows) != levels:
            raise ValueError(f"attention_window has {len(self.attention_windows)} entries, expected {levels}")
        if self.max_seq_len % self.strides[-1]:
            raise ValueError(
                f"max_seq_len {self.max_seq_len} is not a multiple of the coarsest stride {self.strides[-1]}"
            )
        if self.channels % self.heads:
            raise ValueError(f"channels {self.channels} is not a multiple of heads {self.heads}")
        return self


class TrainingParams(Params):
    """Optimisation (METHOD section 3)."""

    batch_size: int = Field(2, gt=0)
    lr: float = Field(1e-4, gt=0)
    weight_decay: float = 0.05
    warmup_epochs: int = Field(5, ge=0)
    schedule_epochs: int = Field(35, gt=0, description="warm-up included; where the cosine ends")
    stop_after_epoch: int | None = Field(None, gt=0, description="number of epochs trained; null: schedule_epochs")
    clip_grad_norm: float = 1.0
    ema_decay: float = Field(0.999, ge=0, lt=1)
    first_eval_epoch: int = Field(30, description="counted from 0")
    threads: int = Field(2, gt=0, description="CPU threads of a training job: part of the result's last bits")

    @property
    def epochs(self) -> int:
        return self.schedule_epochs if self.stop_after_epoch is None else self.stop_after_epoch


class InferenceParams(Params):
    """Post-processing (METHOD section 5, items 1 to 5)."""

    batch_size: int = Field(1, gt=0)
    pre_nms_threshold: float = 0.001
    pre_nms_topk: int = Field(2000, gt=0)
    soft_nms_sigma: float = Field(0.5, gt=0)
    min_score: float = 0.001
    max_segments: int = Field(2000, gt=0)
    per_class_nms: bool = True
    voting_threshold: float = 0.7
    use_classifier: bool = Field(False, description="fuse with the data set's external classifier")


class EvaluationParams(Params):
    """Evaluation (METHOD section 5, item 6)."""

    tiou: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7)
    recall_top_k: tuple[int, ...] = ()
    use_blocked_list: bool = False


class Released(Params):
    """The checkpoint that was published with a row."""

    file: str = Field(description="under data/{edition}/{dataset}/")
    shared_with: str | None = Field(
        None,
        description="row that the publisher links the same checkpoint to: it fits one of the two, the other has none",
    )


class Expectation(Params):
    """What a reader should expect of a row: score, time and hardware."""

    published: dict[str, float] = Field({}, description="published mAP in percent per tIoU, and 'average'")
    time: str = "unknown"
    hardware: str = "unknown"


class Experiment(Params):
    """One row of a results table, every value resolved."""

    name: str
    edition: str
    comparable: bool = Field(description="false: numbers of this edition are not comparable with the published ones")
    table: str = Field(description="the results table this row belongs to")
    row: str = Field(description="how the table calls this row")
    dataset: Dataset
    dataset_file: str | None = Field(None, description="of a data set given by path")
    data: DataParams
    model: ModelParams
    training: TrainingParams = TrainingParams()
    inference: InferenceParams = InferenceParams()
    evaluation: EvaluationParams = EvaluationParams()
    expect: Expectation = Expectation()
    released: Released | None = None
    actions_with: str | None = Field(None, description="row of verbs that this row of nouns is fused with into actions")

    @model_validator(mode="after")
    def _fits(self) -> Experiment:
        data, features = self.data, self.dataset.features[self.data.features]
        if data.loader != "resize" and (features.stride_frames is None or features.offset_frames is None):
            raise ValueError(f"loader '{data.loader}' needs stride_frames and offset_frames of its features")
        if data.random_trunc.length > self.model.max_seq_len:
            raise ValueError(f"data.random_trunc.length {data.random_trunc.length} is above model.max_seq_len")
        return self

    @property
    def features(self) -> FeatureSet:
        """The feature set that this row reads."""
        return self.dataset.features[self.data.features]

    @property
    def feature_owner(self) -> str:
        """Name of the data set whose folder holds this row's features."""
        return self.features.dataset or self.data.dataset


# ---------------------------------------------------------------------------------------------- reading

RENAMED: dict[type[Params], dict[str, str]] = {
    DataParams: {"protocol": "loading"},
    Dataset: {"protocol": "remark"},
}
"""kind of params -> names in earlier versions -> what they are called now; the only place that knows old names"""


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, or one line that says why not."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such params file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping of keys, found {type(content).__name__}")
    return content


def merged(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `override` on top; mappings are merged, everything else is replaced."""
    result = dict(base)
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


AnyParams = TypeVar("AnyParams", bound=Params)


def renamed(kind: type[Params], values: Mapping[str, Any]) -> dict[str, Any]:
    """Params of one kind as an earlier version wrote them, under today's names."""
    names = RENAMED.get(kind, {})
    return {names.get(key, key): value for key, value in values.items()}


BEFORE_LOADING = "published"
"""what `data.loading` was, in effect, before there was such a param"""


def migrated(kind: type[Params], content: Mapping[str, Any]) -> dict[str, Any]:
    """Resolved params as an earlier version wrote them, under today's names."""
    result = renamed(kind, content)
    if kind is not Experiment:
        return result
    for part, schema in Experiment.model_fields.items():
        inner = schema.annotation
        if isinstance(inner, type) and issubclass(inner, Params) and isinstance(result.get(part), Mapping):
            result[part] = renamed(inner, result[part])
    if isinstance(result.get("data"), dict) and "loading" not in result["data"]:
        # its windows alone had a param then, everything else was as published
        result["data"].pop("window_protocol", None)
        result["data"]["loading"] = BEFORE_LOADING
    return result


def stored_experiment(content: Any, origin: str) -> Experiment:
    """An experiment from a file of ours, written by this or an earlier version.

    A param that did not exist then counts as its default, a renamed one by its new name; what is a param no longer is
    left out.

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
    return _validated(Experiment, current, origin)


def _remove(content: Any, location: Sequence[Any]) -> None:
    """Remove a key that lies deep in mappings and lists, in a copy of each of those above it."""
    for part in location[:-1]:
        content[part] = dict(content[part]) if isinstance(content[part], Mapping) else list(content[part])
        content = content[part]
    del content[location[-1]]


def _validated(kind: type[AnyParams], content: dict[str, Any], origin: str) -> AnyParams:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"]) or "(whole file)"
            reason = "unknown key" if item["type"] == "extra_forbidden" else item["msg"]
            if item["type"] == "extra_forbidden":
                reason += _called_now(kind, key)
            problems.append(f"{key}: {reason}")
        raise InputError(f"{origin}: {'; '.join(problems)}") from None


def evaluated_experiment(metrics: Mapping[str, Any], origin: str) -> Experiment:
    """The experiment that a metrics.json was made with; earlier versions kept it under 'experiment'."""
    made = metrics.get("made_with")
    return stored_experiment(made["params"] if made else metrics.get("experiment"), origin)


def _called_now(kind: type[Params], key: str) -> str:
    """A hint for a key that had this name in an earlier version."""
    name = RENAMED.get(kind, {}).get(key)
    return "" if name is None else f" (called {name} now)"


def names(kind: Literal["experiments", "datasets", "editions"], params: Path = PARAMS) -> list[str]:
    """Names of all experiments, data sets or editions of a params folder."""
    return sorted(path.stem for path in (params / kind).glob("*.yaml"))


def published_rows(params: Path = PARAMS) -> list[str]:
    """The rows of all tables, in the order of the published page."""
    return list(read_yaml(params / "workflow.yaml")["rows"])


class Edition(Params):
    """params/editions/*.yaml: the same pipeline at another size."""

    comparable: bool
    why_not_comparable: str = ""
    seeds: tuple[int, ...]
    origin: Literal["dvc", "publisher"] = Field(
        description="where raw files come from: `dvc pull`, or their publishers"
    )
    memory_mb: int = Field(8000, description="that a training or detection job asks for")
    all_experiments: dict[str, Any] = Field({}, description="overrides of every experiment")
    experiments: dict[str, dict[str, Any]] = {}
    datasets: dict[str, dict[str, Any]] = {}

    @model_validator(mode="after")
    def _reason(self) -> Edition:
        if not self.comparable and not self.why_not_comparable:
            raise ValueError("comparable: false needs why_not_comparable, a sentence that tables print")
        return self


# experiments given by path
OWN_EDITION = Edition(
    comparable=False,
    why_not_comparable="There is no published value to compare an experiment of one's own with.",
    seeds=(0,),
    origin="publisher",
)


def load_edition(name: str, params: Path = PARAMS) -> Edition:
    """An edition by name; raises `InputError` if there is none of that name."""
    if name == OWN:
        return OWN_EDITION
    path = params / "editions" / f"{name}.yaml"
    if not path.exists():
        raise InputError(f"{path}: no edition '{name}'; there are {', '.join(names('editions', params))}")
    edition = _validated(Edition, read_yaml(path), str(path))
    for kind, given in (("experiments", edition.experiments), ("datasets", edition.datasets)):
        for key in given:
            if not (params / kind / f"{key}.yaml").exists():
                raise InputError(f"{path}: {kind}.{key}: there is no such file in {params / kind}")
    return edition


def load_dataset(name: str, edition: str = OWN, params: Path = PARAMS) -> Dataset:
    """A data set by name in `params`, as the edition sees it, or by the path of a YAML file, as written."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        content = read_yaml(path)
        content["root"] = str((path.parent / str(content.get("root") or ".")).resolve())
        return _validated(Dataset, content, str(path))
    path = params / "datasets" / f"{name}.yaml"
    if not path.exists():
        raise InputError(f"{path}: no data set '{name}'; there are {', '.join(names('datasets', params))}")
    content, origin = read_yaml(path), str(path)
    if edition != OWN:
        override = load_edition(edition, params).datasets.get(name)
        if override:
            content, origin = merged(content, override), f"{path} with edition '{edition}'"
    return _validated(Dataset, content, origin)


def load_experiment(
    name: str, edition: str = "paper", *, dataset: str | None = None, params: Path = PARAMS
) -> Experiment:
    """One row with every value resolved.

    Args:
        name: a row of `params/experiments`, or the path of a YAML file, which is taken as written.
        edition: 'demo', 'paper', ...; without effect on a YAML file given by path.
        dataset: name or path of a data set to use instead of the one that the experiment names.
        params: the params folder.

    Raises:
        InputError: unknown row, data set or key; a value of the wrong type; sizes that don't fit together.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        content, stem, edition, chosen = read_yaml(path), path.stem, OWN, OWN_EDITION
        origin = str(path)
    else:
        path = params / "experiments" / f"{name}.yaml"
        if not path.exists():
            raise InputError(f"{path}: no experiment '{name}'; there are {', '.join(names('experiments', params))}")
        chosen = load_edition(edition, params)
        content = merged(merged(read_yaml(path), chosen.all_experiments), chosen.experiments.get(name, {}))
        stem, origin = name, f"{path} with edition '{edition}'"

    data = content.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("dataset"), str):
        raise InputError(f"{path}: data.dataset must name a data set")
    wanted = dataset or data["dataset"]
    if dataset is None and wanted.endswith((".yaml", ".yml")):
        wanted = str(path.parent / wanted)
    facts = load_dataset(wanted, edition, params)
    _check_owner(data.get("features"), facts, edition, params)

    data_params = _validated(DataParams, data | {"dataset": Path(wanted).stem}, f"{origin}, data")
    if data_params.features not in facts.features:
        known = ", ".join(facts.features)
        raise InputError(f"{path}: data.features '{data_params.features}' is not a feature set of {wanted}: {known}")
    defaults = {
        "in_channels": _in_channels(data_params, facts, path),
        "num_classes": 1 if data_params.class_agnostic else _num_classes(data_params, facts, path),
    }
    resolved = content | {
        "name": stem,
        "edition": edition,
        "comparable": chosen.comparable,
        "table": content.get("table", stem),
        "row": content.get("row", stem),
        "dataset": facts.model_dump(),
        "dataset_file": wanted if wanted.endswith((".yaml", ".yml")) else None,
        "data": data_params.model_dump(),
        "model": defaults | (content.get("model") or {}),
    }
    experiment = _validated(Experiment, resolved, origin)
    if experiment.inference.use_classifier and facts.classifier is None:
        raise InputError(f"{path}: inference.use_classifier needs a classifier in data set {wanted}")
    if experiment.model.in_channels != defaults["in_channels"]:
        raise InputError(
            f"{path}: model.in_channels is {experiment.model.in_channels}, the features have {defaults['in_channels']}"
        )
    return experiment


def _check_owner(name: Any, dataset: Dataset, edition: str, params: Path) -> None:
    """Features that another data set owns must be described there in the same way."""
    features = dataset.features.get(str(name))
    if features is None or features.dataset is None:
        return
    owner = load_dataset(features.dataset, edition, params).features.get(str(name))
    if owner is None or owner.model_copy(update={"dataset": features.dataset}) != features:
        raise InputError(
            f"{params / 'datasets'}: features '{name}' differ between {dataset.name} and {features.dataset}"
        )


def _in_channels(data: DataParams, dataset: Dataset, path: Path) -> int:
    dim = dataset.features[data.features].dim
    if data.channels_used is None:
        return dim
    start, stop = data.channels_used
    if not 0 <= start < stop <= dim:
        raise InputError(f"{path}: data.channels_used {start}..{stop} does not lie within the {dim} channels")
    return stop - start


def _num_classes(data: DataParams, dataset: Dataset, path: Path) -> int:
    if isinstance(dataset.num_classes, int):
        return dataset.num_classes
    if data.label_field not in dataset.num_classes:
        raise InputError(f"{path}: data.label_field '{data.label_field}' is none of {', '.join(dataset.num_classes)}")
    return dataset.num_classes[data.label_field]


def seeds_of(experiment: Experiment, params: Path = PARAMS) -> tuple[int, ...]:
    """The seeds of an experiment's edition."""
    return load_edition(experiment.edition, params).seeds


def why_not_comparable(experiment: Experiment, params: Path = PARAMS) -> str:
    """The sentence that tables of an experiment's edition print; empty where numbers are comparable."""
    return load_edition(experiment.edition, params).why_not_comparable


# ---------------------------------------------------------------------------------------------- writing


def as_yaml(experiment: Experiment) -> str:
    """A row with every value resolved, as YAML."""
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, width=120)


def schemas() -> dict[str, str]:
    """JSON Schema of every kind of params file, by file name."""
    row = Experiment.model_json_schema()
    for resolved in ("name", "edition", "comparable", "dataset", "dataset_file"):
        row["properties"].pop(resolved)
    row["required"] = ["data"]
    row["$defs"]["ModelParams"]["required"] = []  # the data set gives channels and classes
    kinds = {"dataset": Dataset.model_json_schema(), "experiment": row, "edition": Edition.model_json_schema()}
    return {f"{name}.schema.json": json.dumps(schema, indent=1) + "\n" for name, schema in kinds.items()}
