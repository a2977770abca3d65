"""Sites: where in a model an SAE reads, and the sink tokens there. Used by the SAE and activation rooms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .config import layer_of, parse_site
from .errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SINK_NORM_RATIO = 10.0
"""A token is a sink if its norm at the site exceeds this many times the trace's median."""


def sinks(norms: Tensor) -> Tensor:
    """Return which tokens of one trace are sinks, from their norms at the site, shape (tokens,).

    Position 0, and every token whose norm exceeds SINK_NORM_RATIO times the median.
    """
    flagged = norms > SINK_NORM_RATIO * norms.median()
    flagged[0] = True
    return flagged


def blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return the path under the base model of the list of its blocks, and that list."""
    for name, module in model.base_model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers:
            return name, module
    raise InputError(f"a model of type {model.config.model_type!r} has no list of its blocks; it can't be read.")


@contextmanager
def stopping_after(model: PreTrainedModel, layer: int) -> Iterator[None]:
    """Within it a pass of the model ends with block `layer`: the blocks after it and the head aren't computed."""
    name, modules = blocks(model)
    head = model.get_output_embeddings()
    try:
        model.base_model.set_submodule(name, modules[: layer + 1])
        model.config.num_hidden_layers = layer + 1
        model.set_output_embeddings(nn.Identity())
        yield
    finally:
        model.base_model.set_submodule(name, modules)
        model.config.num_hidden_layers = len(modules)
        model.set_output_embeddings(head)


class _Passed(nn.Module):
    """In place of a block: gives on what it gets, in the way that the block would."""

    def __init__(self, block: nn.Module, in_tuple: bool) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not as a submodule: nothing of it is to be found twice
        self.in_tuple = in_tuple

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)

    def forward(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return (hidden_states,) if self.in_tuple else hidden_states


_GIVE_TUPLES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def _blocks_give_tuples(model: PreTrainedModel) -> bool:
    """Return whether a model's blocks give their states in a tuple; a pass of one token tells, once a model."""
    if model not in _GIVE_TUPLES:
        gives: list[Any] = []
        first = blocks(model)[1][0]
        with first.register_forward_hook(lambda _module, _args, output: gives.append(output)), torch.no_grad():
            model.base_model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device), use_cache=False)
        _GIVE_TUPLES[model] = isinstance(gives[0], tuple)
    return _GIVE_TUPLES[model]


@contextmanager
def starting_at(model: PreTrainedModel, layer: int, states: Tensor) -> Iterator[None]:
    """Within it a pass of the model begins with block `layer`, whose input is `states` (batch, tokens, width).

    What it is called with must have that batch and tokens; which tokens they are says nothing any more.
    """
    name, modules = blocks(model)
    passed = [_Passed(block, _blocks_give_tuples(model)) for block in modules[:layer]]
    try:
        model.base_model.set_submodule(name, nn.ModuleList([*passed, *modules[layer:]]))
        with replacing(model, f"{name}.{layer}@residual_in", lambda _embedded: states):
            yield
    finally:
        model.base_model.set_submodule(name, modules)


@contextmanager
def ending_with(model: PreTrainedModel, output: Any) -> Iterator[None]:
    """Within it a pass of the model is its head alone, on `output`: what the base model gave."""
    # In the instance, where it hides the class's own; a model has no other way to leave its blocks out.
    model.base_model.forward = lambda *_args, **_kwargs: output
    try:
        yield
    finally:
        del model.base_model.forward


@contextmanager
def replacing(model: PreTrainedModel, site: str, edit: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Within it every pass goes on with edit(states) in place of the states (batch, tokens, width) at a site.

    Where `edit` returns None they stay. A site is a hookpoint (the module's output), or `hookpoint@residual_in` /
    `hookpoint@residual_out`: the residual stream entering / leaving the block the hookpoint lies in.
    """
    hookpoint, read_from = parse_site(site)
    block = blocks(model)[1][layer_of(hookpoint)]

    def on_output(_module: nn.Module, _args: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return edit(output)
        edited = edit(output[0])
        return None if edited is None else (edited, *output[1:])

    def on_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        edited = edit(args[0] if args else kwargs["hidden_states"])
        if edited is None:
            return None
        return ((edited, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": edited})

    match read_from:
        case "residual_in":
            handle = block.register_forward_pre_hook(on_input, with_kwargs=True)
        case "residual_out":
            handle = block.register_forward_hook(on_output)
        case _:
            handle = model.base_model.get_submodule(hookpoint).register_forward_hook(on_output)
    with handle:  # removes it at the end
        yield


@contextmanager
def reading(model: PreTrainedModel, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Give a dict in which, within it, every pass of the model leaves the states (batch, tokens, width) at the sites.

    The states are the model's own tensors, and of the last pass alone. It reads on through all its blocks; together
    with `stopping_after` no further than it must.
    """
    states: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name in names:
            hooks.enter_context(replacing(model, name, partial(states.__setitem__, name)))
        yield states
