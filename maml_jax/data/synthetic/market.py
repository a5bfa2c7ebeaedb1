"""What all simulated markets share: assets, times, correlated noise, and bars around a path."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from maml_jax.data.interval import Interval, parse_interval
from maml_jax.errors import DataError

PIECES = 6
"""Into how many parts a bar is cut. The extremes of one part are drawn independently of each other;
with six parts the mean square of a bar's range is right within a tenth of a per cent."""

STREAMS = ("noise", "scale", "gap", "path", "extremes", "volume", "regime", "coefficients", "past")
"""What has random numbers of its own, so that one never shifts another."""

_LONGEST = 600.0
"""The farthest that a price may move on a log scale; beyond 709 a float64 overflows."""


class Simulated(NamedTuple):
    """Simulated bars, and what only the simulator knows.

    Attributes:
        bars: `{asset: bars}` in normal form, open high low close volume.
        truth: `[time, asset]`; what it holds is said by the function that made it.
    """

    bars: dict[str, pd.DataFrame]
    truth: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Market:
    """The settings that all simulated markets share.

    Each asset has random numbers of its own, drawn in the order of time: more bars continue a
    market of fewer, and more assets leave the others as they are.

    Attributes:
        count: bars of each asset.
        assets: how many, called A0, A1 and so on; or their names.
        seed: decides everything that is random; at least 0.
        start: when the first bar opens; UTC where it names no zone.
        interval: from one bar to the next, as for `fetch` ("1h", "5m", "1d", "1mo"), as pandas
            writes it ("B"), or a Timedelta.
        correlation: of the noise of any two assets, or a matrix `[asset, asset]`.
        price: before the first bar; one number, or one per asset.
        volume: of a typical bar that ends where it began; one number, or one per asset.
        gap: share of a bar's variance that passes between the last close and its open, in [0, 1).
            At 0 each bar opens at the last close.

    Raises:
        ValueError: if a setting is impossible.
    """

    count: int
    assets: int | str | Sequence[str] = 1
    seed: int = 0
    start: str | pd.Timestamp = "2000-01-01"
    interval: str | Interval | pd.Timedelta = "D"
    correlation: ArrayLike = 0.0
    price: ArrayLike = 100.0
    volume: ArrayLike = 1000.0
    gap: float = 0.0

    def __post_init__(self):
        for name, least in (("count", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value}")
        known = isinstance(self.assets, int | np.integer | Iterable)
        if not known or not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"assets must be a number from 1 or different names: {self.assets}")
        self.per_asset("price", self.price, above=0)
        self.per_asset("volume", self.volume, above=0)
        if not 0 <= self.gap < 1:
            raise ValueError(f"gap must lie in [0, 1), got {self.gap}")
        _ = self.times, self.mixing  # each refuses what it cannot be made of

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The assets."""
        if isinstance(self.assets, int | np.integer):
            return tuple(f"A{i}" for i in range(self.assets))
        return (self.assets,) if isinstance(self.assets, str) else tuple(map(str, self.assets))

    @cached_property
    def times(self) -> pd.DatetimeIndex:
        """When the bars open."""
        try:
            start = pd.Timestamp(self.start)
            start = start.tz_localize("UTC") if start.tz is None else start.tz_convert("UTC")
            step = _frequency(self.interval)
            times = pd.date_range(start, periods=self.count, freq=step, name="timestamp", unit="us")
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(
                f"start {self.start!r} and interval {self.interval!r} do not give {self.count} "
                f"times: {error}"
            ) from error
        if not (times.is_unique and times.is_monotonic_increasing):
            raise ValueError(f"interval must be positive, got {self.interval!r}")
        times.freq = None  # pyright: ignore[reportAttributeAccessIssue]
        return times

    @cached_property
    def mixing(self) -> np.ndarray:
        """The lower triangle L with L L' the correlation of the noise, `[asset, asset]`."""
        count = len(self.names)
        matrix = np.asarray(self.correlation, float)
        if matrix.ndim == 0:
            matrix = np.where(np.eye(count, dtype=bool), 1.0, matrix)
        if matrix.shape != (count, count):
            raise ValueError(
                f"correlation must be a number or of shape ({count}, {count}), got {matrix.shape}"
            )
        if not (np.allclose(matrix, matrix.T) and np.allclose(np.diag(matrix), 1)):
            raise ValueError("correlation must be symmetric with ones on the diagonal")
        smallest = np.linalg.eigvalsh(matrix)[0]
        if smallest < -1e-8:
            raise ValueError(
                "correlation must be positive semi-definite, "
                f"but its smallest eigenvalue is {smallest:.3g}"
            )
        return _triangle(matrix)

    def per_asset(
        self,
        name: str,
        value: ArrayLike,
        *,
        least: float = -np.inf,
        above: float = -np.inf,
        below: float = np.inf,
    ) -> np.ndarray:
        """Spread a setting over the assets, `[asset, 1]`.

        Raises:
            ValueError: if it is not finite, out of its bounds, or of another number of assets.
        """
        values = np.asarray(value, float)
        if values.shape not in ((), (len(self.names),)):
            raise ValueError(
                f"{name} must be one number or one for each of {len(self.names)} assets, "
                f"got shape {values.shape}"
            )
        inside = np.isfinite(values) & (values >= least) & (values > above) & (values < below)
        if not inside.all():
            bounds = [
                text
                for text, bound in (
                    (f"at least {least:g}", least),
                    (f"above {above:g}", above),
                    (f"below {below:g}", below),
                )
                if np.isfinite(bound)
            ]
            raise ValueError(f"{name} must be {' and '.join(bounds) or 'finite'}, got {value}")
        return np.broadcast_to(values, len(self.names))[:, None]

    def generator(self, stream: str, asset: int = 0) -> np.random.Generator:
        """Return the random numbers of one purpose and one asset, from their beginning."""
        key = (STREAMS.index(stream), asset)
        return np.random.default_rng(np.random.SeedSequence(int(self.seed), spawn_key=key))

    def normals(self, stream: str, *shape: int) -> np.ndarray:
        """Draw independent standard normals, `[asset, *shape]`."""
        draws = [self.generator(stream, i).standard_normal(shape) for i in range(len(self.names))]
        return np.stack(draws)

    def noise(self, degrees: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        r"""Draw correlated noise of mean 0 and variance 1.

        $$\epsilon = s\, L\, n, \qquad s^2 = (\nu - 2) / \chi^2_\nu$$

        Student's noise of correlated assets is multivariate: $s$ is the same for all of them, so
        that the correlation is as asked and large shocks come together.

        Args:
            degrees: of freedom $\nu$ of Student's t, above 2; None for Gaussian noise.

        Returns:
            The noise and its scale $s$, `[asset, time]`.

        Raises:
            ValueError: if the noise would have no variance.
        """
        normals, mixing = self.normals("noise", self.count), self.mixing
        # Summed one by one: a matrix product may round differently where there are more bars.
        mixed = [
            sum(mixing[i, j] * normals[j] for j in range(i + 1) if mixing[i, j])
            for i in range(len(normals))
        ]
        if degrees is None:
            return np.stack(mixed), np.ones_like(normals)
        if not 2 < degrees < np.inf:
            raise ValueError(
                f"degrees must be above 2 for a finite variance, and finite, got {degrees}"
            )
        alone = np.array_equal(mixing, np.eye(len(mixing)))
        draws = [
            self.generator("scale", i).chisquare(degrees, self.count)
            for i in range(len(normals) if alone else 1)
        ]
        scale = np.broadcast_to(((degrees - 2) / np.stack(draws)) ** 0.5, normals.shape)
        return np.stack(mixed) * scale, scale

    def table(self, values: np.ndarray) -> pd.DataFrame:
        """Label values `[asset, time]`, as `[time, asset]`."""
        return pd.DataFrame(values.T, index=self.times, columns=list(self.names))

    def bars(
        self, returns: np.ndarray, deviation: np.ndarray, typical: np.ndarray
    ) -> dict[str, pd.DataFrame]:
        r"""Put bars around paths of closing prices.

        On a log scale the price moves within a bar as a Brownian motion that is tied to the open
        $a$ and the close $b$. The extremes of such a bridge of variance $v$ are drawn by inverting
        their distribution, with E standard exponential:

        $$\max, \min = \tfrac12 \left(a + b \pm \sqrt{(b - a)^2 + 2 v E}\right)$$

        Volume is $V (1 + |r| / \sigma) \exp(0.3\, n)$ with r the bar's return.

        Args:
            returns: log returns from close to close, `[asset, time]`.
            deviation: standard deviation of the bar's Brownian motion, `[asset, time]`.
            typical: standard deviation of returns over all time, the $\sigma$ of volume,
                `[asset, 1]`.

        Returns:
            `{asset: bars}` in normal form.

        Raises:
            ValueError: if a price leaves what numbers can hold.
        """
        closes = np.cumsum(returns, axis=1)
        far = ~(np.abs(closes) < _LONGEST)
        if far.any():
            asset, bar = (int(k[0]) for k in np.nonzero(far))
            raise ValueError(
                f"the price of {self.names[asset]} leaves what numbers can hold at bar {bar}; "
                "simulate fewer bars, or lower the drift or the volatility"
            )
        prices = self.per_asset("price", self.price, above=0)[:, 0]
        volumes = self.per_asset("volume", self.volume, above=0)[:, 0]
        result = {}
        for i, name in enumerate(self.names):
            levels = self._levels(i, closes[i], returns[i], deviation[i])
            open_, high, low, close = prices[i] * np.exp(levels)
            moves = np.abs(returns[i]) / typical[i] if typical[i] > 0 else 0.0
            normals = self.generator("volume", i).standard_normal(self.count)
            columns = {
                "open": open_,
                "high": np.maximum(high, np.maximum(open_, close)),
                "low": np.minimum(low, np.minimum(open_, close)),
                "close": close,
                "volume": volumes[i] * (1 + moves) * np.exp(0.3 * normals),
            }
            result[name] = pd.DataFrame(columns, index=self.times)
        return result

    def _levels(self, asset, closes, returns, deviation) -> np.ndarray:
        """Return log open, high, low and close of one asset over its first price, `[4, time]`."""
        opens = np.concatenate([[0.0], closes[:-1]])
        if self.gap:
            normals = self.generator("gap", asset).standard_normal(self.count)
            spread = (self.gap * (1 - self.gap)) ** 0.5 * deviation
            opens = opens + self.gap * returns + spread * normals
        variance = (1 - self.gap) * deviation[:, None] ** 2 / PIECES
        steps = self.generator("path", asset).standard_normal((self.count, PIECES))
        free = np.cumsum(steps * variance**0.5, axis=1)
        part = np.arange(1, PIECES + 1) / PIECES
        ends = opens[:, None] + free + part * ((closes - opens)[:, None] - free[:, -1:])
        starts = np.concatenate([opens[:, None], ends[:, :-1]], axis=1)
        shape = (self.count, 2, PIECES)
        draws = self.generator("extremes", asset).standard_exponential(shape)
        reach = np.sqrt((ends - starts)[:, None] ** 2 + 2 * variance[:, None] * draws)
        high = (starts + ends + reach[:, 0]).max(axis=1) / 2
        low = (starts + ends - reach[:, 1]).min(axis=1) / 2
        return np.stack([opens, high, low, closes])


def _triangle(matrix: np.ndarray) -> np.ndarray:
    """Cholesky's factor of a matrix that may be singular: a pivot of 0 leaves its column empty."""
    lower = np.zeros_like(matrix)
    for j in range(len(matrix)):
        column = matrix[j:, j] - lower[j:, :j] @ lower[j, :j]
        if column[0] > 1e-7:
            lower[j:, j] = column / column[0] ** 0.5
    return lower


def _frequency(interval: str | Interval | pd.Timedelta) -> str | pd.Timedelta | pd.DateOffset:
    if isinstance(interval, pd.Timedelta):
        return interval
    try:
        known = parse_interval(interval)
    except DataError:
        return str(interval)
    return pd.DateOffset(months=known.count) if known.unit == "mo" else known.step
