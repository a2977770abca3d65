"""Decoding: many traces written at once; one joins the batch where another has ended.

Models whose blocks are known are decoded here, with products laid out for few rows and a cache of their own; all others
by transformers' `generate`. Both draw each token with the trace's own noise, so that the ways differ by rounding alone.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel

from ..devices import in_batches, is_out_of_memory
from ..errors import InputError, first_line
from ..job import every_few_seconds
from .sampling import TraceSampler, draw

KNOWN = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "SeedOssForCausalLM")
"""transformers' models of RMSNorm, grouped-query attention with rotary positions, RMSNorm and gated MLP in turn."""

STATIC_ROPES = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose frequencies don't change with the length of what was read."""

PREFILL_TOKENS = 2048
"""Prompt tokens read in one pass, padding included; a longer prompt is read alone."""

COLUMNS = {"cpu": 64, "cuda": 512}
"""Tokens a row by which the cache grows at least. Each growth copies it, and on a GPU captures the step anew."""


class Draws(NamedTuple):
    """How tokens are drawn: noise (traces, steps) from `sampling.uniforms`, temperature and top-p; of which traces."""

    noise: Tensor
    temperature: float
    top_p: float
    trace_ids: Sequence[int]

    def __call__(self, logits: Tensor, traces: list[int], steps: list[int]) -> list[int]:
        """Return the token of each trace at its step, from logits (traces, vocabulary)."""
        self.check(logits, traces, steps)
        return draw(logits, self.noise[traces, steps].to(logits.device), self.temperature, self.top_p).tolist()

    def check(self, logits: Tensor, traces: Sequence[int], steps: Sequence[int]) -> None:
        """Raise InputError where a trace's largest logit isn't a number, or not finite."""
        odd = (~logits.amax(-1).isfinite()).nonzero()
        if len(odd):
            row = int(odd[0])
            raise InputError(
                f"trace {self.trace_ids[traces[row]]} has logits that aren't finite, at token {steps[row]} of what it"
                " writes; set model.dtype to float32. If that doesn't help, the model's weights are damaged."
            )


def write(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    draws: Draws,
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    batch_size: int,
    log: logging.Logger,
) -> list[list[int]]:
    """Return the ids written after each prompt, up to and including the one that ended its turn.

    At most `batch_size` traces are written at a time, fewer where the GPU's memory doesn't hold them. Raises InputError
    when it doesn't hold one.
    """
    written: dict[int, list[int]] = {}
    started = time.monotonic()
    tick = every_few_seconds(log.info)
    way = decode if is_known(model) else generate

    def on_step(unfinished: Sequence[list[int]]) -> None:
        tokens = sum(map(len, written.values())) + sum(map(len, unfinished))
        tick(
            f"{len(written)} of {len(prompts)} traces written, {len(unfinished)} under way,"
            f" {tokens / (time.monotonic() - started):.0f} tokens/s"
        )

    def work(rows: Sequence[int]) -> bool:  # what is written stays so when memory runs out and fewer rows go on
        waiting = {trace: prompts[trace] for trace in range(len(prompts)) if trace not in written}
        written.update(way(model, waiting, draws, max_new_tokens, frozenset(stop_ids), len(rows), on_step))
        return True

    rows = range(min(batch_size, len(prompts)))
    next(in_batches(rows, len(rows), lambda rows, size: min(len(rows), max(1, size)), work, log))
    tokens = sum(map(len, written.values()))
    log.info("%d traces, %d tokens, %.0f tokens/s", len(prompts), tokens, tokens / (time.monotonic() - started))
    return [written[trace] for trace in range(len(prompts))]


