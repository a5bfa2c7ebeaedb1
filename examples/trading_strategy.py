"""Walk forward with MAML on real history, list its trades, and compare with buying and holding.

python examples/trading_strategy.py [--steps META_STEPS] [--report FILE.html]
"""

import argparse

from maml_jax.experiment import Result, run

FIGURES = [
    "Return [%]",
    "Sharpe Ratio",
    "Sortino Ratio",
    "Max. Drawdown [%]",
    "Turnover (Ann.)",
    "# Trades",
    "Win Rate [%]",
    "Profit Factor",
]


def main(steps: int, report: str | None = None) -> Result:
    result = run(
        training={"steps": steps},
        learner={"methods": ["maml"]},
        target={"fill": "next_close", "horizon": 5},
        backtest={"threshold": 0.0, "fee": 0.001, "slippage": 0.0005},
    )
    print(result.stats.loc[FIGURES].astype(float).round(2).to_string())

    trades = result.trades[result.trades["strategy"] == "maml"]
    print("\nthe latest trades")
    print(trades.drop(columns="strategy").tail(10).to_string(index=False))

    equity = (1 + result.returns).cumprod()
    print("\ngrowth of 1, at each year's end")
    print(equity.groupby(equity.index.year).last().round(3).to_string())
    if report is not None:
        print(f"\nreport: {result.report(report)}")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500, help="meta-steps")
    parser.add_argument("--report", help="where to write the tear sheet")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.report)
