r"""MAML's forward and backward passes written out by hand for a batch of tasks.

No autograd: every line below is one of the formulas, so that nothing is computed that is not
needed, elementwise work is done in place, and `torch.compile` sees one flat graph.

The price is that the derivation holds for this one network and optimizer, a perceptron with tanh
that descends plainly on the squared error. Another activation, loss or optimizer needs a new
derivation; `differentiated` leaves that to autograd.

Notation, for layer $l$ and inner step $k$: $A_l$ are activations, $D_l$ is the derivative of the
support loss with respect to the pre-activation $Z_l$, and

$$D_l = (D_{l+1} W_{l+1}^T) \odot (1 - A_l^2), \quad \nabla_{W_l} L = A_{l-1}^T D_l.$$

Four things make it cheaper than differentiating the textbook form:

- The inputs never change, so the first layer moves in the space of rows. With
  $K = X X^T + 1$ (the one is the bias), $Z_1 \leftarrow Z_1 - \alpha K D_1$: its weights are never
  formed per task.
- At the first step all tasks share their weights: one large product serves them all.
- The meta-gradient is a sum over tasks, so its last products run over all rows of all tasks at
  once and no gradient per task is stored.
- The way back needs the products of Hessians with one vector $V$, by differentiating the two
  passes in the direction $V$ (Pearlmutter, 1994), $R\{\cdot\}$ below; their activations are kept
  from the way forth.
"""

import torch
from torch import Tensor

Layers = list[tuple[Tensor, Tensor]]
"""`(weight [inputs, outputs], bias [outputs])` per layer."""

_MINUS_ONE = torch.tensor(-1.0)


def _scale(layer: int, layers: int) -> float:
    """What a pre-activation is multiplied by: eager mode gets its tanh from twice the number."""
    return 1.0 if layer == layers - 1 or torch.compiler.is_compiling() else 2.0


def _activate_(z: Tensor) -> Tensor:
    """Overwrite scaled pre-activations with their tanh.

    Eager mode takes tanh(z) = 2 sigmoid(2z) - 1: the sigmoid is vectorised, and five times as fast
    as `torch.tanh` on this kind of CPU. The compiler generates such code by itself.
    """
    if torch.compiler.is_compiling():
        return torch.tanh(z)
    z = z.sigmoid_()
    return torch.add(_MINUS_ONE, z, alpha=2.0, out=z)


def _times_slope_(d: Tensor, a: Tensor) -> Tensor:
    """Multiply `d` by the slope of tanh, 1 - a^2, in one pass."""
    if torch.compiler.is_compiling():
        return d * (1.0 - a * a)
    return torch.ops.aten.tanh_backward.grad_input(d, a, grad_input=d)


