"""Weights that ship: `python -m benchmarks.pretrain --stocks FILE --crypto FILE`.

Three quarters of the assets of a file, in the order of their names, up to a date; the others and
what came after it are kept for measuring. The same files give the same bytes on the same machine.

`--measured FILE`, the JSON of the study `new-listing --weights NAME`, writes what was measured of
weights into their card; nothing is trained.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd

from maml_jax.data import read_bars
from maml_jax.errors import ConfigError, MamlJaxError
from maml_jax.risk.histories import make_histories
from maml_jax.risk.model import CARD, PRETRAINED, RiskModel, save_model
from maml_jax.risk.training import RiskSettings, train_risk

MARKETS = {
    "stocks-daily": ("1D", "2009-12-31", RiskSettings()),
    "crypto-hourly": ("1h", "2024-05-31", RiskSettings(horizons=(1, 24, 72))),
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


def record_measured(path: Path, out: Path) -> Path:
    """Write what a study measured of weights into their card; the weights stay as they are.

    Args:
        path: the JSON of `new-listing`.
        out: folder in which weights lie, each in a folder of its name.

    Returns:
        The card.

    Raises:
        ConfigError: if the file is no such study, or of no weights in the folder.
    """
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
        digest = study["weights"]["given"]
        r2 = study["r2"]["model-ensemble"]
        tails = study["tails"]
    except OSError as error:
        raise ConfigError(f"--measured {path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--measured {path}: needs the JSON that new-listing --weights NAME wrote, with its "
            f"parts volatility and tails: {error}"
        ) from error
    for card in sorted(out.glob(f"*/{CARD}")):
        known = json.loads(card.read_text(encoding="utf-8"))
        if known["sha256"] == digest:
            known["measured"] = {
                "study": "new-listing",
                "bars": study["bars"],
                "r2": {age: round(values[0], 4) for age, values in r2.items()},
                "coverage": _coverage(known["name"], tails),
            }
            card.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
            return card
    raise ConfigError(
        f"--measured {path}: is of weights whose sha256 is {digest}; there are none in {out}"
    )


def _coverage(name: str, tails: dict[str, Any]) -> dict[str, Any]:
    """Return how often VaR was passed, by horizon, level and age."""
    from benchmarks.reproduce.new_listing_market import MARKETS as MEASURED
    from benchmarks.reproduce.new_listing_tails import LEVELS

    ages = MEASURED[name.partition("-")[0]].tail_ages
    return {
        horizon: {
            f"{level:g}": {
                str(age): round(share, 4) for age, share in zip(ages, shares, strict=True)
            }
            for level, shares in zip(LEVELS, judged["coverage"]["model"], strict=True)
        }
        for horizon, judged in tails.items()
    }


def main() -> None:
    """Train, and write the weights into the package; or write what was measured of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stocks", type=Path, help="daily bars of stocks")
    parser.add_argument("--crypto", type=Path, help="hourly bars of coins")
    parser.add_argument("--out", type=Path, default=PRETRAINED, help="default: the package")
    parser.add_argument(
        "--measured", type=Path, action="append", default=[], help="JSON of a study; repeatable"
    )
    given = parser.parse_args()
    try:
        for name, path in (("stocks-daily", given.stocks), ("crypto-hourly", given.crypto)):
            if path is not None:
                save_model(pretrain(name, path), given.out / name)
        for path in given.measured:
            print(record_measured(path, given.out))
    except MamlJaxError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
