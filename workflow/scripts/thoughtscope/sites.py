"""Sites: where in a model an SAE reads, and the sink tokens there. Used by the SAE and activation rooms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

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
