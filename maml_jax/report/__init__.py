"""Figures and the tear sheet."""

from .figures import plot_adaptation as plot_adaptation
from .figures import plot_drawdown as plot_drawdown
from .figures import plot_equity as plot_equity
from .figures import plot_training as plot_training
from .tear_sheet import TearSheet as TearSheet
from .tear_sheet import render as render
