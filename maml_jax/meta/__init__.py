"""The mechanism, on any pytree of arrays; it knows nothing of markets, pandas or files."""

from .conditioned import conditioned_rates as conditioned_rates
from .gradients import GradientMode as GradientMode
from .gradients import exact as exact
from .gradients import first_order as first_order
from .implicit import implicit as implicit
from .inner_loop import descend as descend
from .learned import LearnedOptimizer as LearnedOptimizer
from .learned import learned_rates as learned_rates
from .losses import cross_entropy as cross_entropy
from .losses import gaussian_likelihood as gaussian_likelihood
from .losses import huber as huber
from .losses import squared_error as squared_error
from .mixed_mode import mixed_mode as mixed_mode
from .outer_loop import MetaInfo as MetaInfo
from .outer_loop import MetaState as MetaState
from .outer_loop import fit as fit
from .outer_loop import meta_init as meta_init
from .outer_loop import meta_step as meta_step
from .parallel import map_tasks as map_tasks
from .types import Batch as Batch
from .types import MetaLearner as MetaLearner
from .types import Model as Model
from .types import Prediction as Prediction
from .types import Task as Task
