"""One meta-step of MAML in PyTorch, written in the ways that people write it, and faster ones.

There are two kinds. In most forms autograd or a function transform takes the derivatives, as in
what users of PyTorch write: one states the network, the loss and the update. The forms in `BY_HAND`
are a derivation on paper for one network and one optimizer, and serve nobody who has another.

Every form computes the same numbers from the same `Problem`. `FORMS` maps names to factories:

    form = FORMS["bmm"](problem)
    form.tune()                     # optional, first: the best threads and chunks here
    loss, gradient = form.gradient()
    form.step()
"""

import time
from abc import abstractmethod
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
import torchopt
from torch import Tensor

from benchmarks.peers import batched, differentiated
from benchmarks.peers.compiling import compile_whole, even_chunk
from benchmarks.peers.forms import BETAS, EPSILON, MAX_GRAD_NORM, META_RATE, MetaStep
from benchmarks.peers.loops import HigherLoop, Learn2learnLoop, SeedLoop, TorchoptLoop
from benchmarks.peers.problem import Problem
from benchmarks.peers.settings import (
    Plan,
    fastest,
    plans,
    spread,
    use_threads,
)


def _predict(params: list[Tensor], x: Tensor) -> Tensor:
    """The network with parameters `[W [in, out], b, W, b, ...]`."""
    last = len(params) - 2
    for i in range(0, len(params), 2):
        x = torch.addmm(params[i + 1], x, params[i])
        if i < last:
            x = torch.tanh(x)
    return x


def _task_loss(
    params: list[Tensor],
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    descend: Callable[[list[Tensor], Callable], list[Tensor]],
    second_order: bool,
) -> Tensor:
    """Query loss of one task after `descend` on its support loss; to be vectorised."""

    def support_loss(weights: list[Tensor]) -> Tensor:
        return F.mse_loss(_predict(weights, support_x), support_y)

    if second_order:
        adapted = descend(params, support_loss)
    else:  # the value of the adapted parameters, with the derivative of the identity
        fixed = [p.detach() for p in params]
        adapted = [
            p + (a - f).detach()
            for p, a, f in zip(params, descend(fixed, support_loss), fixed, strict=True)
        ]
    return F.mse_loss(_predict(adapted, query_x), query_y)


