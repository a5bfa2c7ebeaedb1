"""Meta-learning in JAX for models that adapt from a handful of examples."""

from maml_jax import learners as learners
from maml_jax import models as models
from maml_jax.errors import MamlJaxError as MamlJaxError
from maml_jax.learners import maml as maml
from maml_jax.meta import Batch as Batch
from maml_jax.meta import MetaInfo as MetaInfo
from maml_jax.meta import MetaLearner as MetaLearner
from maml_jax.meta import MetaState as MetaState
from maml_jax.meta import Model as Model
from maml_jax.meta import Prediction as Prediction
from maml_jax.meta import Task as Task
from maml_jax.meta import exact as exact
from maml_jax.meta import first_order as first_order
from maml_jax.meta import fit as fit
from maml_jax.meta import meta_init as meta_init
from maml_jax.meta import meta_step as meta_step