def _times_slope(d: Tensor, a: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return d * (1.0 - a * a)
    return torch.ops.aten.tanh_backward.default(d, a)


def _rows(x: Tensor) -> Tensor:
    """Join tasks and rows: `[tasks, rows, width]` -> `[tasks * rows, width]`."""
    return x.reshape(-1, x.shape[-1])


def _affine(a: Tensor, w: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
    """`scale * (a w + b)`; `w` and `b` are shared (`[inputs, outputs]`) or of each task."""
    if w.ndim == 2:
        return torch.addmm(b, _rows(a), w, beta=scale, alpha=scale).view(*a.shape[:-1], -1)
    if w.shape[-1] == 1:  # a product with one column is faster as a sum
        z = (a * w.mT).sum(-1, keepdim=True).add_(b)
        return z if scale == 1.0 else z.mul_(scale)
    return torch.baddbmm(b, a, w, beta=scale, alpha=scale)


def _pull_back(d: Tensor, w: Tensor) -> Tensor:
    """`d w^T`, from outputs back to inputs."""
    if w.shape[-1] == 1:
        return d * w.mT
    if w.ndim == 2:
        return torch.mm(_rows(d), w.T).view(*d.shape[:-1], -1)
    return torch.bmm(d, w.mT)


def _outer(a: Tensor, d: Tensor) -> Tensor:
    """`a^T d` of each task: `[tasks, inputs, outputs]`."""
    if d.shape[-1] == 1:
        return (a * d).sum(1).unsqueeze(-1)
    return torch.bmm(a.mT, d)


def _descend(w: Tensor, a: Tensor, d: Tensor, rate: float, *, in_place: bool) -> Tensor:
    """`w - rate a^T d` of each task; `w` may be shared."""
    if d.shape[-1] == 1:
        return torch.sub(w, _outer(a, d), alpha=rate)
    if w.ndim == 2:
        return torch.baddbmm(w.expand(len(a), -1, -1), a.mT, d, alpha=-rate)
    if in_place:
        return w.baddbmm_(a.mT, d, alpha=-rate)
    return torch.baddbmm(w, a.mT, d, alpha=-rate)


def _forward(z: Tensor, weights: list, biases: list, layers: int) -> tuple[list, Tensor]:
    """From first pre-activations, which are overwritten, to activations and outputs."""
    activations = []
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True), start=1):
        activations.append(_activate_(z))
        z = _affine(activations[-1], w, b, _scale(layer, layers))
    return activations, z


def _backward(d: Tensor, activations: list, weights: list) -> list:
    """From the derivative of the loss in the outputs to that in every pre-activation."""
    derivatives = [d]
    for a, w in zip(reversed(activations), reversed(weights), strict=True):
        d = _times_slope_(_pull_back(d, w), a)
        derivatives.append(d)
    return derivatives[::-1]


