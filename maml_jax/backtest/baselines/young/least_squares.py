r"""Least squares from sums of products, which add up over rows, assets and spans."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

_RIDGE = 1e-10
"""On the matrix of correlations: decides between columns that say the same."""

_CONSTANT = 1e-7
"""A column that varies by less, in units of its size, is left out."""

_ROWS_PER_COLUMN = 2
"""A fit on fewer rows than so many per column is none."""


class Design(NamedTuple):
    """Turns features into the columns of a regression.

    Attributes:
        low: least value of each feature; smaller ones are raised to it.
        high: greatest value.
        quadratic: whether squares and products are columns too.
    """

    low: Float[np.ndarray, " feature"]
    high: Float[np.ndarray, " feature"]
    quadratic: bool

    def __call__(
        self, features: Float[np.ndarray, "*row feature"]
    ) -> Float[np.ndarray, "*row column"]:
        x = np.clip(features, self.low, self.high)
        columns = [np.ones((*x.shape[:-1], 1)), x]
        if self.quadratic:
            first, second = np.triu_indices(x.shape[-1])
            columns.append(x[..., first] * x[..., second])
        return np.concatenate(columns, axis=-1)


def make_design(
    features: Float[np.ndarray, "row feature"], *, clip: float | None, quadratic: bool
) -> Design:
    """Bound features at so many deviations from their mean over the rows given.

    Raises:
        ValueError: if the bound is not positive.
    """
    count = features.shape[-1]
    if clip is None:
        return Design(np.full(count, -np.inf), np.full(count, np.inf), quadratic)
    if not clip > 0:
        raise ValueError(f"features are clipped at a positive number of deviations, not {clip}")
    rows = features[np.isfinite(features).all(axis=-1)]
    if not len(rows):
        return make_design(features, clip=None, quadratic=quadratic)
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    return Design(mean - clip * spread, mean + clip * spread, quadratic)


def sum_products(
    columns: Float[np.ndarray, "*batch row column"],
    label: Float[np.ndarray, "*batch row"],
    weight: Float[np.ndarray, "*batch row"] | Bool[np.ndarray, "*batch row"],
) -> Float[np.ndarray, "*batch product product"]:
    """Sums of weighted products of all columns and the label, which comes last.

    Rows with weight 0 or a missing value count for nothing.
    """
    joined = np.concatenate([columns, label[..., None]], axis=-1)
    whole = np.isfinite(joined).all(axis=-1) & (weight > 0)
    joined = np.where(whole[..., None], joined, 0.0)
    weighted = joined * np.where(whole, weight, 0.0)[..., None]
    return np.swapaxes(weighted, -1, -2) @ joined


def solve(
    products: Float[np.ndarray, "*batch product product"],
) -> Float[np.ndarray, "*batch column"]:
    """Coefficients of the columns, of which the first is the constant.

    Returns:
        0 for a column that does not vary; NaN where there are fewer than two rows per column that
        does.
    """
    rows = products[..., 0, 0]
    total = np.maximum(rows, 1e-300)[..., None]
    mean = products[..., 0, 1:] / total
    covariance = products[..., 1:, 1:] / total[..., None]
    size = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    covariance = covariance - mean[..., :, None] * mean[..., None, :]
    spread = np.sqrt(np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 0.0))
    varies = (spread > _CONSTANT * size)[..., :-1]
    scale = np.where(varies, spread[..., :-1], np.inf)
    eye = np.eye(scale.shape[-1])
    matrix = covariance[..., :-1, :-1] / scale[..., :, None] / scale[..., None, :]
    matrix = np.where(eye > 0, 1.0 + _RIDGE, matrix)
    slopes = np.linalg.solve(matrix, (covariance[..., :-1, -1] / scale)[..., None])[..., 0] / scale
    constant = mean[..., -1] - (mean[..., :-1] * slopes).sum(axis=-1)
    found = np.concatenate([constant[..., None], slopes], axis=-1)
    enough = rows >= _ROWS_PER_COLUMN * (1 + varies.sum(axis=-1))
    return np.where(enough[..., None], found, np.nan)
