"""The rolling backtest in PyTorch: adapt on each window, predict the row that follows it.

The forms in `BY_HAND` are a derivation on paper for one network and one optimizer; in the others
autograd or a function transform takes the derivatives, as in what users of PyTorch write.

Every form computes the same predictions from the same `RollingProblem`:

    form = FORMS["bmm"](problem)
    form.tune()                     # optional: the best threads and chunks on this machine
    predictions = form.predict()
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers import batched, differentiated
from benchmarks.peers.compiling import compile_whole
from benchmarks.peers.problem import RollingProblem
from benchmarks.peers.settings import (
    Plan,
    all_cores,
    fastest,
    keep_freed_memory,
    plans,
    spread,
    use_threads,
)


class Rolling(ABC):
    """What the forms share.

    Attributes:
        name: the form's name in `FORMS`.
        cores: how many threads the form may use in all: `threads`, by default all cores.
        threads: torch's threads within an operation.
        compile_seconds: what the first call took, for compiled forms; else None.
    """

    name = ""
    compile_seconds: float | None = None

    def __init__(self, problem: RollingProblem, threads: int | None = None):
        keep_freed_memory()
        if problem.inner_steps < 1:
            raise ValueError(f"a window needs a step to adapt, got {problem.inner_steps}")
        self.problem = problem
        self.cores = all_cores() if threads is None else threads
        self.threads = self.cores
        self.features = torch.from_numpy(problem.features)
        self.targets = torch.from_numpy(problem.targets)
        self.windows = len(problem.features) - problem.window
        self.layers = [(torch.from_numpy(w), torch.from_numpy(b)) for w, b in problem.params]

    @abstractmethod
    def predict(self) -> np.ndarray:
        """Predict rows `window ..` of the series, `[windows]`."""

    def tune(self) -> Any:
        """Choose the number of threads by timing, and return it."""
        self.threads = fastest(sorted({1, self.cores}), self._predict_with, rounds=3)
        return self.threads

    def _predict_with(self, threads: int) -> None:
        self.threads = threads
        self.predict()


class SeedLoop(Rolling):
    """The tutorial's way: a loop over windows, autograd at every step."""

    name = "seed_loop"

    def predict(self):
        use_threads(self.threads)
        problem, count = self.problem, len(self.layers)
        start = [tensor.clone().requires_grad_() for w, b in self.layers for tensor in (w.T, b)]
        targets = self.targets.unsqueeze(-1)
        predictions = []
        for now in range(problem.window, len(self.features)):
            past = slice(now - problem.window, now)
            weights = start
            for _ in range(problem.inner_steps):
                loss = F.mse_loss(_linear(weights, self.features[past], count), targets[past])
                grads = torch.autograd.grad(loss, weights)
                weights = [
                    (weight - problem.inner_rate * grad).detach().requires_grad_()
                    for weight, grad in zip(weights, grads, strict=True)
                ]
            with torch.no_grad():
                predictions.append(_linear(weights, self.features[now : now + 1], count))
        return torch.cat(predictions).view(-1).numpy()


def _linear(weights: list[Tensor], x: Tensor, layers: int) -> Tensor:
    """The network with weights `[outputs, inputs]`, as `F.linear` has them."""
    for layer in range(layers):
        x = F.linear(x, weights[2 * layer], weights[2 * layer + 1])
        if layer < layers - 1:
            x = torch.tanh(x)
    return x


class _Chunked(Rolling):
    """A form that predicts chunks of consecutive windows.

    Attributes:
        plan: windows per chunk and who works on them.
    """

    chunks: tuple[int, ...] = (16, 32, 64, 128, 256)
    chunk = 64
    inference = True

    def __init__(
        self, problem: RollingProblem, threads: int | None = None, *, plan: Plan | None = None
    ):
        super().__init__(problem, threads)
        self.plan = plan or Plan(min(self.chunk, self.windows), workers=self.cores)

    @abstractmethod
    def _predict_chunk(self, features: Tensor, targets: Tensor) -> Tensor:
        """From `[windows + window, inputs]` and `[windows + window]` to `[windows]`."""

    def predict(self):
        chunk, workers, threads = self.plan
        use_threads(threads)
        out = torch.empty(self.windows)

        def work(starts: list[int]) -> None:
            with self._no_grad():
                for start in starts:
                    stop = min(start + chunk, self.windows)
                    rows = slice(start, stop + self.problem.window)
                    out[start:stop] = self._predict_chunk(self.features[rows], self.targets[rows])

        spread(work, self._starts(chunk), workers)
        return out.numpy()

    def _no_grad(self):
        return torch.inference_mode() if self.inference else torch.no_grad()

    def _starts(self, chunk: int) -> list[int]:
        return list(range(0, self.windows, chunk))

    def tune(self) -> Plan:
        """Choose chunk, workers and threads by timing, and return them."""
        # All windows at once never pays, and its plan would be tried for nothing.
        candidates = [p for p in plans(self.windows, self.chunks, self.cores) if self._worth(p)]
        self.plan = fastest(candidates, self._predict_with, rounds=5)
        return self.plan

    def _worth(self, plan: Plan) -> bool:
        return plan.chunk <= max(self.chunks)

    def _predict_with(self, plan: Plan) -> None:
        self.plan = plan
        self.predict()