def meta_gradient(
    params: Layers,
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

    Made for few rows: the first layer costs `support` multiplications per number where weights of
    its own would cost twice the number of inputs.

    Args:
        params: the shared start.
        support_x: `[chunk, support, inputs]`.
        support_y: `[chunk, support, outputs]`.
        query_x: `[chunk, query, inputs]`.
        query_y: `[chunk, query, outputs]`.
        inner_rate: step size of the inner descent.
        inner_steps: number of inner steps.
        second_order: exact meta-gradient; else the gradient at the adapted parameters.
        tasks: tasks in the whole meta-batch, by which the mean is taken.

    Returns:
        The loss, and the meta-gradient as `[dW, db, dW, db, ...]` of the shapes of `params`.
    """
    layers, hidden = len(params), range(len(params) - 1)
    chunk, support, outputs = support_y.shape
    query = query_y.shape[1]
    slope = 2.0 / (support * outputs)
    share = 1.0 / (tasks * query * outputs)
    first_scale = _scale(0, layers)
    second_order = second_order and inner_steps > 0

    transposed = support_x.mT
    kernel = torch.bmm(support_x, transposed).add_(1.0)
    query_kernel = torch.bmm(query_x, transposed).add_(1.0)
    z = _affine(support_x, *params[0], first_scale)
    query_z = _affine(query_x, *params[0], first_scale)
    weights, biases = [w for w, _ in params[1:]], [b for _, b in params[1:]]

    # Forth: descend on the support set.
    kept, moved = [], None
    for k in range(inner_steps):
        activations, y_hat = _forward(z.clone(), weights, biases, layers)
        ds = _backward((y_hat - support_y).mul_(slope), activations, weights)
        if second_order:
            kept.append((activations, ds, weights))
        moved = ds[0].clone() if moved is None else moved.add_(ds[0])
        if k < inner_steps - 1:
            z.baddbmm_(kernel, ds[0], alpha=-first_scale * inner_rate)
        weights = [
            _descend(w, a, d, inner_rate, in_place=not second_order)
            for w, a, d in zip(weights, activations, ds[1:], strict=True)
        ]
        biases = [
            torch.sub(b, d.sum(1, keepdim=True), alpha=inner_rate)
            for b, d in zip(biases, ds[1:], strict=True)
        ]

    # The query loss at the adapted parameters.
    if moved is not None:
        query_z.baddbmm_(query_kernel, moved, alpha=-first_scale * inner_rate)
    activations, y_hat = _forward(query_z, weights, biases, layers)
    error = y_hat - query_y
    loss = error.square().sum() * share
    ds = _backward(error.mul_(2.0 * share), activations, weights)
    first = [torch.mm(_rows(query_x).T, _rows(ds[0])), ds[0].sum((0, 1))]
    if not second_order:
        for a, d in zip(activations, ds[1:], strict=True):
            first += [torch.mm(_rows(a).T, _rows(d)), d.sum((0, 1))]
        return loss, first

    # Back: v <- (I - rate * Hessian) v at every inner step. `v_z` is what v does to the first
    # pre-activations, which is all that is needed of its first layer.
    vs = [_outer(a, d) for a, d in zip(activations, ds[1:], strict=True)]
    v_biases = [d.sum(1, keepdim=True) for d in ds[1:]]
    v_z, pulled = torch.bmm(query_kernel.mT, ds[0]), None
    for k in reversed(range(inner_steps)):
        activations, ds, weights = kept.pop()
        r_z, r_zs, r_as = v_z, [], []
        for i in hidden:
            a, w, v = activations[i], weights[i], vs[i]
            r_a = _times_slope(r_z, a)
            r_zs.append(r_z)
            r_as.append(r_a)
            if v.shape[-1] == 1:
                r_z = (r_a * w.mT).addcmul_(a, v.mT).sum(-1, keepdim=True).add_(v_biases[i])
            else:
                r_z = torch.baddbmm(v_biases[i], a, v)
                if w.ndim == 2:
                    _rows(r_z).addmm_(_rows(r_a), w)
                else:
                    r_z.baddbmm_(r_a, w)
        r_d = r_z * slope
        r_ds = [r_d]
        for i in reversed(hidden):
            r_d = _pull_back(r_d, weights[i])
            if vs[i].shape[-1] == 1:
                r_d.addcmul_(ds[i + 1], vs[i].mT)
            else:
                r_d.baddbmm_(ds[i + 1], vs[i].mT)
            # Last comes the curvature of tanh: d(1 - a^2) = -2 a da, and da = (1 - a^2) r_z.
            r_d = _times_slope_(r_d, activations[i])
            r_d.addcmul_(activations[i] * ds[i], r_zs[i], value=-2.0)
            r_ds.append(r_d)
        r_ds.reverse()
        pulled = r_ds[0].clone() if pulled is None else pulled.add_(r_ds[0])
        if k == 0:
            break
        for i in hidden:
            if vs[i].shape[-1] == 1:
                change = torch.mul(activations[i], r_ds[i + 1]).addcmul_(r_as[i], ds[i + 1])
                vs[i].sub_(change.sum(1).unsqueeze(-1), alpha=inner_rate)
            else:
                vs[i].baddbmm_(activations[i].mT, r_ds[i + 1], alpha=-inner_rate)
                vs[i].baddbmm_(r_as[i].mT, ds[i + 1], alpha=-inner_rate)
            v_biases[i].sub_(r_ds[i + 1].sum(1, keepdim=True), alpha=inner_rate)
        v_z.baddbmm_(kernel, r_ds[0], alpha=-inner_rate)

    # The last of these steps and the sum over tasks, in one.
    gradient = [
        first[0].addmm_(_rows(support_x).T, _rows(pulled), alpha=-inner_rate),
        first[1].sub_(pulled.sum((0, 1)), alpha=inner_rate),
    ]
    for i in hidden:
        total = vs[i].sum(0)
        total.addmm_(_rows(activations[i]).T, _rows(r_ds[i + 1]), alpha=-inner_rate)
        total.addmm_(_rows(r_as[i]).T, _rows(ds[i + 1]), alpha=-inner_rate)
        bias = v_biases[i].sum((0, 1)).sub_(r_ds[i + 1].sum((0, 1)), alpha=inner_rate)
        gradient += [total, bias]
    return loss, gradient


def rolling_predictions(
    params: Layers,
    features: Tensor,
    targets: Tensor,
    *,
    window: int,
    inner_rate: float,
    inner_steps: int,
    share_rows: bool,
) -> Tensor:
    r"""Adapt on the `window` rows before each row and predict that row, for one output.

    No window is copied: the Gram matrix of the rows is computed once, and the kernels of all
    windows are overlapping views of blocks on its diagonal. The last step is not taken in the
    weights but applied to the one row that asks for it,
    $z \leftarrow z - \alpha (a A^T + 1) D$.

    Args:
        params: the shared start.
        features: `[windows + window, inputs]`.
        targets: `[windows + window]`.
        window: rows of each window.
        inner_rate: step size of the descent.
        inner_steps: number of steps, >= 1.
        share_rows: take the two passes of the first step once per row, instead of once per window
            that the row is in; there all windows have the same parameters.

    Returns:
        Predictions of rows `window ..`, `[windows]`.
    """
    layers, windows = len(params), len(features) - window
    slope = 2.0 / window
    first_scale = _scale(0, layers)

    def slide(rows: Tensor) -> Tensor:
        """`[rows, width]` -> `[windows, window, width]`, a view of a contiguous tensor."""
        width = rows.shape[-1]
        return rows.as_strided((windows, window, width), (width, width, 1))

    gram = torch.mm(features, features.T).add_(1.0)
    pitch = len(features)
    kernel = gram.as_strided((windows, window, window), (pitch + 1, pitch, 1))
    query_kernel = gram.as_strided((windows, 1, window), (pitch + 1, pitch, 1), window * pitch)
    row_z = _affine(features, *params[0], first_scale)
    query_z = row_z[window:].unsqueeze(1).clone()
    z = slide(row_z)
    window_y = slide(targets.unsqueeze(-1))
    weights, biases = [w for w, _ in params[1:]], [b for _, b in params[1:]]

    moved = None
    for k in range(inner_steps):
        if k == 0 and share_rows:
            activations, y_hat = _forward(row_z.clone(), weights, biases, layers)
            ds = _backward((y_hat - targets.unsqueeze(-1)).mul_(slope), activations, weights)
            activations, ds = [slide(a) for a in activations], [slide(d) for d in ds]
        else:
            activations, y_hat = _forward(
                z.clone(memory_format=torch.contiguous_format), weights, biases, layers
            )
            ds = _backward((y_hat - window_y).mul_(slope), activations, weights)
        moved = ds[0].clone(memory_format=torch.contiguous_format) if k == 0 else moved.add_(ds[0])
        if k == inner_steps - 1:
            break
        if k == 0:  # the rows overlap: the first sum cannot be taken in place
            z = torch.baddbmm(z, kernel, ds[0], alpha=-first_scale * inner_rate)
        else:
            z.baddbmm_(kernel, ds[0], alpha=-first_scale * inner_rate)
        weights = [
            _descend(w, a, d, inner_rate, in_place=True)
            for w, a, d in zip(weights, activations, ds[1:], strict=True)
        ]
        biases = [
            torch.sub(b, d.sum(1, keepdim=True), alpha=inner_rate)
            for b, d in zip(biases, ds[1:], strict=True)
        ]

    z = query_z.baddbmm_(query_kernel, moved, alpha=-first_scale * inner_rate)
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True), start=1):
        query_a, scale = _activate_(z), _scale(layer, layers)
        z = _affine(query_a, w, b, scale)
        likeness = torch.bmm(query_a, activations[layer - 1].mT).add_(1.0)
        z.baddbmm_(likeness, ds[layer], alpha=-scale * inner_rate)
    return z.view(-1)
