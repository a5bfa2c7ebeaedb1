"""The algorithms: each is one function that returns a `MetaLearner`."""

from .alfa import alfa as alfa
from .alpaca import alpaca as alpaca
from .anil import anil as anil
from .baselines import from_scratch as from_scratch
from .baselines import joint_training as joint_training
from .bayesian import bayesian_maml as bayesian_maml
from .cavia import cavia as cavia
from .direction import direction as direction
from .double_adapt import double_adapt as double_adapt
from .ensemble import ensemble as ensemble
from .hierarchical import Level as Level
from .hierarchical import hierarchical as hierarchical
from .imaml import imaml as imaml
from .maml import maml as maml
from .maml_plus_plus import maml_plus_plus as maml_plus_plus
from .matching import matching as matching
from .meta_curvature import meta_curvature as meta_curvature
from .meta_sgd import meta_sgd as meta_sgd
from .prototypes import prototypes as prototypes
from .reptile import reptile as reptile
from .ridge import ridge as ridge
from .shared import AdaptationInfo as AdaptationInfo
from .shared import MetaParams as MetaParams
