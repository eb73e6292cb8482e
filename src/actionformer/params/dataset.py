"""Params of a data set: where its files come from, what they are, and what is known of them.

`params/datasets/*.yaml` are files of this form; `params.files` reads them.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from actionformer.files.md5 import digest

# how the name of a params file ends, by which it is told from the name of a row or a data set
YAML = (".yaml", ".yml")


def folder_name(dataset: str) -> str:
    """The folder under build/{edition}/ of what is made from a data set.

    Its name; of a data set given by the path of a YAML file that file's name and a digest of its
    path, so that two files of one name, in two folders, don't share it. A path within the current
    folder counts from there: a checkout may be moved.
    """
    if not dataset.endswith(YAML):
        return dataset
    path = Path(dataset).resolve()
    here = Path.cwd()
    known = path.relative_to(here) if path.is_relative_to(here) else path
    return f"{path.stem}-{digest(known.as_posix())[:8]}"


# what folders, files and jobs are called after: nothing that a shell, a path or MLflow reads
NAME = r"\w[\w.+=-]*"
NAME_WANTED = "expected letters, digits and . _ + = -, a letter, a digit or _ first"


class Params(BaseModel):
    """Base of all params: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def check_name(name: str) -> str:
    """A name as it is, if it is one."""
    if not re.fullmatch(NAME, name):
        raise ValueError(f"{name!r}: {NAME_WANTED}")
    return name


def _check_within(path: str) -> str:
    """The path of a file of a data set as it is, if it lies in the data set's folder."""
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts or not path.isprintable():
        raise ValueError(f"{path!r}: expected a path within the data set's folder")
    return path


Name = Annotated[str, AfterValidator(check_name)]
Within = Annotated[str, AfterValidator(_check_within)]


class Source(Params):
    """One address of a file. Addresses are tried in order."""

    kind: Literal["google_drive", "google_drive_folder", "https", "hugging_face", "local", "manual"]
    address: str
    path: str | None = Field(
        None, description="the file's name inside a folder or a Hugging Face data set"
    )
    member: str | None = Field(
        None, description="where the address is an archive, of which only this file is kept"
    )
    md5: str = Field("unknown", description="of what lies at the address, as published beside it")
    note: str | None = None


class File(Params):
    """One publisher's file of a data set, as it lies under data/{edition}/{dataset}/."""

    sources: list[Source] = []
    md5: str = Field(
        "unknown", description="as published; 'unknown' where the publisher names none"
    )
    size: int | Literal["unknown"] = Field("unknown", description="bytes, as published")
    estimate: int | None = Field(
        None, description="bytes, reckoned from steps x channels, where no size is published"
    )
    licence: str = "unknown"
    gated: str | None = Field(
        None, description="what to ask for, and where, before this file can be had"
    )
    archive: str | None = Field(
        None,
        description="a second, durable address of the same data, for whoever finds the sources "
        "gone: an archive with a DOI, a repository, an institution; what lies there may have "
        "another form",
    )
    only_by_name: bool = Field(
        False, description="no stage reads it: fetched only where it is named"
    )


class FeatureSet(Params):
    """One set of per-snippet features, shared by every row that reads it."""

    file: str = Field(
        description="archive or folder under data/{edition}/{dataset}/, one (T, C) array per video"
    )
    dim: int = Field(gt=0)
    stride_frames: float | None = Field(
        None, gt=0, description="frames between two steps; null: features span the video"
    )
    offset_frames: float | None = Field(None, description="frame of the centre of step 0")
    fps: float | None = Field(None, gt=0, description="null: the video's own, frames / duration")
    prefix: str = Field("", description="what the publisher puts before the video's name")
    suffix: str = Field("", description="what the publisher puts after the video's name")
    transposed: bool = Field(False, description="the arrays are (channels, steps)")
    arrays: tuple[str, ...] = Field(
        (),
        description="keys of an npz or pt file whose arrays are put side by side, such as rgb and "
        "flow; none: its only array, or the one called feats or features",
    )
    dataset: str | None = Field(
        None, description="the data set that owns the file, where it is another one"
    )
    extractor: str | None = Field(
        None,
        description="the extractor of params/extractors that makes such features, or the path of a "
        "YAML file; docs/data.md says how near it comes to what is published",
    )
    videos: Within | None = Field(
        None,
        description="folder of video files under data/{edition}/{dataset}/, of which `extractor` "
        "makes the features; `file` is then the folder that they go to, under "
        "build/{edition}/extracted/{dataset}/",
    )

    @model_validator(mode="after")
    def _can_be_extracted(self) -> FeatureSet:
        if self.videos is not None and self.extractor is None:
            raise ValueError("videos: extractor names what makes features of them")
        if self.videos is not None and self.dataset is not None:
            raise ValueError("videos: of this data set, dataset names another one")
        if self.videos is not None and "/" in self.file:
            raise ValueError(f"file: {self.file!r} is no plain name of a folder")
        return self


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
        "database",
        "thumos14",
        "multithumos",
        "activitynet",
        "hacs",
        "epic",
        "ego4d",
        "charades",
        "fineaction",
    ] = "database"
    homepage: str | None = None
    licence: str = "unknown"
    citation: str | None = Field(None, description="what whoever uses the data is to cite")
    shareable: bool = Field(
        False,
        description="does the licence of the annotations allow to pass them on, as an archive of "
        "results does? Where none is stated nobody has allowed it",
    )
    root: str | None = Field(
        None, description="folder of the files; null: data/{edition}/{dataset}"
    )
    annotations: list[str] = Field(
        description="files and folders that the converter reads, relative to the root"
    )
    files: dict[Within, File] = {}
    features: dict[Name, FeatureSet]
    classifier: Classifier | None = None
    blocked: str | None = Field(None, description="JSON list of videos left out of the evaluation")
    class_lists: dict[str, str] = Field(
        {},
        description="label field -> published class order, one class per line; none: labels by "
        "code point",
    )
    excluded_videos: list[str] = Field(
        [], description="left out of the database by the published protocol"
    )
    drop_segments_past_end: bool = Field(
        False, description="drop instances that start after their video's end"
    )
    train_subset: str = "training"
    eval_subset: str = "validation"
    num_classes: int | dict[str, int] = Field(description="per label field where there are several")
    remark: str | None = Field(
        None, description="what a table says of the data beside the protocol"
    )
    published: dict[str, Counts] = Field({}, description="subset -> counts")
    bin_edges: dict[Literal["coverage", "length", "instances"], tuple[float, ...]] = Field(
        {},
        description="of the diagnosis: upper edges of all bins but the last; none: fifths of the "
        "ground truth",
    )

    @model_validator(mode="after")
    def _extracts_each_to_its_own(self) -> Dataset:
        folders: dict[str, str] = {}
        for name, one in self.features.items():
            if one.videos is None:
                continue
            other = folders.setdefault(one.file, name)
            if other != name:
                raise ValueError(
                    f"features: {other} and {name} are both extracted to file: {one.file}; each "
                    "needs a folder of its own"
                )
        return self

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
