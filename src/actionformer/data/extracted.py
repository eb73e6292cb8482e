"""Feature files that say of themselves what they are: `extract` writes them.

An npz of two arrays: `features` (T, C), and `actionformer`, a text of JSON. In h5 that text is an
attribute of the data set.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from actionformer.errors import InputError
from actionformer.files.writing import atomic_path

FEATURES, DESCRIPTION = "features", "actionformer"
# of a description, what features of one model have in common
MADE_BY = ("extractor", "identity", "weights_md5")
# what is copied at once
BLOCK = 1 << 20
# of frames per second, frames and seconds: more is a damaged file
LARGEST = 1e12
# of the earliest year that a zip can say: equal features make equal bytes
LONG_AGO = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Description:
    """What made features, and when their steps are."""

    # name in params/extractors, and a digest of all that it says of frames and network
    extractor: str
    identity: str
    weights_md5: str
    # frames per second, frames between two steps, frame at the centre of step 0
    fps: float
    stride_frames: float
    offset_frames: float
    # of the video: seconds, frames at `fps`, md5 of its file
    duration: float
    frames: int
    video_md5: str

    @property
    def made_by(self) -> dict[str, str]:
        """What makes features alike: two videos are to agree in it."""
        return {name: getattr(self, name) for name in MADE_BY}

    def grid(self) -> str:
        """When the steps are, in words."""
        return (
            f"step t at frame {self.offset_frames:g} + {self.stride_frames:g} t, "
            f"{self.fps:g} frames/s"
        )


def parsed(text: Any, where: str) -> Description:
    """The description that a text of JSON is.

    Raises:
        InputError: no such text, or values that cannot be.
    """
    try:
        content = json.loads(text)
        expected = {field.name for field in fields(Description)}
        if not isinstance(content, dict) or set(content) != expected:
            raise ValueError(f"expected {', '.join(sorted(expected))}")
        for name in ("extractor", "identity", "weights_md5", "video_md5"):
            if not isinstance(content[name], str):
                raise ValueError(f"{name} is no text")
        for name in ("fps", "stride_frames", "offset_frames", "duration"):
            content[name] = _positive(content[name], name)
        if type(content["frames"]) is not int or content["frames"] < 1:
            raise ValueError("frames is no whole number from 1 on")
    except (ValueError, TypeError, RecursionError) as error:
        wrong = f"its description is not one that `actionformer extract` writes ({error})"
        raise InputError(f"{where}: {wrong}; extract the video again") from None
    return Description(**content)


def _positive(value: Any, name: str) -> float:
    if type(value) not in (int, float) or not 0 < value < LARGEST:
        raise ValueError(f"{name} is no number above 0 and below {LARGEST:g}")
    return float(value)


def as_text(description: Description) -> str:
    return json.dumps(asdict(description), sort_keys=True)


class FeatureWriter:
    """Rows of features, appended to a file as they come: their number is known at the end alone."""

    def __init__(self, dim: int, scratch: IO[bytes]) -> None:
        self._dim, self._rows = dim, scratch
        self.steps = 0

    def append(self, features_BC: NDArray[np.float32]) -> None:
        """Add the features of some clips."""
        self._rows.write(np.ascontiguousarray(features_BC, "<f4").tobytes())
        self.steps += len(features_BC)

    def finish(self, target: Path, description: Description) -> None:
        """Write the npz file, whole or not at all."""
        header = io.BytesIO()
        shape = (self.steps, self._dim)
        npy_format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        text = io.BytesIO()
        np.save(text, np.array(as_text(description)), allow_pickle=False)
        self._rows.seek(0)
        size = self.steps * self._dim * 4
        with (
            atomic_path(target, size) as part,
            zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive,
        ):
            with archive.open(_member(FEATURES), "w", force_zip64=True) as member:
                member.write(header.getvalue())
                shutil.copyfileobj(self._rows, member, BLOCK)
            archive.writestr(_member(DESCRIPTION), text.getvalue())


def _member(key: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{key}.npy", date_time=LONG_AGO)


def agreed(descriptions: Iterable[tuple[str, Description]], where: str) -> Description | None:
    """One of the descriptions of several videos; None where there are none.

    Raises:
        InputError: two that were not made alike.
    """
    first: tuple[str, Description] | None = None
    for video, description in descriptions:
        if first is None:
            first = video, description
        for name, one in first[1].made_by.items():
            other = description.made_by[name]
            if one != other:
                wrong = f"videos '{first[0]}' and '{video}' differ in {name}: {one} and {other}"
                raise InputError(f"{where}: {wrong}; extract all videos alike")
    return None if first is None else first[1]
