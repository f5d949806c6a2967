# SPDX-License-Identifier: Apache-2.0
"""On a GPU: the words of the CPU, and models of transformers and flash-linear-attention that train there."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from bits import assert_same_bits, hard
from test_linear import RECIPES, make, passes
from test_convert import toy

from nvfp4.torch import convert, converted, step

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


@pytest.mark.parametrize("recipe", ["nvfp4", "chon"])
def test_gla_of_flash_linear_attention_trains_50_steps(recipe):
    models = pytest.importorskip("fla.models", reason="flash-linear-attention is not installed", exc_type=ImportError)
    from triton.runtime.autotuner import Autotuner

    original = Autotuner.__init__
    if not getattr(Autotuner, "_two", False):  # tuning takes minutes, and results hardly depend on the configuration
        def start(self, fn, arg_names, configs, *rest, **named):
            original(self, fn, arg_names, configs[:1], *rest, **named)
        Autotuner.__init__, Autotuner._two = start, True
    torch.manual_seed(3)
    config = models.GLAConfig(vocab_size=64, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_heads=2,
                              expand_k=0.5, expand_v=1.0, use_cache=False, fuse_cross_entropy=False,
                              tie_word_embeddings=False)
    model = convert(models.GLAForCausalLM(config).cuda(), recipe, seed=1)
    assert len(converted(model)) == 3 * 10 + 1
    ran = set()
    hooks = [m.register_forward_hook(lambda *_, path=path: ran.add(path)) for path, m in converted(model).items()]
    losses = train(model)
    for hook in hooks:
        hook.remove()
    assert ran == set(converted(model))  # no kernel reads a weight past its module
    assert np.isfinite(losses).all() and np.mean(losses[-5:]) < 0.8 * losses[0]
