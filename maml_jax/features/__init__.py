"""Features and targets: pandas in, pandas out, functions of one asset's bars."""

from .catalogue import feature_groups as feature_groups
from .check import check_feature as check_feature
from .check import refuse_look_ahead as refuse_look_ahead
from .cross_section import add_cross_section as add_cross_section
from .cross_section import reads_cross_section as reads_cross_section
from .feature import Feature as Feature
from .feature import compute_features as compute_features
from .feature import lagged as lagged
from .feature import longest_warm_up as longest_warm_up
from .names import find_features as find_features
from .own import import_features as import_features
from .own import is_own as is_own
from .own import register_feature as register_feature
from .scaling import Scaler as Scaler
from .scaling import fit_scaler as fit_scaler
from .targets import Target as Target
from .targets import compute_target as compute_target
from .targets import fill_return as fill_return
from .targets import fill_returns as fill_returns
from .targets import fit_target as fit_target
from .targets import forward_return as forward_return
from .targets import forward_volatility as forward_volatility
from .targets import label_delay as label_delay
from .targets import learned_target as learned_target
from .technical import technical_features as technical_features
