"""A linear probe: classes of whole videos from the mean of their features.

For class-agnostic rows on new videos, which no published classifier has scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

# weight of the squared weights in the loss
PENALTY = 1e-3
ITERATIONS = 200


@dataclass(frozen=True)
class LinearProbe:
    """Softmax regression on standardised means of features."""

    mean_C: NDArray[np.float64]
    deviation_C: NDArray[np.float64]
    weights_CK: NDArray[np.float64]
    bias_K: NDArray[np.float64]

    def scores(self, pooled_C: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability (K,) of every class in a video."""
        standard_C = (pooled_C - self.mean_C) / self.deviation_C
        logits_K = standard_C @ self.weights_CK + self.bias_K
        exponentials_K = np.exp(logits_K - logits_K.max())
        result: NDArray[np.float64] = exponentials_K / exponentials_K.sum()
        return result


def pooled(features_TC: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean (C,) of a video's features."""
    result: NDArray[np.float64] = np.asarray(features_TC, np.float64).mean(0)
    return result


def fit(
    pooled_VC: NDArray[np.float64], labels: Sequence[Sequence[int]], classes: int
) -> LinearProbe:
    """The probe that fits videos best: least cross-entropy, by L-BFGS from zero; draws nothing.

    Args:
        pooled_VC: means of the features of videos.
        labels: of each of them the classes of its actions, at least one; a video of several counts
            for each of them in equal shares.
    """
    mean_C = pooled_VC.mean(0)
    deviation_C = pooled_VC.std(0)
    # a channel that is the same everywhere says nothing
    deviation_C = np.where(deviation_C > 0, deviation_C, 1.0)
    x_VC = torch.from_numpy((pooled_VC - mean_C) / deviation_C)
    target_VK = torch.zeros(len(labels), classes, dtype=torch.float64)
    for v, of_video in enumerate(labels):
        distinct = sorted(set(of_video))
        target_VK[v, distinct] = 1 / len(distinct)
    weights_CK = torch.zeros(x_VC.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias_K = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights_CK, bias_K], max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits_VK = x_VC @ weights_CK + bias_K
        value = -(target_VK * logits_VK.log_softmax(1)).sum(1).mean()
        value = value + PENALTY * weights_CK.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return LinearProbe(mean_C, deviation_C, weights_CK.detach().numpy(), bias_K.detach().numpy())
