"""What strategies are called in results: those that stand beside the methods of a run."""

NO_ADAPTATION = "no adaptation"
FROM_SCRATCH = "from scratch"
BUY_AND_HOLD = "buy and hold"
FOLLOW = "follow every rule"
RANDOM = "random positions"
MOMENTUM = "momentum"
RIDGE = "ridge regression"
TREES = "gradient-boosted trees"
TRAILING = "trailing volatility"
POOLED_HAR = "har"
EWMA = "ewma"
INCREMENTAL = "incremental"


def online_name(method: str, variant: str) -> str:
    """Return what a variant of a method that goes on learning is called.

    >>> online_name("maml", "online"), online_name("maml", "incremental")
    ('maml online', 'incremental')
    """
    return INCREMENTAL if variant == INCREMENTAL else f"{method} {variant}"