OnStep = Callable[[Sequence[list[int]]], None]
"""Called before each draw with what the traces under way have written so far."""


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompts: dict[int, list[int]],
    draws: Draws,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    rows: int,
    on_step: OnStep,
) -> Iterator[tuple[int, list[int]]]:
    """Yield (trace, ids written) by transformers' `generate`, `rows` traces at a time, each padded on the left."""
    padding = min(stop_ids, default=0)  # any token serves: the mask hides it
    # Greedy generation in form; the sampler has made the draw. The model card's own sampling settings must not act a
    # second time, so its generation config is replaced, not amended.
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=sorted(stop_ids) or None, pad_token_id=padding
    )

    def cut(ids: list[int]) -> list[int]:
        return ids[: next((index + 1 for index, token in enumerate(ids) if token in stop_ids), len(ids))]

    traces = list(prompts)
    for first in range(0, len(traces), rows):
        batch = traces[first : first + rows]
        longest = max(len(prompts[trace]) for trace in batch)
        blank = [longest - len(prompts[trace]) for trace in batch]
        ids = [[padding] * n + prompts[trace] for n, trace in zip(blank, batch, strict=True)]
        mask = [[0] * n + [1] * (longest - n) for n in blank]
        sampler = TraceSampler(
            draws.noise[batch].to(model.device), draws.temperature, draws.top_p, longest, partial(_check, draws, batch),
            lambda ids: on_step([cut(row) for row in ids.tolist()]),
        )  # fmt: skip
        output = model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            logits_processor=LogitsProcessorList([sampler]),
        )
        yield from zip(batch, map(cut, output[:, longest:].tolist()), strict=True)


