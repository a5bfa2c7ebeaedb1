"""Weights that ship: `python -m benchmarks.pretrain --stocks FILE --crypto FILE`.

Three quarters of the assets of a file, in the order of their names, up to a date; the others and
what came after it are kept for measuring. The same files give the same bytes on the same machine.
"""

import argparse
import hashlib
import time
from pathlib import Path

import pandas as pd

from maml_jax.data import read_bars
from maml_jax.risk.histories import make_histories
from maml_jax.risk.model import PRETRAINED, RiskModel, save_model
from maml_jax.risk.training import RiskSettings, train_risk

MARKETS = {
    "stocks-daily": ("1D", "2009-12-31", RiskSettings()),
    "crypto-hourly": ("1h", "2024-05-31", RiskSettings(horizons=(1, 5, 24, 72))),
}
"""Of each model: the length of its bars, the last day of training, the settings."""


def split_assets(names: list[str]) -> tuple[list[str], list[str]]:
    """Return the assets to train on, and the unseen ones: the last quarter by name."""
    count = len(names) // 4
    return names[:-count], names[-count:]


def pretrain(name: str, path: Path, settings: RiskSettings | None = None) -> RiskModel:
    """Train the weights of a name on a file of bars."""
    interval, end, usual = MARKETS[name]
    settings = settings or usual
    frames = read_bars(path)
    names = sorted(frames)
    seen, unseen = split_assets(names)
    histories = make_histories({asset: frames[asset] for asset in names})
    stop = pd.Timestamp(end, tz="UTC") + pd.Timedelta(days=1)
    assets = [names.index(asset) for asset in seen]
    last = [int(histories.times[asset].searchsorted(stop)) - 1 for asset in assets]
    began = time.perf_counter()
    model = train_risk(
        histories,
        name=name,
        interval=pd.Timedelta(interval),
        assets=assets,
        last=last,
        settings=settings,
        report=lambda text: print(
            f"{name}: {text}, {time.perf_counter() - began:.0f} s", flush=True
        ),
    )
    first = min(histories.times[asset][0] for asset in assets)
    card = {
        "about": f"{len(seen)} assets, {first:%Y-%m-%d} to {end}",
        "data": {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "train_assets": seen,
            "unseen_assets": unseen,
            "first": f"{first:%Y-%m-%d}",
            "last": end,
        },
        "settings": settings._asdict(),
    }
    return model._replace(card=card)


def main() -> None:
    """Train, and write the weights into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stocks", type=Path, help="daily bars of stocks")
    parser.add_argument("--crypto", type=Path, help="hourly bars of coins")
    parser.add_argument("--out", type=Path, default=PRETRAINED, help="default: the package")
    given = parser.parse_args()
    for name, path in (("stocks-daily", given.stocks), ("crypto-hourly", given.crypto)):
        if path is not None:
            save_model(pretrain(name, path), given.out / name)


if __name__ == "__main__":
    main()
