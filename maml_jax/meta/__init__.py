"""The mechanism, on any pytree of arrays; it knows nothing of markets, pandas or files."""

from .gradients import GradientMode as GradientMode
from .gradients import exact as exact
from .gradients import first_order as first_order
from .inner_loop import descend as descend
from .losses import squared_error as squared_error
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