def _check(draws: Draws, batch: Sequence[int], logits: Tensor, step: int) -> None:
    draws.check(logits, batch, [step] * len(batch))


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: dict[int, list[int]],
    draws: Draws,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    rows: int,
    on_step: OnStep,
) -> Iterator[tuple[int, list[int]]]:
    """Yield (trace, ids written) by `Decoder`, as each ends; whatever waits then takes its row."""
    decoder = Decoder(model, rows)
    waiting = sorted(prompts, key=lambda trace: len(prompts[trace]))  # the longest is the last, and the first to go
    traces: list[int] = []  # of the rows in use, which are the first ones
    ids: list[list[int]] = []
    while waiting or traces:
        # A pass over one prompt costs a GPU as much as a step of all rows does, so it waits for some to be free.
        if waiting and (not traces or rows - len(traces) >= max(1, rows // 8)):
            joining = [waiting.pop()]
            most = max(1, PREFILL_TOKENS // len(prompts[joining[0]]))
            while waiting and len(joining) < min(most, rows - len(traces)):
                joining.append(waiting.pop())
            logits = decoder.prefill([prompts[trace] for trace in joining], len(traces))
            first = len(traces)
            traces += joining
            ids += [[] for _ in joining]
        else:
            positions = [len(prompts[trace]) + len(row) - 1 for trace, row in zip(traces, ids, strict=True)]
            logits = decoder.step([row[-1] for row in ids], positions)
            first = 0
        on_step(ids)
        for row, token in zip(ids[first:], draws(logits, traces[first:], list(map(len, ids[first:]))), strict=True):
            row.append(token)
        for place in reversed(range(first, len(traces))):  # the last row moves to where one has ended
            if ids[place][-1] in stop_ids or len(ids[place]) == max_new_tokens:
                yield traces[place], ids[place]
                decoder.move(len(traces) - 1, place)
                traces[place], ids[place] = traces[-1], ids[-1]
                traces.pop()
                ids.pop()


def is_known(model: PreTrainedModel) -> bool:
    """Return whether `Decoder` computes what this model does: its class, its settings and all its modules are known."""
    module, config = type(model).__module__, model.config
    if type(model).__name__ not in KNOWN or not module.startswith("transformers.models.") or model.training:
        return False
    parts = list(model.modules())
    rotary, parameters = model.model.rotary_emb, list(model.parameters())
    return (
        config.hidden_act == "silu"
        and getattr(config, "sliding_window", None) is None
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and rotary.rope_type in STATIC_ROPES
        and 2 * len(rotary.inv_freq) == model.model.layers[0].self_attn.head_dim
        # A module put in another's place (a quantised or adapted product, say) or a hook would be passed over.
        and all(type(part) in (nn.Linear, nn.Embedding, nn.ModuleList) or "activations" in type(part).__module__
                or type(part).__module__ == module for part in parts)
        and not any(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in parts)
        and {(tensor.dtype, tensor.device) for tensor in parameters} == {(model.dtype, model.device)}
        and model.device.type in COLUMNS
    )  # fmt: skip


class Block(NamedTuple):
    """What a block computes with: norms (weight, ε) and products, those that read the same input made one."""

    attention_norm: Callable[[Tensor], Tensor]
    queries_keys_values: Callable[[Tensor], Tensor]
    heads_norm: Callable[[Tensor], Tensor] | None
    attention_out: Callable[[Tensor], Tensor]
    mlp_norm: Callable[[Tensor], Tensor]
    gate_up: Callable[[Tensor], Tensor]
    down: Callable[[Tensor], Tensor]


class Decoder:
    """A model's forward pass for `rows` traces at a time, with the keys and values of what each has read.

    On the processor products are packed for it where it can, which takes the memory of the weights once more; elsewhere
    the model's own weights become parts of the joined ones. On a GPU a step always computes all rows, in a CUDA graph.
    """

    def __init__(self, model: PreTrainedModel, rows: int, static: bool | None = None) -> None:
        attention = model.model.layers[0].self_attn
        self.model, self.rows, self.device, self.dtype = model, rows, model.device, model.dtype
        self.static = self.device.type == "cuda" if static is None else static
        self.width, self.scaling = attention.head_dim, attention.scaling
        self.key_heads = model.config.num_key_value_heads
        self.heads = model.config.num_attention_heads + self.key_heads  # that turn with the position
        with torch.inference_mode(False), torch.no_grad():
            self.blocks = [self._block(layer) for layer in model.model.layers]
            self.norm = _norm(model.model.norm)
            self.head = _product([model.lm_head], rows)
        empty = torch.zeros((rows, self.key_heads, 0, self.width), dtype=self.dtype, device=self.device)
        self.keys = [empty] * len(self.blocks)  # (rows, key heads, columns, head width)
        self.values = [empty] * len(self.blocks)
        self.columns = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.capture = self.device.type == "cuda"
        self.tokens = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.positions = torch.zeros(rows, dtype=torch.long, device=self.device)

    def _block(self, layer: Any) -> Block:
        attention, mlp, heads_norm = layer.self_attn, layer.mlp, None
        if hasattr(attention, "q_norm"):
            norms = [attention.q_norm] * (self.heads - self.key_heads) + [attention.k_norm] * self.key_heads
            weight, epsilon = torch.stack([norm.weight for norm in norms]), attention.q_norm.variance_epsilon
            heads_norm = partial(_heads_norm, weight=weight, epsilon=epsilon)
        return Block(
            _norm(layer.input_layernorm),
            _product([attention.q_proj, attention.k_proj, attention.v_proj], self.rows),
            heads_norm,
            _product([attention.o_proj], self.rows),
            _norm(layer.post_attention_layernorm),
            _product([mlp.gate_proj, mlp.up_proj], self.rows),
            _product([mlp.down_proj], self.rows),
        )

    def prefill(self, prompts: Sequence[list[int]], first: int) -> Tensor:
        """Read prompts into the rows from `first` on; return the logits of what follows each, (prompts, vocabulary)."""
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        longest = max(map(len, prompts))
        self._grow(longest)
        # Padded on the right: under causal attention no token sees what follows it, and a step writes over it.
        padded = torch.tensor([prompt + [0] * (longest - len(prompt)) for prompt in prompts], device=self.device)
        rows = slice(first, first + len(prompts))

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            queries, keys, values = (part.transpose(1, 2) for part in (queries, keys, values))
            self.keys[layer][rows, :, :longest] = keys
            self.values[layer][rows, :, :longest] = values
            attended = F.scaled_dot_product_attention(
                queries, keys, values, is_causal=True, scale=self.scaling, enable_gqa=True
            )
            return attended.transpose(1, 2).flatten(2)

        states = self._forward(padded, torch.arange(longest, device=self.device), attend)
        return self.head(self.norm(states[torch.arange(len(prompts), device=self.device), lengths - 1]))

    def step(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Read one token a row, in the first rows, at its place in the trace; return logits (tokens, vocabulary)."""
        self._grow(max(positions) + 1)
        count = len(tokens)
        self.tokens[:count] = torch.tensor(tokens)
        self.positions[:count] = torch.tensor(positions)
        if self.capture and self.graph is None:
            self._capture()
        if self.graph is not None:
            self.graph.replay()
            return self.logits[:count]
        return self._step(self.rows if self.static else count)[:count]

    def _step(self, count: int) -> Tensor:
        """The step of the first `count` rows, of their `tokens` and `positions`: shapes alone decide what runs."""
        positions, rows = self.positions[:count], torch.arange(count, device=self.device)
        unread = torch.arange(self.columns, device=self.device) > positions[:, None]
        bias = torch.zeros(unread.shape, dtype=self.dtype, device=self.device).masked_fill_(unread, -torch.inf)
        bias = bias[:, None].expand(-1, self.key_heads, -1).reshape(count * self.key_heads, 1, -1)

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            self.keys[layer][rows, :, positions] = keys[:, 0]
            self.values[layer][rows, :, positions] = values[:, 0]
            # The queries of a group are the rows of one product with their keys, which are not expanded.
            queries = queries.reshape(count * self.key_heads, -1, self.width)
            keys, values = (cache[layer][:count].flatten(0, 1) for cache in (self.keys, self.values))
            scores = torch.baddbmm(bias, queries, keys.transpose(1, 2), alpha=self.scaling)
            return torch.bmm(scores.softmax(-1), values).view(count, 1, -1)

        return self.head(self.norm(self._forward(self.tokens[:count, None], positions[:, None], attend)[:, 0]))

    def _forward(
        self, ids: Tensor, positions: Tensor, attend: Callable[[int, Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Return the states after the last block of ids (rows, tokens), which `attend` lets see what came before."""
        rotary = self.model.model.rotary_emb
        angles = positions[..., None, None].float() * rotary.inv_freq.float()
        cosine, sine = angles.cos() * rotary.attention_scaling, angles.sin() * rotary.attention_scaling
        cosine = torch.cat([cosine, cosine], -1).to(self.dtype)
        sine = torch.cat([-sine, sine], -1).to(self.dtype)
        half = self.width // 2
        states = F.embedding(ids, self.model.model.embed_tokens.weight)
        for layer, block in enumerate(self.blocks):
            parts = block.queries_keys_values(block.attention_norm(states)).unflatten(-1, (-1, self.width))
            turning, values = parts[..., : self.heads, :], parts[..., self.heads :, :]
            if block.heads_norm:
                turning = block.heads_norm(turning)
            swapped = torch.cat([turning[..., half:], turning[..., :half]], -1)
            turned = torch.addcmul(turning * cosine, swapped, sine)
            queries, keys = turned[..., : -self.key_heads, :], turned[..., -self.key_heads :, :]
            states = states + block.attention_out(attend(layer, queries, keys, values))
            gate, up = block.gate_up(block.mlp_norm(states)).chunk(2, -1)
            states = states + block.down(F.silu(gate).mul_(up))
        return states

    def move(self, source: int, target: int) -> None:
        """Give what one row has read to another."""
        if source != target:
            for cache in (*self.keys, *self.values):
                cache[target] = cache[source]

    def _grow(self, columns: int) -> None:
        """Make room for that many tokens a row, and some more. What isn't read yet is 0, as its weight will be."""
        if columns <= self.columns:
            return
        self.graph = None  # it has the old addresses
        more = max(COLUMNS[self.device.type], self.columns // 8)
        more *= -(-(columns - self.columns) // more)
        for cache in (self.keys, self.values):
            for layer, old in enumerate(cache):
                cache[layer] = F.pad(old, (0, 0, 0, more))
        self.columns += more

    def _capture(self) -> None:
        """Capture the step of all rows as a CUDA graph; where that fails, steps go on without one.

        A step run twice with the same tokens writes the same to the cache, so warming up changes nothing.
        """
        try:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._step(self.rows)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.logits = self._step(self.rows)
            self.graph = graph
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self.capture = False
            logging.getLogger("thoughtscope").warning("no CUDA graph, so decoding is slower: %s", first_line(error))


def _norm(norm: Any) -> Callable[[Tensor], Tensor]:
    return partial(F.rms_norm, normalized_shape=norm.weight.shape, weight=norm.weight, eps=norm.variance_epsilon)


def _heads_norm(heads: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return F.rms_norm(heads, heads.shape[-1:], eps=epsilon) * weight


def _product(parts: Sequence[nn.Linear], rows: int) -> Callable[[Tensor], Tensor]:
    """Return one function for linear maps of the same input, whose outputs stand side by side."""
    weight = torch.cat([part.weight for part in parts]) if len(parts) > 1 else parts[0].weight.data
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
    if _packs(weight):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        return lambda states: torch.ops.mkldnn._linear_pointwise(states, packed, bias, "none", [], "")
    for part, own in zip(parts, weight.split([part.out_features for part in parts]), strict=True):
        part.weight.data = own  # so that joining takes no memory
    return partial(F.linear, weight=weight, bias=bias)


def _packs(weight: Tensor) -> bool:
    """Return whether oneDNN can lay out this weight for the processor it is on."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
