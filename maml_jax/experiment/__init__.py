"""Settings in, results out: what a notebook and the command line call."""

from .adapt import Adapted as Adapted
from .adapt import adaptation_table as adaptation_table
from .adapt import load_adapted as load_adapted
from .compare import Comparison as Comparison
from .compare import compare as compare
from .config import Config as Config
from .config_file import load_config as load_config
from .lookahead import LookAheadReport as LookAheadReport
from .lookahead import check_lookahead as check_lookahead
from .result import Result as Result
from .result import load as load
from .run import backtest as backtest
from .run import run as run
from .run import train as train
