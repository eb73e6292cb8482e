"""What the published data sets are like: how many videos and actions, how long, how they differ.

Counted in the published annotations of THUMOS-14, MultiTHUMOS, ActivityNet-1.3 and
EPIC-KITCHENS-100. Of the others as their papers say it, spread around the published means: HACS
(Zhao et al., ICCV 2019), FineAction (Liu et al., TIP 2022), Ego4D (Grauman et al., CVPR 2022),
Charades (Sigurdsson et al., ECCV 2016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# what lies at even steps from the least to the most: eleven numbers are the deciles
Quantiles = Sequence[float]


@dataclass(frozen=True)
class Statistics:
    """Of one data set; times in seconds."""

    # subset, as the publisher calls it -> how many videos
    videos: Mapping[str, int]
    # subset -> how many actions
    actions: Mapping[str, int]
    # the subsets of training and of evaluation
    train: str
    test: str
    durations: Quantiles
    # of actions; shares of the video's duration, if those are published
    lengths: Quantiles
    # how often classes occur, compared with each other; the most frequent one first
    frequencies: Quantiles
    relative_length: bool = False
    # all actions of a video have the same class
    one_class: bool = False
    # longer videos have more actions
    by_duration: bool = True
    fps: float = 30.0

    def duration_at(self, place: float) -> float:
        """How long the video is that comes at a place from 0 (the shortest) to 1."""
        return at(self.durations, place)


def at(quantiles: Quantiles, place: float) -> float:
    """What lies at a place from 0 (least) to 1 (most), between two quantiles in proportion."""
    position = place * (len(quantiles) - 1)
    below = min(int(position), len(quantiles) - 2)
    rest = position - below
    return quantiles[below] * (1 - rest) + quantiles[below + 1] * rest


THUMOS14 = Statistics(
    videos={"validation": 200, "test": 213},
    actions={"validation": 3007, "test": 3358},
    train="validation",
    test="test",
    durations=(9, 43, 72, 103, 128, 155, 184, 213, 255, 432, 1673),
    lengths=(0.2, 1.0, 1.4, 1.9, 2.4, 3.0, 4.0, 5.3, 6.5, 8.5, 40),
    frequencies=(887, 361, 266, 151, 67),
)
ACTIVITYNET = Statistics(
    videos={"training": 10024, "validation": 4926, "testing": 5044},
    actions={"training": 15410, "validation": 7654, "testing": 0},
    train="training",
    test="validation",
    durations=(2, 30, 51, 70, 91, 115, 137, 161, 185, 211, 755),
    lengths=(0.01, 0.03, 0.06, 0.1, 0.19, 0.33, 0.53, 0.72, 0.86, 0.96, 1.0),
    frequencies=(280, 129, 107, 86, 50),
    relative_length=True,
    one_class=True,
    by_duration=False,
)
HACS = Statistics(
    videos={"training": 37613, "validation": 5981, "testing": 5987},
    actions={"training": 105000, "validation": 17000, "testing": 0},
    train="training",
    test="validation",
    durations=(5, 60, 90, 115, 135, 155, 175, 200, 225, 240, 250),
    lengths=(0.01, 0.03, 0.06, 0.1, 0.15, 0.21, 0.28, 0.38, 0.5, 0.68, 1.0),
    frequencies=(900, 700, 600, 480, 250),
    relative_length=True,
    one_class=True,
    by_duration=False,
)
FINEACTION = Statistics(
    videos={"training": 8440, "validation": 4174, "testing": 4118},
    actions={"training": 57752, "validation": 24236, "testing": 0},
    train="training",
    test="validation",
    durations=(2, 12, 25, 45, 75, 110, 150, 190, 230, 350, 900),
    lengths=(0.1, 0.5, 0.8, 1.2, 1.8, 2.6, 4, 6, 10, 18, 120),
    frequencies=(4000, 1000, 500, 250, 60),
)
EPIC = Statistics(
    videos={"train": 495, "validation": 138},
    actions={"train": 67217, "validation": 9668},
    train="train",
    test="validation",
    durations=(10, 53, 90, 140, 198, 272, 405, 524, 774, 1272, 3708),
    lengths=(0.2, 0.7, 0.9, 1.1, 1.33, 1.61, 2.04, 2.73, 3.97, 6.94, 297),
    frequencies=(1000, 30, 10, 4, 1),
    fps=59.94,
)
EGO4D = Statistics(
    videos={"train": 1486, "val": 521},
    actions={"train": 13600, "val": 4300},
    train="train",
    test="val",
    durations=(300, 480, 480, 480, 480, 480, 480, 480, 480, 480, 480),
    lengths=(0.5, 2, 4, 7, 12, 18, 28, 45, 75, 130, 400),
    frequencies=(1500, 250, 120, 60, 10),
)
CHARADES = Statistics(
    videos={"train": 7985, "test": 1863},
    actions={"train": 49809, "test": 16691},
    train="train",
    test="test",
    durations=(5, 20, 25, 28, 30, 30.5, 31, 32, 33, 35, 190),
    lengths=(0.2, 3, 5, 7, 9, 11, 13, 16, 20, 26, 60),
    frequencies=(3500, 600, 350, 200, 50),
)

# data set -> its statistics; MultiTHUMOS has the videos of THUMOS-14
STATISTICS = {
    "thumos14": THUMOS14,
    "activitynet": ACTIVITYNET,
    "hacs": HACS,
    "fineaction": FINEACTION,
    "epic": EPIC,
    "ego4d": EGO4D,
    "charades": CHARADES,
}

THUMOS14_CLASSES = (
    "BaseballPitch",
    "BasketballDunk",
    "Billiards",
    "CleanAndJerk",
    "CliffDiving",
    "CricketBowling",
    "CricketShot",
    "Diving",
    "FrisbeeCatch",
    "GolfSwing",
    "HammerThrow",
    "HighJump",
    "JavelinThrow",
    "LongJump",
    "PoleVault",
    "Shotput",
    "SoccerPenalty",
    "TennisSwing",
    "ThrowDiscus",
    "VolleyballSpiking",
)
# numbers of EPIC's nouns that never occur
EPIC_UNUSED_NOUNS = (270, 275, 286, 289, 290, 294, 296)
