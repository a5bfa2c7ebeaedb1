"""Walk-forward, positions, costs, metrics: what a learner would have earned."""

from .calibration import calibration as calibration
from .forecasts import diebold_mariano as diebold_mariano
from .forecasts import of_variance as of_variance
from .forecasts import qlike as qlike
from .forecasts import r_squared as r_squared
from .forecasts import r_squared_difference as r_squared_difference
from .metrics import bars_per_year as bars_per_year
from .online import Online as Online
from .online import Updates as Updates
from .online import walk_online as walk_online
from .positions import confident_positions as confident_positions
from .positions import held_weights as held_weights
from .positions import kelly_positions as kelly_positions
from .positions import threshold_positions as threshold_positions
from .positions import volatility_target_positions as volatility_target_positions
from .regime_results import regime_results as regime_results
from .simulate import Costs as Costs
from .simulate import Simulation as Simulation
from .simulate import list_trades as list_trades
from .simulate import simulate as simulate
from .summary import skill as skill
from .summary import summarise as summarise
from .walk_forward import walk_forward as walk_forward
