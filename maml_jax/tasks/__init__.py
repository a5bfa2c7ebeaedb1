"""Where bars and arrays meet: the Panel, families of tasks, and the sampler over them."""

from maml_jax.tasks.families import (
    Windows,
    asset_family,
    bars_needed,
    label_family,
    mix_families,
    period_family,
    period_labels,
    regime_family,
    strategy_family,
)
from maml_jax.tasks.panel import Panel, make_panel
from maml_jax.tasks.pools import Layout, SupportRows, support_parts
from maml_jax.tasks.rows import labelled_rows
from maml_jax.tasks.sampler import MarketSampler, market_sampler

__all__ = [
    "Layout",
    "MarketSampler",
    "Panel",
    "SupportRows",
    "Windows",
    "asset_family",
    "bars_needed",
    "label_family",
    "labelled_rows",
    "make_panel",
    "market_sampler",
    "mix_families",
    "period_family",
    "period_labels",
    "regime_family",
    "strategy_family",
    "support_parts",
]
