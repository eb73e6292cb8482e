"""Ego4D Moment Queries: JSON of videos > clips > annotators > labels.

Publisher: https://ego4d-data.org/docs/data/annotations-schemas (`moments_train.json`,
`moments_val.json`; licence agreement needed). Fields:
    version, date, description, manifest, videos: [
      video_uid, split, clips: [
        clip_uid, source_clip_uid, video_start_sec, video_end_sec, video_start_frame,
        video_end_frame, clip_start_sec, clip_end_sec, clip_start_frame, clip_end_frame,
        annotations: [
          annotator_uid, labels: [
            label, primary, start_time, end_time (s within the clip), start_frame, end_frame,
            video_start_time, video_end_time, video_start_frame, video_end_frame ]]]]

A clip is what the tables call a video. Labels of all annotators count, those marked `primary` only.
Also read: OpenTAD's converted form (`ego4d_v2_220429.json`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actionformer.data.publishers import database_json
from actionformer.errors import InputError
from actionformer.files.reading import read_object
from actionformer.files.values import as_given, items_of, text_of


def convert(paths: list[Path]) -> dict[str, Any]:
    """Database of clips; `frame` is the clip's number of frames in the full video."""
    database: dict[str, Any] = {}
    for path in paths:
        content = read_object(path)
        if "database" in content:
            database |= database_json.convert([path])
            continue
        if not isinstance(content.get("videos"), list):
            raise InputError(f"{path}: expected a JSON object with the key 'videos'")
        for video in content["videos"]:
            try:
                for clip in items_of(video.get("clips", [])):
                    uid = text_of(clip["clip_uid"])
                    if uid in database:
                        raise ValueError(f"clip '{uid}' occurs twice")
                    database[uid] = _clip(clip, text_of(video["split"]))
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                uid = video.get("video_uid", "?") if isinstance(video, dict) else "?"
                raise InputError(
                    f"{path}: video '{uid}': missing or malformed key ({error})"
                ) from None
    return database


def _clip(clip: dict[str, Any], subset: str) -> dict[str, Any]:
    annotations = []
    for annotator in items_of(clip["annotations"]):
        for label in items_of(annotator["labels"]):
            if label["primary"]:
                segment = [as_given(label["start_time"]), as_given(label["end_time"])]
                annotations.append({"segment": segment, "label": text_of(label["label"])})
    return {
        "subset": subset,
        "duration": as_given(clip["video_end_sec"]) - as_given(clip["video_start_sec"]),
        "frame": as_given(clip["video_end_frame"]) - as_given(clip["video_start_frame"]),
        "annotations": annotations,
    }
