r"""Dynamic time warping of one path against many."""

import numpy as np
from jaxtyping import Float


def warping_distance(
    path: Float[np.ndarray, " bar"], others: Float[np.ndarray, "other bar"], *, band: int
) -> Float[np.ndarray, " other"]:
    r"""Distance of a path from others of the same length, bars matched as suits them best.

    $$D_{i,j} = (p_i - q_j)^2 + \min(D_{i-1,j}, D_{i,j-1}, D_{i-1,j-1}), \qquad |i - j| \le w$$

    and $\sqrt{D_{L,L}}$. With a band of 0 it is the Euclidean distance.

    Args:
        path: $p$, of at least one bar.
        others: $q$.
        band: $w$, how many bars apart two bars may be and still match.

    Raises:
        ValueError: if the lengths differ or the band is negative.

    Reference:
        Sakoe and Chiba (1978), Dynamic programming algorithm optimization for spoken word
        recognition.

    >>> warping_distance(np.array([0.0, 1.0, 1.0]), np.array([[0.0, 0.0, 1.0]]), band=1)
    array([0.])
    """
    length = len(path)
    if others.ndim != 2 or others.shape[1] != length or not length:
        raise ValueError(f"a path of {length} bars is compared with others of {others.shape}")
    if band < 0:
        raise ValueError(f"a band has at least 0 bars, not {band}")
    # One row of D at a time, of all others; the first column stands before the first bar.
    q = np.ascontiguousarray(others.T)
    last = np.full((length + 1, others.shape[0]), np.inf)
    last[0] = 0.0
    for i, value in enumerate(path):
        low, high = max(i - band, 0), min(i + band, length - 1)
        row = np.full_like(last, np.inf)
        cost = (value - q[low : high + 1]) ** 2
        above = np.minimum(last[low + 1 : high + 2], last[low : high + 1])
        for place, j in enumerate(range(low, high + 1)):
            row[j + 1] = cost[place] + np.minimum(above[place], row[j])
        last = row
    return np.sqrt(last[-1])
