"""Makes `python -m maml_jax` the same as `maml-jax`."""

from maml_jax.cli.main import main

main()
