"""What all forms of the meta-step share, and what those share that autograd serves."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers.problem import Problem
from benchmarks.peers.settings import (
    all_cores,
    fastest,
    keep_freed_memory,
    use_threads,
)

META_RATE = 1e-3
MAX_GRAD_NORM = 1.0
BETAS = (0.9, 0.999)
EPSILON = 1e-8

Gradient = list[tuple[np.ndarray, np.ndarray]]


class MetaStep(ABC):
    """What the forms share: the data as tensors, the threads, and how gradients are handed out.

    Attributes:
        name: the form's name in `FORMS`.
        cores: how many threads the form may use in all: `threads`, by default all cores.
        threads: torch's threads within an operation.
        compile_seconds: what the first call took, for compiled forms; else None.
    """

    name = ""
    compile_seconds: float | None = None

    def __init__(self, problem: Problem, threads: int | None = None):
        keep_freed_memory()
        self.problem = problem
        self.cores = all_cores() if threads is None else threads
        self.threads = self.cores
        self.data = tuple(torch.from_numpy(array) for array in problem[1:5])
        self.tasks = len(problem.support_x)

    @abstractmethod
    def gradient(self) -> tuple[float, Gradient]:
        """Compute the mean query loss and its meta-gradient, `[(dW [in, out], db [out]), ...]`."""

    @abstractmethod
    def step(self) -> None:
        """Take one meta-step: meta-gradient, clip its norm, Adam."""

    def tune(self) -> Any:
        """Choose the number of threads by timing, and return it; the parameters stay as they are.

        To be called before the first step: it restarts the optimizer.
        """
        self.threads = fastest(sorted({1, self.cores}), self._step_with)
        self._start()
        return self.threads

    def _step_with(self, threads: int) -> None:
        self.threads = threads
        self.step()

    @abstractmethod
    def _start(self) -> None:
        """Set parameters and optimizer to the problem's start."""


class Autograd(MetaStep):
    """A form that leaves the meta-gradient in `.grad` of parameters that torch.optim updates."""

    def __init__(self, problem: Problem, threads: int | None = None):
        super().__init__(problem, threads)
        self._start()

    def _start(self):
        self.parameters = self._make_parameters()
        self.optimizer = torch.optim.Adam(self.parameters, lr=META_RATE, fused=True)

    def _make_parameters(self) -> list[Tensor]:
        """Weights are `[outputs, inputs]`, as `F.linear` has them, and come before their biases."""
        return [
            nn.Parameter(torch.from_numpy(array))
            for w, b in self.problem.params
            for array in (w.T.copy(), b.copy())
        ]

    @abstractmethod
    def _backward(self) -> Tensor:
        """Leave the meta-gradient in `.grad` and return the loss."""

    def gradient(self):
        use_threads(self.threads)
        self.optimizer.zero_grad()
        loss = self._backward()
        grads = [parameter.grad.numpy().copy() for parameter in self.parameters]
        self.optimizer.zero_grad()
        return float(loss), [(w.T, b) for w, b in zip(grads[::2], grads[1::2], strict=True)]

    def step(self):
        use_threads(self.threads)
        self.optimizer.zero_grad()
        self._backward()
        nn.utils.clip_grad_norm_(self.parameters, MAX_GRAD_NORM)
        self.optimizer.step()
