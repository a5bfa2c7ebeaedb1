"""The network of a batch of tasks in batched matrix products, differentiated by autograd.

Every task has parameters of its own along a leading axis, at first views of the shared ones. As no
task's loss depends on another's parameters, one call of autograd on the sum of all losses yields
the gradient of each. Only the forward pass, the loss and the update are written here: for another
activation, loss or optimizer one changes that line.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_MINUS_ONE = torch.tensor(-1.0)


def _tanh(z: Tensor) -> Tensor:
    """tanh(z) = 2 sigmoid(2z) - 1: three calls, in all faster than torch's one.

    Pays where they are differentiated once; their second derivatives cost more than that of tanh.
    """
    return torch.add(_MINUS_ONE, torch.sigmoid(z + z), alpha=2.0)


def _per_task(params: Sequence[Tensor], tasks: int) -> list[Tensor]:
    """View shared parameters as `[tasks, inputs, outputs]` and `[tasks, 1, outputs]`."""
    return [p.expand(tasks, *([1] * (2 - p.ndim)), *p.shape) for p in params]


def _predict(params: list[Tensor], x: Tensor, *, twice: bool = False) -> Tensor:
    """The network, `[tasks, rows, inputs]` -> `[tasks, rows, outputs]`.

    Args:
        params: `[W, b, W, b, ...]`, each of them per task.
        x: the inputs.
        twice: whether the result is differentiated more than once, which decides how tanh is taken.
    """
    activate = torch.tanh if twice else _tanh
    for i in range(0, len(params), 2):
        w, b = params[i : i + 2]
        if i:
            x = activate(x)
        if w.shape[-1] == 1:  # a product with one column is faster as a sum
            x = (x * w.mT).sum(-1, keepdim=True) + b
        else:
            x = torch.baddbmm(b, x, w)
    return x


def _descend(
    params: list[Tensor], x: Tensor, y: Tensor, *, rate: float, steps: int, create_graph: bool
) -> list[Tensor]:
    """Take `steps` steps of gradient descent on each task's mean squared error.

    Asked for the gradient of `-rate` times the losses, autograd hands back the steps themselves.
    """
    scale = torch.tensor(-rate / y[0].numel())
    for _ in range(steps):
        losses = F.mse_loss(_predict(params, x, twice=create_graph), y, reduction="sum")
        moves = torch.autograd.grad(losses, params, scale, create_graph=create_graph)
        if create_graph:
            params = [p + move for p, move in zip(params, moves, strict=True)]
        else:  # nobody else holds the gradients: the next parameters take their place
            params = [
                move.add_(p.detach()).requires_grad_()
                for p, move in zip(params, moves, strict=True)
            ]
    return params


def meta_gradient(
    params: Sequence[Tensor],
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    *,
    inner_rate: float,
    inner_steps: int,
    second_order: bool,
    tasks: int,
) -> tuple[Tensor, list[Tensor]]:
    """Compute the share of these tasks in the mean query loss and in its meta-gradient.

    Args:
        params: the shared start, `[W [inputs, outputs], b [outputs], W, b, ...]`.
        support_x: `[chunk, support, inputs]`.
        support_y: `[chunk, support, outputs]`.
        query_x: `[chunk, query, inputs]`.
        query_y: `[chunk, query, outputs]`.
        inner_rate: step size of the inner descent.
        inner_steps: number of inner steps.
        second_order: exact meta-gradient; else the gradient at the adapted parameters.
        tasks: tasks in the whole meta-batch, by which the mean is taken.

    Returns:
        The loss, and the meta-gradient in the shapes of `params`.
    """
    chunk = len(support_x)
    scale = torch.tensor(1.0 / (tasks * query_y[0].numel()))
    with torch.enable_grad():
        leaves = [p.detach().requires_grad_() for p in params]
        start = _per_task(leaves, chunk)
        if not second_order:
            start = [p.detach().requires_grad_() for p in start]
        adapted = _descend(
            start,
            support_x,
            support_y,
            rate=inner_rate,
            steps=inner_steps,
            create_graph=second_order,
        )
        losses = F.mse_loss(
            _predict(adapted, query_x, twice=second_order), query_y, reduction="sum"
        )
        grads = torch.autograd.grad(losses, leaves if second_order else adapted, scale)
    if not second_order:
        grads = [g.sum(0).view(p.shape) for g, p in zip(grads, params, strict=True)]
    return losses.detach() * scale, list(grads)


def rolling_predictions(
    params: Sequence[Tensor],
    features: Tensor,
    targets: Tensor,
    *,
    window: int,
    inner_rate: float,
    inner_steps: int,
) -> Tensor:
    """Adapt on the `window` rows before each row and predict that row, for one output.

    Args:
        params: the shared start, `[W [inputs, outputs], b [outputs], W, b, ...]`.
        features: `[windows + window, inputs]`.
        targets: `[windows + window]`.
        window: rows of each window.
        inner_rate: step size of the descent.
        inner_steps: number of steps.

    Returns:
        Predictions of rows `window ..`, `[windows]`.
    """
    windows = len(features) - window
    past_x = features.unfold(0, window, 1)[:windows].mT.contiguous()
    past_y = targets.unfold(0, window, 1)[:windows].unsqueeze(-1).contiguous()
    with torch.enable_grad():
        start = [p.detach().requires_grad_() for p in _per_task(params, windows)]
        adapted = _descend(
            start, past_x, past_y, rate=inner_rate, steps=inner_steps, create_graph=False
        )
    with torch.no_grad():
        return _predict(adapted, features[window:].unsqueeze(1)).view(-1)
