"""Where bars and arrays meet: the Panel, families of tasks, and the sampler over them.

Also tasks that need no bars: sinusoids, and a market whose best answer is known.
"""

from .families import Windows as Windows
from .families import asset_family as asset_family
from .families import bars_needed as bars_needed
from .families import label_family as label_family
from .families import mix_families as mix_families
from .families import period_family as period_family
from .families import period_labels as period_labels
from .families import regime_family as regime_family
from .families import strategy_family as strategy_family
from .hierarchy import Hierarchy as Hierarchy
from .hierarchy import hierarchy_sampler as hierarchy_sampler
from .known_answer import World as World
from .known_answer import known_answer_sampler as known_answer_sampler
from .panel import Panel as Panel
from .panel import make_panel as make_panel
from .pools import support_parts as support_parts
from .rows import labelled_rows as labelled_rows
from .sampler import MarketSampler as MarketSampler
from .sampler import market_sampler as market_sampler
from .sinusoid import sinusoid_grid_sampler as sinusoid_grid_sampler
from .sinusoid import sinusoid_sampler as sinusoid_sampler
from .switching import SwitchingWorld as SwitchingWorld
from .switching import switching_panel as switching_panel