class _Batched(MetaStep):
    """A form that computes a flat meta-gradient of chunks of tasks and updates flat parameters.

    Attributes:
        plan: how the tasks are cut up and who works on them.
    """

    chunks: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    inference = False

    def __init__(self, problem: Problem, threads: int | None = None, *, plan: Plan | None = None):
        super().__init__(problem, threads)
        self.plan = plan or Plan(min(32, self.tasks), 1, 1)
        self._start()

    def _start(self):
        shapes = [array.shape for pair in self.problem.params for array in pair]
        sizes = [int(np.prod(shape)) for shape in shapes]
        self.flat = torch.cat([torch.from_numpy(a).ravel() for p in self.problem.params for a in p])
        self.leaves = [
            part.view(shape) for part, shape in zip(self.flat.split(sizes), shapes, strict=True)
        ]
        self.moments = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.steps = 0

    @abstractmethod
    def _value_and_gradient(self, *data: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Share of a chunk in the loss and in the meta-gradient, the mean over all tasks."""

    def _work(self, chunks: list) -> tuple[Tensor, Tensor]:
        # Grad mode belongs to a thread; a function transform switches on what it needs itself.
        with torch.inference_mode() if self.inference else torch.no_grad():
            loss, total = None, None
            for chunk in chunks:
                value, grads = self._value_and_gradient(*chunk)
                if total is None:
                    loss, total = value, torch.cat([grad.reshape(-1) for grad in grads])
                else:
                    loss += value
                    total += torch.cat([grad.reshape(-1) for grad in grads])
            return loss, total

    def _flat_gradient(self) -> tuple[Tensor, Tensor]:
        chunk, workers, threads = self.plan
        use_threads(threads)
        chunks = list(zip(*(array.split(chunk) for array in self.data), strict=True))
        results = spread(self._work, chunks, workers)
        loss, total = results[0]
        with torch.inference_mode() if self.inference else torch.no_grad():
            for other, grad in results[1:]:
                loss, total = loss + other, total.add_(grad)
        return loss, total

    def gradient(self):
        loss, total = self._flat_gradient()
        total = total.clone()
        parts = [
            part.view(leaf.shape).numpy().copy()
            for part, leaf in zip(
                total.split([leaf.numel() for leaf in self.leaves]), self.leaves, strict=True
            )
        ]
        return float(loss), list(zip(parts[::2], parts[1::2], strict=True))

    def step(self):
        _, grad = self._flat_gradient()
        self.steps += 1
        with torch.inference_mode():
            _clip_and_adam(self.flat, *self.moments, grad, self.steps)

    def tune(self) -> Plan:
        """Choose chunk, workers and threads by timing, and return them; call it before any step."""
        self.plan = fastest(plans(self.tasks, self.chunks, self.cores), self._step_with)
        self._start()
        return self.plan

    def _step_with(self, plan: Plan) -> None:
        self.plan = plan
        self.step()


def _clip_and_adam(flat: Tensor, mean: Tensor, square: Tensor, grad: Tensor, step: int) -> None:
    """Clip the norm of a gradient and move flat parameters by Adam, all in place."""
    norm = float(torch.linalg.vector_norm(grad))
    if norm > MAX_GRAD_NORM:
        grad.mul_(MAX_GRAD_NORM / norm)
    mean.lerp_(grad, 1.0 - BETAS[0])
    square.mul_(BETAS[1]).addcmul_(grad, grad, value=1.0 - BETAS[1])
    root = square.sqrt().mul_((1.0 - BETAS[1] ** step) ** -0.5).add_(EPSILON)
    flat.addcdiv_(mean, root, value=-META_RATE / (1.0 - BETAS[0] ** step))


def _vmap_gradient(
    params: list[Tensor], *data: Tensor, descend: Callable, second_order: bool, tasks: int
) -> tuple[Tensor, list[Tensor]]:
    """A chunk's share in the loss and in the meta-gradient, through function transforms."""

    def share(params: list[Tensor]) -> Tensor:
        def task_loss(*task: Tensor) -> Tensor:
            return _task_loss(params, *task, descend, second_order)

        return torch.func.vmap(task_loss)(*data).sum() / tasks

    grads, value = torch.func.grad_and_value(share)(params)
    return value, grads


def _vmap_sgd_gradient(
    params: list[Tensor],
    *data: Tensor,
    inner_rate: float,
    inner_steps: int,
    second_order: bool,
    tasks: int,
) -> tuple[Tensor, list[Tensor]]:
    """`_vmap_gradient` where tasks descend by the gradient that `torch.func.grad` takes."""

    def descend(weights: list[Tensor], loss: Callable) -> list[Tensor]:
        for _ in range(inner_steps):
            grads = torch.func.grad(loss)(weights)
            weights = [w - inner_rate * g for w, g in zip(weights, grads, strict=True)]
        return weights

    return _vmap_gradient(params, *data, descend=descend, second_order=second_order, tasks=tasks)


class _ChunkGradient(_Batched):
    """A form given by a function of parameters, a chunk's data and the problem's numbers."""

    function: Callable[..., tuple[Tensor, list[Tensor]]]

    def _params(self) -> list:
        return self.leaves

    def _value_and_gradient(self, *data):
        return self.function(
            self._params(),
            *data,
            inner_rate=self.problem.inner_rate,
            inner_steps=self.problem.inner_steps,
            second_order=self.problem.second_order,
            tasks=self.tasks,
        )


class FuncVmap(_ChunkGradient):
    """`torch.func`: the gradient of the mean of a vectorised task, inner gradients by `grad`."""

    name = "func_vmap"
    function = staticmethod(_vmap_sgd_gradient)


class TorchoptVmap(_Batched):
    """TorchOpt's functional optimizer inside `torch.func.vmap`: faster than its loop."""

    name = "torchopt_vmap"

    def _descend(self, weights: list[Tensor], loss: Callable) -> list[Tensor]:
        inner = torchopt.sgd(lr=self.problem.inner_rate)
        weights = tuple(weights)
        state = inner.init(weights)
        for _ in range(self.problem.inner_steps):
            updates, state = inner.update(torch.func.grad(loss)(weights), state, inplace=False)
            weights = torchopt.apply_updates(weights, updates, inplace=False)
        return list(weights)

    def _value_and_gradient(self, *data):
        return _vmap_gradient(
            self.leaves,
            *data,
            descend=self._descend,
            second_order=self.problem.second_order,
            tasks=self.tasks,
        )


class Bmm(_ChunkGradient):
    """Batched matrix products in the forward pass, all derivatives by autograd; eager."""

    name = "bmm"
    function = staticmethod(differentiated.meta_gradient)


class BmmByHand(_ChunkGradient):
    """Both passes and the products with Hessians by hand, in batched matrix products; eager.

    Derived by hand for this one network and optimizer: another activation, loss or optimizer needs
    a new derivation.
    """

    name = "bmm_by_hand"
    inference = True
    function = staticmethod(batched.meta_gradient)

    def _params(self):
        return list(zip(self.leaves[::2], self.leaves[1::2], strict=True))


class _Compiled(_ChunkGradient):
    """`torch.compile` of a function, for chunks of one size."""

    limit = 32

    def __init__(self, problem: Problem, threads: int | None = None, *, plan: Plan | None = None):
        super().__init__(problem, threads, plan=plan)
        if plan is None:
            # Below about 8 tasks for each, workers wait for one another's calls.
            workers = self.cores if self.tasks >= 8 * self.cores else 1
            limit = min(self.limit, self.tasks // workers)
            self.plan = Plan(even_chunk(self.tasks, limit), workers)
        self.function = compile_whole(self.function)
        self._seconds: dict[tuple[int, int], float] = {}

    def _flat_gradient(self):
        shape = self.plan.chunk, self.plan.threads
        if shape not in self._seconds:  # once, before several workers need it
            use_threads(self.plan.threads)
            begin = time.perf_counter()
            self._work([tuple(array[: self.plan.chunk] for array in self.data)])
            self._seconds[shape] = time.perf_counter() - begin
        self.compile_seconds = self._seconds[shape]
        return super()._flat_gradient()

    def tune(self) -> Plan:
        """Choose from a few plans by timing; each of them is compiled."""
        self.plan = fastest(self._candidates(), self._step_with)
        self._start()
        return self.plan

    @abstractmethod
    def _candidates(self) -> list[Plan]:
        """List the plans to try."""


class CompiledVmap(_Compiled):
    """`torch.compile` of the form that `FuncVmap` runs, all derivatives by function transforms."""

    name = "compiled_vmap"
    function = staticmethod(_vmap_sgd_gradient)

    def _candidates(self):
        if self.cores == 1:
            limits = sorted({even_chunk(self.tasks, limit) for limit in (self.limit // 2, 64)})
            return [Plan(chunk) for chunk in limits]
        if self.tasks < 8 * self.cores:
            return [Plan(self.tasks)]
        half = even_chunk(self.tasks, min(self.limit, self.tasks // self.cores))
        if self.tasks <= self.limit:
            return [Plan(half, workers=self.cores), Plan(self.tasks)]
        whole = even_chunk(self.tasks, 4 * self.limit)
        return [Plan(half, workers=self.cores), Plan(whole, threads=self.cores)]


class CompiledByHand(_Compiled):
    """`torch.compile` of the form that `BmmByHand` runs.

    Derived by hand for this one network and optimizer: another activation, loss or optimizer needs
    a new derivation.
    """

    name = "compiled_by_hand"
    function = staticmethod(batched.meta_gradient)

    def _params(self):
        return list(zip(self.leaves[::2], self.leaves[1::2], strict=True))

    def _candidates(self):
        limits = (self.limit, 4 * self.limit)
        chunks = sorted({even_chunk(self.tasks, limit) for limit in limits})
        if self.cores == 1:
            return [Plan(chunks[0])]
        half = even_chunk(self.tasks, min(self.limit, max(1, self.tasks // self.cores)))
        candidates = [Plan(half, workers=self.cores), Plan(chunks[-1], threads=self.cores)]
        if self.tasks <= self.limit:
            candidates.append(Plan(self.tasks))
        return candidates


FORMS: dict[str, Callable[..., MetaStep]] = {
    form.name: form
    for form in (
        SeedLoop,
        Learn2learnLoop,
        HigherLoop,
        TorchoptLoop,
        TorchoptVmap,
        FuncVmap,
        Bmm,
        CompiledVmap,
        BmmByHand,
        CompiledByHand,
    )
}
"""Every form by name; each takes `(problem, threads=None)`."""

BY_HAND: frozenset[str] = frozenset({"bmm_by_hand", "compiled_by_hand"})
"""Names of the forms whose derivatives are derived by hand, for one network and optimizer only."""
