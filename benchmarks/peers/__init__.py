"""PyTorch forms of the same meta-learning computations, to measure the JAX library against."""
