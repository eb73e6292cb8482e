"""What the published implementations take, and which ratios ours has to reach.

The faster of OpenTAD and actionformer_release, everything padded to `max_seq_len`, two threads, on
a machine that multiplies float32 matrices of 2048 x 2048 at `MATRIX_RATE`.
"""

from __future__ import annotations

from dataclasses import dataclass

MATRIX_RATE = 131e9


@dataclass(frozen=True)
class Peer:
    """At full length: seconds of a step and of one video's forward pass, bytes of memory."""

    batch: int
    step: float
    forward: float
    memory: float


@dataclass(frozen=True)
class Evaluation:
    """Seconds of mAP, from parsed detections."""

    videos: int
    detections: int
    classes: int
    thresholds: int
    seconds: float


PEERS = {
    "thumos14_i3d": Peer(2, 6.1, 0.89, 2.7e9),
    "activitynet_tsp": Peer(16, 1.35, 0.079, 1.1e9),
    "ego4d_slowfast": Peer(2, 3.0, 0.48, 2.0e9),
    "charades_i3d_rgb": Peer(4, 4.1, 0.40, 2.2e9),
}
# row -> seconds from the decoded points of one full-length video to its detections
POST_PROCESSING = {
    "thumos14_i3d": 0.050,
    "multithumos_i3d": 0.188,
    "epic_verb_slowfast": 0.098,
    "epic_noun_slowfast": 0.254,
    "ego4d_slowfast": 0.092,
    "activitynet_tsp": 0.0066,
}
# segments of one class -> seconds
SOFT_NMS = {2000: 0.047, 8000: 0.422}
EVALUATIONS = [Evaluation(211, 422_000, 20, 5, 170.0), Evaluation(4_728, 945_600, 200, 10, 440.0)]
# seconds of one pass over the features of 200 THUMOS-14 videos
LOADING = 7.8

# floors of ratios: a step at full length; an epoch and inference on real lengths; the rest
STEP_FLOOR = 1.15
EPOCH_FLOORS = {"thumos14_i3d": 1.6, "epic_verb_slowfast": 2.1, "charades_i3d_rgb": 4.0}
INFERENCE_FLOORS = {"thumos14_i3d": 1.9, "epic_verb_slowfast": 3.3, "charades_i3d_rgb": 4.5}
POST_PROCESSING_FLOOR, EVALUATION_FLOOR, LOADING_FLOOR = 5, 200, 3
