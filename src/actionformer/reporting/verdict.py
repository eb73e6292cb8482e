"""Is a published number reproduced? What the seeds can say of it, and what they cannot.

Of n seeds with mean m and standard deviation s, one more run lies within

    m ± t(0.975, n - 1) s sqrt(1 + 1/n)

in 95 % of all cases, if seeds are independent and normal: Student's prediction interval. The
published number is one more run. The interval of three seeds is five deviations wide on either
side, so that noisy seeds would "reproduce" anything: where it is wide, the verdict is withheld.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
# half the width, in points of mAP, up to which a value within the interval is reproduced
WIDEST = 1.0


def tolerance(values: Sequence[float]) -> float | None:
    """How far one more run, such as the published one, may lie from the seeds' mean by chance.

    Half the width of the prediction interval, in the unit of the values; None for a single seed.
    """
    n = len(values)
    if n < 2:
        return None
    # half a second to import, which a table of single seeds need not wait for
    from scipy.special import stdtrit

    quantile = float(stdtrit(n - 1, 0.975))
    return quantile * statistics.stdev(values) * math.sqrt(1 + 1 / n)


def verdict(published: float, values: Sequence[float]) -> str:
    """Reproduced, not reproduced, or undecided.

    Args:
        published: in percent.
        values: of every seed, in percent.
    """
    allowed = tolerance(values)
    if allowed is None:
        return UNDECIDED
    if abs(published - statistics.fmean(values)) > allowed:
        return NOT_REPRODUCED
    return REPRODUCED if allowed <= WIDEST else UNDECIDED
