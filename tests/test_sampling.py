"""Sampling: the noise belongs to the trace, and the draw is the distribution's."""

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import TopPLogitsWarper

from thoughtscope.traces.sampling import draw, nucleus, uniforms


def kept(probabilities, top_p):
    """The nucleus as `probabilities` with all others 0."""
    ids, members = nucleus(probabilities, top_p)
    return torch.zeros_like(probabilities).scatter_add(-1, ids, members)


def test_noise_depends_on_seed_condition_trace_and_step_alone():
    together = uniforms(3, "reason", [0, 1, 2, 7], 20)
    alone = uniforms(3, "reason", [7], 50)
    assert torch.equal(together[3], alone[0, :20])
    assert torch.equal(uniforms(3, "reason", [2, 0], 20), together[[2, 0]])
    assert not torch.equal(uniforms(4, "reason", [0], 20), together[:1])
    assert not torch.equal(uniforms(3, "direct", [0], 20), together[:1])
    assert len(together.unique()) == 80


def test_noise_is_uniform():
    noise = uniforms(0, "reason", range(200), 100).flatten().numpy()
    counts, _ = np.histogram(noise, bins=10, range=(0, 1))
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000)


@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("scale", [0.05, 3.0])  # nearly flat (the nucleus is wider than the guess) and peaked
def test_nucleus_is_that_of_transformers(top_p, scale):
    torch.manual_seed(0)
    logits = scale * torch.randn(6, 2000)
    found = kept(logits.softmax(-1), top_p) > 0
    expected = TopPLogitsWarper(top_p)(torch.zeros(6, 1, dtype=torch.long), logits).isfinite()
    assert torch.equal(found, expected)


def test_nucleus_keeps_ties_and_does_not_depend_on_the_batch():
    probabilities = torch.tensor([[0.4, 0.2, 0.2, 0.1, 0.1], [0.96, 0.01, 0.01, 0.01, 0.01]])
    members = kept(probabilities, 0.5)
    assert (members[0] > 0).tolist() == [True, True, True, False, False]
    assert (members[1] > 0).tolist() == [True, False, False, False, False]
    assert torch.equal(kept(probabilities[:1], 0.5)[0], members[0])


def test_draw_inverts_the_cumulative_distribution():
    torch.manual_seed(1)
    logits = torch.randn(1, 5)
    probabilities = torch.softmax(logits[0] / 0.7, -1).double().numpy()
    noise = torch.linspace(0, 1, 4001, dtype=torch.float64)[:-1]
    tokens = draw(logits.expand(len(noise), -1), noise, temperature=0.7, top_p=1.0)
    shares = np.bincount(tokens.numpy(), minlength=5) / len(noise)
    assert np.allclose(shares, probabilities, atol=1e-3)
    expected = np.searchsorted(np.cumsum(probabilities) / probabilities.sum(), noise.numpy(), side="right")
    assert (tokens.numpy() == expected).mean() > 0.999  # all but where rounding decides


@pytest.mark.parametrize("top_p", [0.5, 0.95, 0.9999, 1.0])
def test_draw_is_that_of_the_whole_vocabulary_sorted_and_summed_in_float64(top_p):
    """Rows from nearly flat to peaked, with ties, in a vocabulary that no stretch divides."""
    torch.manual_seed(2)
    logits = (torch.linspace(0.05, 6, 300)[:, None] * torch.randn(300, 3001)).mul(4).round() / 4
    noise = torch.rand(300, dtype=torch.float64)
    probabilities = torch.softmax(logits / 0.7, -1).double()
    descending = probabilities.sort(descending=True).values
    last = (descending.cumsum(-1) < top_p).sum(-1).clamp(max=3000)
    members = probabilities.where(probabilities >= descending.gather(-1, last[:, None]), 0)
    cumulative = members.cumsum(-1)
    expected = torch.searchsorted(cumulative, noise[:, None] * cumulative[:, -1:], right=True)[:, 0]
    assert torch.equal(draw(logits, noise, 0.7, top_p), expected)
    assert torch.equal(draw(logits[7:9], noise[7:9], 0.7, top_p), expected[7:9])


def test_draw_never_leaves_the_nucleus():
    logits = torch.log(torch.tensor([[0.05, 0.6, 0.05, 0.3]])).expand(3, -1)
    noise = torch.tensor([0.0, 0.5, 1 - 1e-16], dtype=torch.float64)
    assert draw(logits, noise, temperature=1.0, top_p=0.8).tolist() == [1, 1, 3]


def test_temperature_zero_takes_the_likeliest():
    assert draw(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([0.99]), temperature=0, top_p=1).tolist() == [1]
