"""The algorithms: each is one function that returns a `MetaLearner`."""

from .maml import maml as maml