def _vmap_predictions(
    params: list[Tensor],
    features: Tensor,
    targets: Tensor,
    *,
    window: int,
    inner_rate: float,
    inner_steps: int,
) -> Tensor:
    """Predict a chunk of windows by one window's descent, vectorised over them."""
    windows = len(features) - window
    past_x = features.unfold(0, window, 1)[:windows].mT
    past_y = targets.unfold(0, window, 1)[:windows]
    now_x = features[window:]

    def network(weights: list[Tensor], x: Tensor) -> Tensor:
        for i in range(0, len(weights), 2):
            x = x @ weights[i] + weights[i + 1]
            if i < len(weights) - 2:
                x = torch.tanh(x)
        return x.squeeze(-1)

    def one(x: Tensor, y: Tensor, now: Tensor) -> Tensor:
        def loss(weights: list[Tensor]) -> Tensor:
            return F.mse_loss(network(weights, x), y)

        weights = params
        for _ in range(inner_steps):
            grads = torch.func.grad(loss)(weights)
            weights = [w - inner_rate * g for w, g in zip(weights, grads, strict=True)]
        return network(weights, now)

    return torch.func.vmap(one)(past_x, past_y, now_x)


class _Function(_Chunked):
    """A form given by a function of parameters, a chunk's rows and the problem's numbers."""

    function: Callable[..., Tensor]

    def _params(self) -> list:
        return [tensor for pair in self.layers for tensor in pair]

    def _options(self) -> dict[str, Any]:
        return {}

    def _predict_chunk(self, features, targets):
        return self.function(
            self._params(),
            features,
            targets,
            window=self.problem.window,
            inner_rate=self.problem.inner_rate,
            inner_steps=self.problem.inner_steps,
            **self._options(),
        )


class FuncVmap(_Function):
    """`torch.func`: one window's descent, vectorised over chunks of windows."""

    name = "func_vmap"
    function = staticmethod(_vmap_predictions)


class Bmm(_Function):
    """Batched matrix products in the forward pass, gradients by autograd; eager."""

    name = "bmm"
    inference = False
    function = staticmethod(differentiated.rolling_predictions)


class _ByHand(_Function):
    """Derived by hand for this one network and optimizer.

    Another activation, loss or optimizer needs a new derivation.
    """

    share_rows = False
    function = staticmethod(batched.rolling_predictions)

    def _params(self):
        return self.layers

    def _options(self):
        return {"share_rows": self.share_rows}


class BmmByHand(_ByHand):
    """Both passes by hand in batched matrix products, the same work for every window; eager.

    Derived for this one network and optimizer: another activation, loss or optimizer needs a new
    derivation.
    """

    name = "bmm_by_hand"


class BmmByHandShared(BmmByHand):
    """`BmmByHand`, but the first step's passes are taken once per row, not once per window."""

    name = "bmm_by_hand_shared"
    share_rows = True


class _Compiled(_Function):
    """`torch.compile` of a function, for chunks of one size.

    The last chunk reaches back over windows that are already predicted, so that one compiled
    function serves all.
    """

    def __init__(
        self, problem: RollingProblem, threads: int | None = None, *, plan: Plan | None = None
    ):
        super().__init__(problem, threads, plan=plan)
        self.function = compile_whole(self.function)
        self._seconds: dict[tuple[int, int], float] = {}

    def _starts(self, chunk):
        starts = super()._starts(chunk)
        return [min(start, self.windows - chunk) for start in starts]

    def predict(self):
        shape = self.plan.chunk, self.plan.threads
        if shape not in self._seconds:  # once, before several workers need it
            use_threads(self.plan.threads)
            begin = time.perf_counter()
            rows = slice(0, self.plan.chunk + self.problem.window)
            with self._no_grad():
                self._predict_chunk(self.features[rows], self.targets[rows])
            self._seconds[shape] = time.perf_counter() - begin
        self.compile_seconds = self._seconds[shape]
        return super().predict()

    def tune(self) -> Plan:
        """Choose between workers and threads by timing; each of the plans is compiled."""
        chunk = self.plan.chunk
        candidates = [Plan(chunk)]
        if self.cores > 1:
            candidates = [Plan(chunk, workers=self.cores), Plan(2 * chunk, threads=self.cores)]
        candidates = [p for p in candidates if p.chunk <= self.windows] or [Plan(self.windows)]
        self.plan = fastest(candidates, self._predict_with, rounds=5)
        return self.plan


class CompiledVmap(_Compiled):
    """`torch.compile` of the form that `FuncVmap` runs, gradients by function transforms."""

    name = "compiled_vmap"
    function = staticmethod(_vmap_predictions)


class CompiledByHand(_Compiled, _ByHand):
    """`torch.compile` of the form that `BmmByHand` runs.

    Derived by hand for this one network and optimizer: another activation, loss or optimizer needs
    a new derivation.
    """

    name = "compiled_by_hand"


class CompiledByHandShared(CompiledByHand):
    """`CompiledByHand`, but of `BmmByHandShared`."""

    name = "compiled_by_hand_shared"
    share_rows = True


FORMS: dict[str, Callable[..., Rolling]] = {
    form.name: form
    for form in (
        SeedLoop,
        FuncVmap,
        Bmm,
        CompiledVmap,
        BmmByHand,
        BmmByHandShared,
        CompiledByHand,
        CompiledByHandShared,
    )
}
"""Every form by name; each takes `(problem, threads=None)`."""

BY_HAND: frozenset[str] = frozenset(
    {"bmm_by_hand", "bmm_by_hand_shared", "compiled_by_hand", "compiled_by_hand_shared"}
)
"""Names of the forms whose derivatives are derived by hand, for one network and optimizer only."""
