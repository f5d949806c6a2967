# SPDX-License-Identifier: Apache-2.0
"""On a GPU: the words of the CPU, and models of transformers and flash-linear-attention that train there."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from bits import assert_same_bits, hard
from linear_speed import without_tuning
from test_linear import RECIPES, make, passes
from test_convert import toy

from nvfp4.torch import Linear, _ops, convert, converted, step

pytest.importorskip("nvfp4._nvfp4_cuda", reason="this build has no CUDA part")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("rows, inputs, outputs", [(64, 128, 96), (33, 80, 56), (3, 16, 24), (256, 512, 384)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_words_of_the_cpu(recipe, rows, inputs, outputs, dtype):
    here = make(inputs, outputs, recipe).to(dtype)
    there = copy.deepcopy(here).cuda()
    x, dy = hard(rows, inputs).to(dtype), hard(rows, outputs, seed=2).to(dtype)
    for at in (0, 1):
        for name, a, b in zip(("y", "dx", "dW", "db"), passes(here, x, dy, at), passes(there, x.cuda(), dy.cuda(), at),
                              strict=True):
            assert b.device.type == "cuda"
            assert_same_bits(b.cpu(), a, f"{name} of step {at}")
    if here.hot_channels is not None:
        assert torch.equal(there.hot_channels.cpu(), here.hot_channels)
        assert_same_bits(there.hot_scores.cpu(), here.hot_scores)


def test_streams_and_empty_batches():
    layer = make(256, 192, "hcp").cuda()
    x, dy = hard(512, 256).cuda(), hard(512, 192, seed=2).cuda()
    expected = passes(layer, x, dy)
    stream = torch.cuda.Stream()
    for _ in range(5):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            late = x * 1.0  # made on that stream, just before
            got = passes(layer, late, dy * 1.0)
        torch.cuda.current_stream().wait_stream(stream)
        for a, b in zip(expected, got, strict=True):
            assert_same_bits(b, a)
    assert passes(layer, x[:0], dy[:0])[0].shape == (0, 192)


@pytest.mark.parametrize("recipe", ["nvfp4", "chon"])
def test_a_model_under_compile_has_the_words_of_the_cpu(recipe):
    here, there = toy(recipe), toy(recipe).cuda()
    compiled = torch.compile(there, backend="aot_eager")
    # FP32 between the layers is PyTorch's: the same words are asked for of one layer's input only
    x = hard(32, 64)
    with step(1, 0):
        compiled(x.cuda()).square().mean().backward()
        here(x).square().mean().backward()
    for (name, a), (_, b) in zip(here.named_parameters(), there.named_parameters(), strict=True):
        error = float((b.grad.cpu() - a.grad).norm() / a.grad.norm().clamp_min(1e-20))
        assert error < 0.5, name


def test_bf16_results_have_the_cpus_words_of_nan():
    here = make(48, 24, "nvfp4").bfloat16()
    there = copy.deepcopy(here).cuda()
    x, dy = hard(21, 48, special=True).bfloat16(), hard(21, 24, seed=2).bfloat16()
    y = passes(here, x, dy)
    assert y[0].isnan().any()
    for name, a, b in zip(("y", "dx", "dW", "db"), y, passes(there, x.cuda(), dy.cuda()), strict=True):
        assert_same_bits(b.cpu(), a, name)


ALL_RANKS = """{"name": "all-ranks", "amax": "all-ranks", "linears": {"plain": {
  "fprop": {"a": {"format": "nvfp4"}, "b": {"format": "nvfp4"}},
  "dgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8"}, "b": {"format": "nvfp4"}},
  "wgrad": {"a": {"format": "nvfp4", "hadamard": true, "rounding": "sr-carry8"}, "b": {"format": "nvfp4", "hadamard": true}}}},
 "default": "plain"}"""


@pytest.mark.parametrize("factor", [1.0, 1.7])
def test_amax_of_all_ranks(monkeypatch, factor):
    """Ranks are stood for by a reduction that enlarges every amax, as one that has seen larger ones does."""
    import ctypes

    calls = []

    def enlarge(address: int, count: int) -> None:
        values = torch.frombuffer((ctypes.c_float * count).from_address(address), dtype=torch.float32)
        calls.append(values.tolist())
        values *= factor

    monkeypatch.setattr(_ops, "_reduction", lambda ours: enlarge)
    here = make(80, 56, ALL_RANKS)
    there = copy.deepcopy(here).cuda()
    x, dy = hard(64, 80), hard(64, 56, seed=2)
    mine = passes(here, x, dy)
    count = len(calls)
    for name, a, b in zip(("y", "dx", "dW", "db"), mine, passes(there, x.cuda(), dy.cuda()), strict=True):
        assert_same_bits(b.cpu(), a, name)
    assert count == 2 and calls[:2] == calls[2:]
    if factor != 1.0:
        monkeypatch.setattr(_ops, "_reduction", lambda ours: None)
        assert not torch.equal(passes(there, x.cuda(), dy.cuda())[0].cpu(), mine[0])


@pytest.mark.parametrize("recipe", ["nvfp4", "chon"])
def test_layers_under_inductor_have_the_words_without(recipe):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    # nothing but layers: what inductor makes of FP32 operations between them may be rounded otherwise
    plain = torch.nn.Sequential(*(Linear(64, 64, recipe=recipe, id=i) for i in range(3))).cuda()
    other = copy.deepcopy(plain)
    compiled = torch.compile(other, fullgraph=True, backend="inductor")
    x, dy = hard(48, 64).cuda(), hard(48, 64, seed=2).cuda()
    for at in range(3):
        for run in (plain, compiled):
            run.zero_grad(set_to_none=True)
            with step(1, at):
                run(x).backward(dy)
        for a, b in zip(plain.parameters(), other.parameters(), strict=True):
            assert_same_bits(b.grad, a.grad, f"step {at}")
    assert not torch._dynamo.utils.counters["graph_break"]


def test_qwen3_trains_under_inductor():
    pytest.importorskip("transformers", reason="transformers is not installed")
    from test_transformers import small

    plain, compiled = (convert(small(max_position_embeddings=128).cuda(), "chon", seed=1) for _ in range(2))
    torch._dynamo.reset()
    losses = train(plain, 8), train(torch.compile(compiled), 8)
    assert np.abs(np.array(losses[0]) - losses[1]).max() < 0.05 * losses[0][0]


def train(model: torch.nn.Module, steps: int = 50) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for at in range(steps):
        start = torch.randint(0, 64, (8, 1), generator=torch.Generator().manual_seed(at))
        tokens = (start * 5 ** torch.arange(96) % 61).long().cuda()  # 5^96 wraps: still a function of the start
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("recipe", ["nvfp4", "chon"])
def test_qwen3_trains_50_steps(recipe):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from test_transformers import small

    losses = train(convert(small(max_position_embeddings=128).cuda(), recipe, seed=1))
    assert np.isfinite(losses).all() and np.mean(losses[-5:]) < 0.8 * losses[0]


def fla_model(kind: str) -> torch.nn.Module:
    without_tuning()
    models = pytest.importorskip("fla.models", reason="flash-linear-attention is not installed", exc_type=ImportError)
    torch.manual_seed(3)
    common = dict(vocab_size=64, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_heads=2, use_cache=False,
                  fuse_cross_entropy=False, tie_word_embeddings=False)
    if kind == "gla":
        return models.GLAForCausalLM(models.GLAConfig(**common, expand_k=0.5, expand_v=1.0)).cuda()
    return models.GatedDeltaNetForCausalLM(models.GatedDeltaNetConfig(**common, head_dim=64, expand_v=1)).cuda()


@pytest.mark.parametrize("recipe", ["nvfp4", "chon"])
@pytest.mark.parametrize("kind, layers", [("gla", 10), ("gdn", 10)])
def test_models_of_flash_linear_attention_train_50_steps(kind, layers, recipe):
    model = convert(fla_model(kind), recipe, seed=1)
    assert len(converted(model)) == 3 * layers + 1
    ran = set()
    hooks = [m.register_forward_hook(lambda *_, path=path: ran.add(path)) for path, m in converted(model).items()]
    try:
        losses = train(model)
    except RuntimeError as error:
        if "produces incorrect results" in str(error):  # fla's own refusal, of some versions of Triton on some GPUs
            pytest.skip(str(error))
        raise
    for hook in hooks:
        hook.remove()
    assert ran == set(converted(model))  # no kernel reads a weight past its module
    assert np.isfinite(losses).all() and np.mean(losses[-5:]) < 0.8 * losses[0]


def test_gla_of_flash_linear_attention_under_inductor():
    plain, compiled = (convert(fla_model("gla"), "nvfp4", seed=1) for _ in range(2))
    torch._dynamo.reset()
    losses = train(plain, 8), train(torch.compile(compiled), 8)
    assert np.abs(np.array(losses[0]) - losses[1]).max() < 0.05 * losses[0][0]
