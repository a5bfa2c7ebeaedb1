"""Features and targets: pandas in, pandas out, functions of one asset's bars."""

from maml_jax.features.catalogue import feature_groups
from maml_jax.features.check import check_feature, refuse_look_ahead
from maml_jax.features.cross_section import add_cross_section, reads_cross_section
from maml_jax.features.feature import Feature, compute_features, lag_feature, longest_warm_up
from maml_jax.features.names import find_features
from maml_jax.features.registry import (
    import_features,
    is_imported,
    is_registered,
    register_feature,
)
from maml_jax.features.scaling import Scaler, fit_scaler
from maml_jax.features.signals.markov import (
    MarkovParameters,
    filter_regimes,
    fit_markov,
    markov_regimes,
)
from maml_jax.features.signals.regimes import REGIMES, label_regimes, market_regimes, regime_warm_up
from maml_jax.features.signals.strategies import (
    STRATEGIES,
    Rule,
    choose_pairs,
    make_rule,
    spread_bars,
    spread_market,
)
from maml_jax.features.targets import (
    Target,
    compute_scaled_target,
    compute_target,
    fill_return,
    fill_returns,
    fit_target,
    forward_return,
    forward_volatility,
    label_delay,
)
from maml_jax.features.technical import technical_features

__all__ = [
    "Feature",
    "MarkovParameters",
    "REGIMES",
    "Rule",
    "STRATEGIES",
    "Scaler",
    "Target",
    "add_cross_section",
    "check_feature",
    "choose_pairs",
    "compute_features",
    "compute_target",
    "feature_groups",
    "fill_return",
    "fill_returns",
    "filter_regimes",
    "find_features",
    "fit_markov",
    "fit_scaler",
    "fit_target",
    "forward_return",
    "forward_volatility",
    "import_features",
    "is_imported",
    "is_registered",
    "label_delay",
    "label_regimes",
    "lag_feature",
    "compute_scaled_target",
    "longest_warm_up",
    "make_rule",
    "market_regimes",
    "markov_regimes",
    "reads_cross_section",
    "refuse_look_ahead",
    "regime_warm_up",
    "register_feature",
    "spread_bars",
    "spread_market",
    "technical_features",
]
