"""The bars that the settings name, cleaned, and those that stand beside them."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from maml_jax.data import clean_bars, require_same_interval
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.preparation.bars import chosen
from maml_jax.experiment.preparation.regimes import needs_regimes
from maml_jax.features import reads_cross_section
from maml_jax.features.targets import require_moving_price


class Usable(NamedTuple):
    """Bars that can be used, cleaned.

    Attributes:
        bars: of the assets in use.
        rest: of assets that are only looked at.
        train_assets: that the settings name, or all; none where all was fitted before.
        test_assets: likewise.
        company: assets of meta-training that stand beside the tested ones.
        notes: what was done to the bars.
    """

    bars: dict[str, pd.DataFrame]
    rest: dict[str, pd.DataFrame]
    train_assets: list[str]
    test_assets: list[str]
    company: list[str]
    notes: tuple[str, ...]


def usable_bars(config: Config, given: Mapping[str, pd.DataFrame], trained: bool) -> Usable:
    """Choose and clean the bars that the settings name.

    Args:
        config: the settings.
        given: bars in normal form.
        trained: whether all was fitted before, so that none are trained on.

    Raises:
        ConfigError: if an asset is named that there is not.
        DataError: naming the asset whose bars will not do.
    """
    data = config.data
    train_assets = [] if trained else chosen("data.train_assets", data.train_assets, given)
    test_assets = chosen("data.test_assets", data.test_assets, given)
    company = _company(config, given) if trained else []
    bars = {a: b for a, b in given.items() if a in {*train_assets, *test_assets, *company}}
    rest = _rest_of_market(config, bars, given)
    require_same_interval({**bars, **rest})
    cleaned = clean_bars({**bars, **rest}, data.policies)
    bars, rest = ({name: cleaned.bars[name] for name in part} for part in (bars, rest))
    for asset, frame in bars.items():
        require_moving_price(frame, asset=asset)
    return Usable(bars, rest, train_assets, test_assets, company, tuple(cleaned.notes))


def _rest_of_market(
    config: Config, bars: Mapping[str, pd.DataFrame], given: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Return the bars of assets that are only looked at, by features of the cross-section.

    The market is made of the assets that are trained or tested on; in the backtest of a trained
    learner also of those it was trained on, where they are given, for it was their market too.
    """
    if not reads_cross_section(config.features.named()):
        return {}
    names = config.data.train_assets or ()
    return {name: given[name] for name in names if name in given and name not in bars}


def _company(config: Config, given: Mapping[str, pd.DataFrame]) -> list[str]:
    """List the assets of meta-training that stand beside those that are tested in a backtest.

    Where support sets, regimes or updates are of several assets, what was there when the run was
    made must be there again, as far as its bars are given.
    """
    spanning = (
        config.task.support_from != "asset"
        or config.online.variants
        # Baselines that are fitted on them:
        or config.target.kind == "volatility"
        or "trees" in config.backtest.baselines
        or (needs_regimes(config) and config.regimes.market_wide())
    )
    return [a for a in config.data.train_assets or () if a in given] if spanning else []
