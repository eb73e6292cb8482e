"""Nouns and verbs, detected by two networks on the same video, fused into actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from actionformer.data.view import View
from actionformer.detection.decode import best_pairs, decode
from actionformer.detection.levels import levels_of_views
from actionformer.detection.nms import Detections
from actionformer.detection.predict import by_video, in_seconds, of_video
from actionformer.model.actionformer import ActionFormer
from actionformer.params.experiment import InferenceParams

BEST_PER_POINT = 10


@torch.inference_mode()
def predict_actions(
    noun: ActionFormer,
    verb: ActionFormer,
    views: Sequence[View],
    params: InferenceParams,
    nouns: Sequence[str],
    verbs: Sequence[str],
    device: str = "cpu",
) -> dict[str, list[dict[str, Any]]]:
    """Video -> detections {"segment", "verb", "noun", "score"}, best first.

    NMS runs within every pair of the two.
    """
    found: dict[int, Detections] = {}
    every = levels_of_views(
        [noun, verb], views, batch_size=params.batch_size, device=device, what="detect actions"
    )
    for place, (noun_levels, verb_levels) in every:
        best = fuse(decode(noun_levels, 0), decode(verb_levels, 0), params)
        found[place] = in_seconds(views[place], best, params)
    sliding = any(view.window is not None for view in views)
    pairs = [(verb_name, noun_name) for verb_name in verbs for noun_name in nouns]
    # while NMS runs, an action's label is the number of its pair
    numbers = [str(number) for number in range(len(pairs))]
    results: dict[str, list[dict[str, Any]]] = {}
    for video, parts in by_video(views, found).items():
        results[video] = []
        for detection in of_video(video, parts, params, numbers, sliding=sliding):
            verb_name, noun_name = pairs[int(detection["label"])]
            action = {
                "segment": detection["segment"],
                "verb": verb_name,
                "noun": noun_name,
                "score": detection["score"],
            }
            results[video].append(action)
    return results


def fuse(
    noun: tuple[Tensor, Tensor], verb: tuple[Tensor, Tensor], params: InferenceParams
) -> tuple[Tensor, Tensor, Tensor]:
    """Segments (N, 2), scores (N,) and labels (N,) of actions, best first.

    Verb v and noun n have label v * (number of nouns) + n. At every point the ten best verbs meet
    the ten best nouns, A pairs in all: the two segments are averaged, the score is
    sqrt(noun * verb). Of these candidates go on what would of a network's own: `best_pairs`.

    Args:
        noun: segments (P, 2) and scores (P, K) of all points, as `decode` gives them.
        verb: the same of the verb network, at the same points.
    """
    (noun_segments_P2, noun_scores_PK), (verb_segments_P2, verb_scores_PK) = noun, verb
    nouns, verbs = noun_scores_PK.shape[1], verb_scores_PK.shape[1]
    segments_P2 = (noun_segments_P2 + verb_segments_P2) / 2
    noun_best = noun_scores_PK.topk(min(BEST_PER_POINT, nouns), dim=1)
    verb_best = verb_scores_PK.topk(min(BEST_PER_POINT, verbs), dim=1)
    scores_PA = (verb_best.values[:, :, None] * noun_best.values[:, None, :]).sqrt().flatten(1)
    labels_PA = (verb_best.indices[:, :, None] * nouns + noun_best.indices[:, None, :]).flatten(1)
    pair_N = best_pairs(scores_PA, params)
    point_N = torch.div(pair_N, scores_PA.shape[1], rounding_mode="floor")
    return segments_P2[point_N], scores_PA.flatten()[pair_N], labels_PA.flatten()[pair_N]
