"""Ego4D Moment Queries (https://ego4d-data.org/docs/data/annotations-schemas).

`moments_train.json`, `moments_val.json`: videos > clips > annotations (one per annotator) > labels,
primary or not. Three feature sets, each a zip of one npy per clip_uid; no list of missing videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from actionformer.synthetic import archives
from actionformer.synthetic.recordings import (
    HEX,
    Action,
    Content,
    Generator,
    Recording,
    at_frames,
    draw,
    generator,
    names,
    uniform,
)
from actionformer.synthetic.release import Extractor, Release

CLASSES = (
    "clean_/_wipe_a_table_or_kitchen_counter",
    "climb_up_/_down_a_ladder",
    "converse_/_interact_with_someone",
    "cut_dough",
    "dig_or_till_the_soil_by_hand",
    "drink_beverage",
    "fold_clothes_/_sheets",
    "hang_clothes_in_closet_/_on_hangers",
    "iron_clothes_or_sheets",
    "look_at_clothes_in_the_mirror",
    "play_board_game_or_card_game",
    "put_on_safety_equipment_(e.g._gloves,_helmet,_safety_goggles)",
    "read_a_book_/_magazine_/_shopping_list_etc.",
    "turn-on_/_light_the_stove_burner",
    "use_phone",
    "walk_down_stairs_/_walk_up_stairs",
    "wash_hands",
    "water_soil_/_plants_/_crops",
)
CLIPS = 96
FPS = 30
EXTRACTORS = (
    Extractor("mq_slowfast", "features/mq_slowfast.zip", 24, noise=0.8),
    Extractor("mq_egovlp", "features/mq_egovlp.zip", 16, noise=0.8),
    Extractor(
        "videomae_large_internvideo_img256_stride8_len16_interval1_ego4d",
        "features/videomae_large_internvideo_img256_stride8_len16_interval1_ego4d.zip",
        20,
        noise=0.8,
    ),
)
# of each: stride, offset
TIMING = {
    "mq_slowfast": (16, 16),
    "mq_egovlp": (16, 8),
    "videomae_large_internvideo_img256_stride8_len16_interval1_ego4d": (8, 4),
}


def write_demo(root: Path) -> None:
    """Ego4D's files of the demo edition under `root`."""
    rng = generator("ego4d")
    # of the clips, then of the videos that they are cut from
    uids = [uid(rng) for _ in range(2 * CLIPS)]
    content = Content(
        CLASSES, (60.0, 132.0), (4, 8), (4.0, 18.0), overlapping=True, decimals=2, fuzziness=0.36
    )
    clips = []
    for i in range(CLIPS):
        subset = "val" if i % 4 == 3 else "train"
        # some are longer than the model's window
        duration = 230.0 if i % 14 == 7 else None
        clips.append(draw(rng, uids[i], subset, float(FPS), content, duration))
    # the last one has no features
    release = Release(clips, CLASSES, EXTRACTORS, missing=[clips[-1].name])
    write(root, release, uids[CLIPS:], rng)


def write(root: Path, release: Release, videos: Sequence[str], rng: Generator) -> None:
    """Ego4D's files under `root`.

    Args:
        videos: of every clip the video that it is cut from.
        rng: draws where in its video a clip begins, and what a second annotator says.
    """
    folder = root / "ego4d"
    for subset in ("train", "val"):
        published = []
        for video, clip in zip(videos, release.recordings, strict=True):
            if clip.subset == subset:
                begin = round(uniform(rng, 0, 900), 1)
                one = _clip(rng, clip, begin)
                published.append({"video_uid": video, "split": subset, "clips": [one]})
        content = {
            "version": "v2",
            "date": "220429",
            "description": "Ego4D Moments Annotations (synthetic demo)",
            "manifest": "",
            "videos": published,
        }
        archives.write_json(folder / f"annotations/moments_{subset}.json", content)
    archives.write_classes(folder / "annotations/category_idx.txt", release.classes)
    for extractor in release.extractors:
        stride, offset = TIMING[extractor.key]
        centres = partial(at_frames, stride=stride, offset=offset, fps=FPS)
        archives.write_features(folder, release, extractor, centres, lists_missing=False)


def uid(rng: Generator) -> str:
    """The name of a video or clip."""
    return "-".join(names(rng, 1, length, HEX)[0] for length in (8, 4, 4, 4, 12))


def _clip(rng: Generator, clip: Recording, begin: float) -> dict[str, Any]:
    """A clip that begins at second `begin` of its video, with the labels of two annotators."""
    labels = [_label(action, begin, primary=True) for action in clip.actions]
    more = clip.actions[: int(rng.integers(3))]
    second = [_label(action, begin, primary=False) for action in more]
    return {
        "clip_uid": clip.name,
        "source_clip_uid": clip.name,
        "video_start_sec": begin,
        "video_end_sec": begin + clip.duration,
        "video_start_frame": round(begin * FPS),
        "video_end_frame": round(begin * FPS) + clip.frames,
        "clip_start_sec": 0,
        "clip_end_sec": clip.duration,
        "clip_start_frame": 0,
        "clip_end_frame": clip.frames,
        "annotations": [
            {"annotator_uid": "0", "labels": labels[::2] + second},
            {"annotator_uid": "1", "labels": labels[1::2]},
        ],
    }


def _label(action: Action, begin: float, *, primary: bool) -> dict[str, Any]:
    return {
        "label": action.label,
        "primary": primary,
        "start_time": action.start,
        "end_time": action.end,
        "start_frame": round(action.start * FPS),
        "end_frame": round(action.end * FPS),
        "video_start_time": begin + action.start,
        "video_end_time": begin + action.end,
        "video_start_frame": round((begin + action.start) * FPS),
        "video_end_frame": round((begin + action.end) * FPS),
    }
