"""A data set as its publisher gives it: what the writers make files of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionformer.synthetic.recordings import Array, Recording, features


@dataclass(frozen=True)
class Extractor:
    """What makes the features of one archive."""

    # names it in random numbers: another one sees other patterns
    key: str
    # the archive, under the data set's folder
    file: str
    dim: int
    # standard deviation, where an action shows with 1
    noise: float


@dataclass(frozen=True)
class Release:
    """Recordings, and what is published of them."""

    recordings: Sequence[Recording]
    # in the order of the published list; of EPIC and Charades their writers have more to say
    classes: Sequence[str]
    extractors: Sequence[Extractor]
    # names of videos that no features are published of
    missing: Sequence[str] = ()
    # of features
    dtype: Any = np.float16

    def with_features(self) -> list[Recording]:
        """The recordings that features are published of."""
        return [recording for recording in self.recordings if recording.name not in self.missing]

    def of_subset(self, subset: str) -> list[Recording]:
        """The recordings of a subset."""
        return [recording for recording in self.recordings if recording.subset == subset]

    def seen(self, recording: Recording, extractor: Extractor, centres_T: Array) -> NDArray[Any]:
        """(T, C): the features of a recording at these times."""
        features_TC = features(
            recording, extractor.key, centres_T, extractor.dim, noise=extractor.noise
        )
        return features_TC.astype(self.dtype)
