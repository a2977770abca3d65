"""Sites: where in a model an SAE reads, and the sink tokens there. Used by the SAE and activation rooms."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from .config import layer_of, parse_site
from .errors import InputError

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


def cut_after(model: PreTrainedModel, layer: int) -> None:
    """Drop all blocks after `layer` and the head, in place: what follows the site isn't computed."""
    name, modules = blocks(model)
    model.base_model.set_submodule(name, modules[: layer + 1])
    model.config.num_hidden_layers = layer + 1
    model.set_output_embeddings(nn.Identity())


def read(model: PreTrainedModel, site: str, keep: Callable[[Tensor], None]) -> RemovableHandle:
    """Hook a site: `keep` is called with its tensor (batch, tokens, width) at every pass. Returns the hook's handle.

    A site is a hookpoint (the module's output), or `hookpoint@residual_in` / `hookpoint@residual_out`: the residual
    stream entering / leaving the block the hookpoint lies in.
    """
    hookpoint, read_from = parse_site(site)
    block = blocks(model)[1][layer_of(hookpoint)]

    def on_output(_module: nn.Module, _args: Any, output: Any) -> None:
        keep(output[0] if isinstance(output, tuple) else output)

    def on_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(args[0] if args else kwargs["hidden_states"])

    match read_from:
        case "residual_in":
            return block.register_forward_pre_hook(on_input, with_kwargs=True)
        case "residual_out":
            return block.register_forward_hook(on_output)
        case _:
            return model.base_model.get_submodule(hookpoint).register_forward_hook(on_output)
