"""Which of several forecasts may be the best, with so much confidence."""

import numpy as np
import pandas as pd


def model_confidence_set(
    losses: pd.DataFrame,
    *,
    size: float = 0.1,
    block: int = 63,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Find the models among which the best one is, with a confidence of 1 - `size`.

    The worst model is removed as long as a test rejects that all that are left have the same
    expected loss: of the largest difference between two of them, by the stationary bootstrap over
    times.

    Args:
        losses: `[time, model]`, such as means over assets; a time at which a model has none is left
            out for all.
        size: of the test.
        block: mean length of a block in times; several horizons.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        One row per model, in the order of the columns: its mean `loss`, its `p_value`, the largest
        size at which it would still be in the set, and whether it is `included`.

    Raises:
        ValueError: if there are fewer than two models, or fewer than two blocks of times with the
            losses of all, if one is infinite, or if two models have the same losses throughout.

    Reference:
        Hansen, Lunde, Nason (2011), The model confidence set.
    """
    if not 0 < size < 1 or block < 1 or draws < 1:
        raise ValueError(
            f"a size lies between 0 and 1, and blocks and draws are at least 1, got {size}, "
            f"{block} and {draws}"
        )
    table = losses.dropna()
    if table.shape[1] < 2 or len(table) < 2 * block:
        raise ValueError(
            f"a confidence set needs 2 models and {2 * block} times with all of their losses, and "
            f"there are {table.shape[1]} and {len(table)}"
        )
    values = table.to_numpy(float)
    if not np.isfinite(values).all():
        time, model = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"the loss of {table.columns[model]} at {table.index[time]} is infinite")
    twins = table.columns[np.unique(values, axis=1, return_index=True)[1]]
    if len(twins) < table.shape[1]:
        same = [str(name) for name in table.columns if name not in twins]
        raise ValueError(f"{', '.join(same)}: the losses are those of another model throughout")
    from arch.bootstrap import MCS

    found = MCS(values, size, reps=draws, block_size=block, method="R", seed=seed)
    found.compute()
    p_values = found.pvalues["Pvalue"].reindex(range(table.shape[1])).to_numpy()
    result = pd.DataFrame({"loss": values.mean(axis=0), "p_value": p_values}, index=table.columns)
    result["included"] = [number in found.included for number in range(table.shape[1])]
    return result.rename_axis("model")
