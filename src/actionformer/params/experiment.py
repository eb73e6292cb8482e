"""Params of an experiment, which is one row of a results table, and of an edition.

Every value of an `Experiment` is resolved: nothing is looked up later.

The defaults are those that most published rows share (METHOD: reference page of the OpenTAD 0.1.3
benchmark). `params.files` puts an experiment together from `params/experiments/ROW.yaml`, what the
edition overrides in it, and its data set.
"""

from __future__ import annotations

import shlex
from typing import Any, Literal

from pydantic import Field, model_validator

from actionformer.params.dataset import Dataset, FeatureSet, Name, Params, folder_name


class RandomTruncation(Params):
    length: int = Field(2304, gt=0)
    threshold: float = 0.5
    crop_ratio: tuple[float, float] = (0.9, 1.0)


class DataParams(Params):
    """How a video becomes what the model sees (METHOD section 4)."""

    dataset: str
    features: str
    label_field: str = "label"
    loader: Literal["pad", "sliding", "resize"] = Field(
        "pad", description="of the evaluation; training always crops"
    )
    channels_used: tuple[int, int] | None = Field(
        None, description="half-open range of feature channels"
    )
    class_agnostic: bool = False
    loading: Literal["published", "corrected"] = Field(
        "corrected",
        description="published: as the rows were produced, faults included; corrected: windows "
        "cover the whole video, ground truth is not cut to whole frames, features are resampled in "
        "full precision (docs/differences.md)",
    )
    truncate_to_frames: bool = Field(
        True, description="under loading 'published': ground truth at int(s * fps)"
    )
    drop_short_gt_in_training: bool = False
    drop_outside_gt_in_training: bool = False
    resize_length: int | None = Field(None, gt=0)
    window_size: int | None = Field(None, gt=0)
    window_overlap_ratio: float = Field(0.0, ge=0, lt=1)
    test_pad_length: int | None = Field(None, gt=0)
    random_trunc: RandomTruncation = RandomTruncation()
    videos: int | None = Field(
        None, gt=0, description="only so many videos per subset, the first by name; null: all"
    )

    @property
    def loading_text(self) -> str:
        """How the loaders cut and resample, in words.

        It says what differs for this loader between the published and the corrected way.
        """
        if self.loader == "sliding" and self.loading == "published":
            return (
                f"published, windows of overlap {self.window_overlap_ratio:g}, a tail can go unseen"
            )
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
    conv_norm_eps: float = Field(
        1e-6, description="LayerNorm eps after embedding and head convolutions and per level"
    )
    mask_after_norm: bool = Field(
        True, description="mask again after norm and ReLU of those convolutions"
    )

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

    def published_length(self, length: int) -> int:
        """What the published implementation pads `length` steps to (METHOD section 1, item 1)."""
        if length <= self.max_seq_len:
            return self.max_seq_len
        # the largest of the levels' needs, not their common multiple: as published
        multiple = 1
        for stride, window in zip(self.strides, self.attention_windows, strict=True):
            multiple = max(multiple, stride * max(1, 2 * (window // 2)))
        return -(-length // multiple) * multiple

    def padded_length(self, length: int) -> int:
        """The shortest length with the published result (METHOD section 6).

        One padding step at every level that had one.
        """
        coarsest = self.strides[-1]
        return min((-(-length // coarsest) + 1) * coarsest, self.published_length(length))

    @property
    def parameters(self) -> int:
        """How many numbers the network learns."""
        C, K, levels = self.channels, self.num_classes, self.branch_blocks + 1
        norm, product = 2 * C, C * C + C
        embedding = 3 * C * (self.in_channels + (self.embed_convs - 1) * C)
        embedding += self.embed_convs * norm
        attention = 3 * (3 * C + norm + product) + product
        block = 2 * norm + attention + (4 * C * C + 4 * C) + (4 * C * C + C) + 2 * C
        blocks = (self.stem_blocks + self.branch_blocks) * block
        towers = 2 * self.head_convs * (3 * C * C + norm)
        heads = (3 * C + 1) * (K + 2) + levels
        return embedding + blocks + levels * norm + towers + heads

    @model_validator(mode="after")
    def _shapes(self) -> ModelParams:
        levels = self.branch_blocks + 1
        if len(self.regression_range) != levels:
            entries = len(self.regression_range)
            raise ValueError(f"regression_range has {entries} entries, the pyramid {levels} levels")
        if len(self.attention_windows) != levels:
            raise ValueError(
                f"attention_window has {len(self.attention_windows)} entries, expected {levels}"
            )
        if self.max_seq_len % self.strides[-1]:
            wanted = f"a multiple of the coarsest stride {self.strides[-1]}"
            raise ValueError(f"max_seq_len {self.max_seq_len} is not {wanted}")
        if self.channels % self.heads:
            raise ValueError(f"channels {self.channels} is not a multiple of heads {self.heads}")
        return self


# the edition of experiments and data sets given by path
OWN = "own"
# how the network computes (`model.precision`)
Precision = Literal["published", "float32", "bf16"]


class TrainingParams(Params):
    """Optimisation (METHOD section 3)."""

    batch_size: int = Field(2, gt=0)
    lr: float = Field(1e-4, gt=0)
    weight_decay: float = 0.05
    warmup_epochs: int = Field(5, ge=0)
    schedule_epochs: int = Field(35, gt=0, description="warm-up included; where the cosine ends")
    stop_after_epoch: int | None = Field(
        None, gt=0, description="number of epochs trained; null: schedule_epochs"
    )
    clip_grad_norm: float = 1.0
    ema_decay: float = Field(0.999, ge=0, lt=1)
    first_eval_epoch: int = Field(30, description="counted from 0")
    threads: int = Field(
        2, gt=0, description="CPU threads of a training job: part of the result's last bits"
    )
    precision: Precision = Field(
        "published",
        description="published: convolutions in TF32 on GPUs that have it, as the rows were "
        "produced; float32: nothing in TF32; bf16: products in bfloat16. Detection follows it",
    )
    compile: bool = Field(
        False,
        description="train through torch.compile: faster on some GPUs, minutes to begin, other "
        "last digits",
    )
    cuda_graphs: bool = Field(
        False,
        description="on a CUDA GPU, record a step of every length once and replay it, where "
        "launching its kernels takes longer than running them; no effect elsewhere",
    )

    @property
    def epochs(self) -> int:
        # of a schedule that was shortened on the command line nothing but the schedule is left
        return min(self.schedule_epochs, self.stop_after_epoch or self.schedule_epochs)


class InferenceParams(Params):
    """Post-processing (METHOD section 5, items 1 to 5)."""

    batch_size: int = Field(
        1,
        gt=0,
        description="inputs of max_seq_len steps that the network sees at once; of shorter ones "
        "as many as have as many steps with their padding",
    )
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
        description="row that the publisher links the same checkpoint to: it fits one of the two, "
        "the other has none",
    )


class Expectation(Params):
    """What a reader should expect of a row: score, time and hardware."""

    published: dict[str, float] = Field(
        {}, description="published mAP in percent per tIoU, and 'average'"
    )
    time: str = "unknown"
    hardware: str = "unknown"
    hours: float = Field(
        8.0,
        gt=0,
        description="a seed takes on that hardware, from which a cluster's time limit is reckoned",
    )
    memory_mb: int = Field(
        8000,
        gt=0,
        description="that training and detection ask a cluster for; of the rows a third more than "
        "was measured (docs/cluster.md)",
    )


class Experiment(Params):
    """One row of a results table, every value resolved."""

    name: Name = Field(description="of the row's file")
    edition: Name = Field(description="the edition that it was resolved for")
    comparable: bool = Field(
        description="false: numbers of this edition are not comparable with the published ones"
    )
    table: Name = Field(description="the results table this row belongs to")
    row: str = Field(description="how the table calls this row")
    dataset: Dataset
    dataset_file: str | None = Field(None, description="of a data set given by path")
    called: str | None = Field(None, description="how commands name it: a row or a file")
    overrides: tuple[str, ...] = Field((), description="values of the command line on top")
    departs: tuple[str, ...] = Field(
        (), description="what differs from the row's own params: 'training.lr: 0.0001 -> 0.001'"
    )
    data: DataParams
    model: ModelParams
    training: TrainingParams = TrainingParams()
    inference: InferenceParams = InferenceParams()
    evaluation: EvaluationParams = EvaluationParams()
    expect: Expectation = Expectation()
    released: Released | None = Field(
        None, description="the checkpoint that was published with this row"
    )
    actions_with: str | None = Field(
        None, description="row of verbs that this row of nouns is fused with into actions"
    )

    @model_validator(mode="after")
    def _fits(self) -> Experiment:
        data, features = self.data, self.dataset.features[self.data.features]
        if data.loader != "resize" and (
            features.stride_frames is None or features.offset_frames is None
        ):
            raise ValueError(
                f"loader '{data.loader}' needs stride_frames and offset_frames of its features"
            )
        if data.random_trunc.length > self.model.max_seq_len:
            raise ValueError(
                f"data.random_trunc.length {data.random_trunc.length} is above model.max_seq_len"
            )
        # said now, and not by the first evaluation, after hours of training
        tiou = self.evaluation.tiou
        if not tiou or not all(0 < threshold <= 1 for threshold in tiou):
            wanted = "expected one or more numbers above 0, at most 1"
            raise ValueError(f"evaluation.tiou {list(tiou)}: {wanted}")
        if not all(k > 0 for k in self.evaluation.recall_top_k):
            ks = list(self.evaluation.recall_top_k)
            raise ValueError(f"evaluation.recall_top_k {ks}: expected whole numbers from 1 on")
        return self

    @property
    def features(self) -> FeatureSet:
        """The feature set that this row reads."""
        return self.dataset.features[self.data.features]

    @property
    def dataset_folder(self) -> str:
        """Name of the folder of what is made from this row's data set."""
        return folder_name(self.dataset_file or self.data.dataset)

    @property
    def feature_owner(self) -> str:
        """Name of the folder of the data set that holds this row's features."""
        return self.features.dataset or self.dataset_folder

    @property
    def argument(self) -> str:
        """How commands name this row, edition and values of the command line included."""
        values = f" --set {shlex.join(self.overrides)}" if self.overrides else ""
        return shlex.quote(self.called or self.name) + self.edition_option + values

    @property
    def edition_option(self) -> str:
        """What says the edition to a command, unless it is the usual one."""
        return "" if self.edition in ("demo", OWN) else f" --edition {self.edition}"

    @property
    def dataset_argument(self) -> str:
        """How commands name this row's data set."""
        return self.dataset_file or self.data.dataset

    @property
    def feature_argument(self) -> str:
        """How commands name the data set that holds this row's features."""
        return self.features.dataset or self.dataset_argument


class Edition(Params):
    """params/editions/*.yaml: the same pipeline at another size."""

    comparable: bool
    why_not_comparable: str = ""
    seeds: tuple[int, ...]
    origin: Literal["dvc", "publisher", "mirror"] = Field(
        description="where raw files come from: `dvc pull`; their publishers, or first a mirror "
        "that is named; a mirror alone"
    )
    shareable: bool = Field(
        False, description="may its data be passed on, whatever data sets' licences say of theirs?"
    )
    memory_mb: int | None = Field(
        None, gt=0, description="that its training and detection jobs ask for; null: as their rows"
    )
    released_tolerance: float | None = Field(
        None,
        gt=0,
        description="points of average mAP that a row's published checkpoint may score beside what "
        "was published, before data or code must be wrong and training refuses to begin; null: "
        "whatever it scores",
    )
    all_experiments: dict[str, Any] = Field({}, description="overrides of every experiment")
    experiments: dict[str, dict[str, Any]] = Field({})
    datasets: dict[str, dict[str, Any]] = Field({})

    @model_validator(mode="after")
    def _reason(self) -> Edition:
        if not self.comparable and not self.why_not_comparable:
            raise ValueError(
                "comparable: false needs why_not_comparable, a sentence that tables print"
            )
        return self


OWN_EDITION = Edition(
    comparable=False,
    why_not_comparable="There is no published value to compare an experiment of one's own with.",
    seeds=(0,),
    origin="publisher",
)
