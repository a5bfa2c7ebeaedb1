"""Forms of the meta-step that take one task after another, as PyTorch code mostly does."""

import higher
import torch
import torch.nn.functional as F
import torchopt
from torch import Tensor, nn

from benchmarks.peers.forms import Autograd


def _functional_forward(weights: dict[str, Tensor], x: Tensor, layers: int) -> Tensor:
    for layer in range(layers):
        x = F.linear(x, weights[f"weight{layer}"], weights[f"bias{layer}"])
        if layer < layers - 1:
            x = torch.tanh(x)
    return x


class SeedLoop(Autograd):
    """The tutorial's way: a loop over tasks, each with a dict of weights of its own."""

    name = "seed_loop"

    def _backward(self):
        problem, layers = self.problem, len(self.problem.params)
        names = [f"{kind}{layer}" for layer in range(layers) for kind in ("weight", "bias")]
        meta_weights = dict(zip(names, self.parameters, strict=True))
        total = torch.zeros(())
        for support_x, support_y, query_x, query_y in zip(*self.data, strict=True):
            weights = {name: weight.clone() for name, weight in meta_weights.items()}
            for _ in range(problem.inner_steps):
                loss = F.mse_loss(_functional_forward(weights, support_x, layers), support_y)
                grads = torch.autograd.grad(
                    loss, list(weights.values()), create_graph=problem.second_order
                )
                weights = {
                    name: weight - problem.inner_rate * grad
                    for (name, weight), grad in zip(weights.items(), grads, strict=True)
                }
            total = total + F.mse_loss(_functional_forward(weights, query_x, layers), query_y)
        loss = total / self.tasks
        loss.backward()
        return loss.detach()


class _Module(Autograd):
    """A form that keeps its parameters in an `nn.Sequential`."""

    def _make_parameters(self):
        blocks = []
        for w, b in self.problem.params:
            linear = nn.Linear(*w.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(w.T))
                linear.bias.copy_(torch.from_numpy(b))
            blocks += [linear, nn.Tanh()]
        self.model = nn.Sequential(*blocks[:-1])
        return list(self.model.parameters())


def _clone_module(module: nn.Module) -> nn.Module:
    """Copy a module, recursively, so that its parameters are differentiable clones."""
    copy = module.__new__(type(module))
    copy.__dict__ = {
        **module.__dict__,
        "_parameters": {
            name: None if parameter is None else parameter.clone()
            for name, parameter in module._parameters.items()
        },
        "_buffers": {
            name: None if buffer is None else buffer.clone()
            for name, buffer in module._buffers.items()
        },
        "_modules": {
            name: None if child is None else _clone_module(child)
            for name, child in module._modules.items()
        },
    }
    return copy


def _descend_module(module: nn.Module, updates: dict[Tensor, Tensor]) -> None:
    """Replace every parameter below `module` by itself plus its update."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = parameter + updates[parameter]
    for child in module._modules.values():
        if child is not None:
            _descend_module(child, updates)


class Learn2learnLoop(_Module):
    """The algorithm of learn2learn's MAML wrapper: clone a module per task, adapt the clone."""

    name = "learn2learn_loop"

    def _backward(self):
        problem = self.problem
        total = torch.zeros(())
        for support_x, support_y, query_x, query_y in zip(*self.data, strict=True):
            learner = _clone_module(self.model)
            for _ in range(problem.inner_steps):
                loss = F.mse_loss(learner(support_x), support_y)
                parameters = list(learner.parameters())
                grads = torch.autograd.grad(loss, parameters, create_graph=problem.second_order)
                _descend_module(
                    learner,
                    {
                        parameter: -problem.inner_rate * grad
                        for parameter, grad in zip(parameters, grads, strict=True)
                    },
                )
            total = total + F.mse_loss(learner(query_x), query_y)
        loss = total / self.tasks
        loss.backward()
        return loss.detach()


class HigherLoop(_Module):
    """The package higher: a patched module and a differentiable optimizer per task."""

    name = "higher_loop"

    def _backward(self):
        problem = self.problem
        inner = torch.optim.SGD(self.model.parameters(), lr=problem.inner_rate)
        total = torch.zeros(())
        for support_x, support_y, query_x, query_y in zip(*self.data, strict=True):
            with higher.innerloop_ctx(
                self.model,
                inner,
                copy_initial_weights=False,
                track_higher_grads=problem.second_order,
            ) as (model, optimizer):
                for _ in range(problem.inner_steps):
                    optimizer.step(F.mse_loss(model(support_x), support_y))
                loss = F.mse_loss(model(query_x), query_y) / self.tasks
                if problem.second_order:
                    loss.backward()
                else:  # the adapted parameters are leaves: hand their gradient on
                    grads = torch.autograd.grad(loss, list(model.parameters()))
                    _accumulate(self.parameters, grads)
                total += loss.detach()
        return total


def _accumulate(parameters: list[Tensor], grads) -> None:
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)


class TorchoptLoop(_Module):
    """The package TorchOpt, as its documentation does MAML.

    Second order: `MetaSGD` moves the module in place, and the module's state is recovered after
    each task. It always keeps the graph, so the first order takes TorchOpt's functional optimizer.
    """

    name = "torchopt_loop"

    def _backward(self):
        return self._second_order() if self.problem.second_order else self._first_order()

    def _second_order(self) -> Tensor:
        problem, model = self.problem, self.model
        inner = torchopt.MetaSGD(model, lr=problem.inner_rate)
        model_state = torchopt.extract_state_dict(model, by="reference", detach_buffers=True)
        inner_state = torchopt.extract_state_dict(inner, by="reference")
        total = torch.zeros(())
        for support_x, support_y, query_x, query_y in zip(*self.data, strict=True):
            for _ in range(problem.inner_steps):
                inner.step(F.mse_loss(model(support_x), support_y))
            loss = F.mse_loss(model(query_x), query_y) / self.tasks
            loss.backward()
            total += loss.detach()
            torchopt.recover_state_dict(model, model_state)
            torchopt.recover_state_dict(inner, inner_state)
        return total

    def _first_order(self) -> Tensor:
        problem, layers = self.problem, len(self.problem.params)
        names = [f"{kind}{layer}" for layer in range(layers) for kind in ("weight", "bias")]
        inner = torchopt.sgd(lr=problem.inner_rate)
        total = torch.zeros(())
        for support_x, support_y, query_x, query_y in zip(*self.data, strict=True):
            weights = tuple(p.detach().requires_grad_() for p in self.parameters)
            state = inner.init(weights)
            for _ in range(problem.inner_steps):
                named = dict(zip(names, weights, strict=True))
                loss = F.mse_loss(_functional_forward(named, support_x, layers), support_y)
                grads = torch.autograd.grad(loss, weights)
                updates, state = inner.update(grads, state, inplace=False)
                weights = torchopt.apply_updates(weights, updates, inplace=False)
                weights = tuple(weight.detach().requires_grad_() for weight in weights)
            named = dict(zip(names, weights, strict=True))
            loss = F.mse_loss(_functional_forward(named, query_x, layers), query_y) / self.tasks
            _accumulate(self.parameters, torch.autograd.grad(loss, weights))
            total += loss.detach()
        return total
