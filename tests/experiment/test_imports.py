"""What importing the package loads, and what its names are."""

import subprocess
import sys

SCRIPT = """
import sys
import maml_jax.experiment
import maml_jax.experiment.run
import maml_jax.experiment.compare.page
from maml_jax.experiment import Config, Result, adaptation_table, compare, load, run
import maml_jax.lookahead
assert callable(run) and maml_jax.experiment.run is run, "the module took the function's name"
assert callable(compare) and maml_jax.experiment.compare is compare
print([name for name in {heavy} if name in sys.modules])
"""
HEAVY = ("matplotlib", "arch", "statsmodels", "scipy.stats", "yfinance", "sklearn")


def test_heavy_libraries_wait_until_they_are_used_and_functions_keep_their_names():
    script = SCRIPT.format(heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
