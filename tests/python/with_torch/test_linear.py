# SPDX-License-Identifier: Apache-2.0
"""The module itself: dtypes, shapes, gradients, hot channels, state, errors, and the operators under torch.library."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from bits import assert_same_bits, hard, words
from torch.utils._python_dispatch import TorchDispatchMode

import nvfp4.torch
from nvfp4 import _nvfp4
from nvfp4.torch import Linear, _ops, step

RECIPES = ["fp32", "bf16", "nvfp4-plain", "nvfp4", "hcp", "mxfp4-sr-rht", "mxfp8"]


def make(inputs: int, outputs: int, recipe: str, bias: bool = True, seed: int = 1, **options) -> Linear:
    layer = Linear(inputs, outputs, bias, recipe=recipe, id=7, **options)
    with torch.no_grad():
        layer.weight.copy_(hard(outputs, inputs, seed=seed) * 0.05)
        if bias:
            layer.bias.copy_(hard(outputs, seed=seed + 1).bfloat16())
    return layer


def passes(layer: Linear, x: torch.Tensor, dy: torch.Tensor, at: int = 0, micro_batch: int = 0):
    """y, dx, dW, db of step `at`."""
    layer.zero_grad(set_to_none=True)
    x = x.detach().requires_grad_()
    with step(3, at, micro_batch):
        y = layer(x)
        y.backward(dy)
    return [y.detach(), x.grad, layer.weight.grad, None if layer.bias is None else layer.bias.grad]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("shape", [(2, 3, 32, 80), (17, 48), (16,), (1, 1)])
def test_any_leading_shape_and_strides(recipe, shape):
    layer = make(shape[-1], 24, recipe)
    x, dy = hard(*shape), hard(*shape[:-1], 24, seed=2)
    whole = passes(layer, x, dy)
    flat = passes(layer, x.reshape(-1, shape[-1]), dy.reshape(-1, 24))
    strided = passes(layer, x.T.contiguous().T if x.dim() == 2 else x, dy.T.contiguous().T if x.dim() == 2 else dy)
    for other in (flat, strided):
        for a, b in zip(whole, other, strict=True):
            assert_same_bits(b.reshape(a.shape), a)


@pytest.mark.parametrize("recipe", RECIPES)
def test_bf16_tensors_hold_what_fp32_ones_are_rounded_to(recipe):
    """The recipes round x, W and dy to BF16 first, so BF16 tensors meet the same arithmetic; results are rounded to BF16."""
    x, dy = hard(40, 96).bfloat16(), hard(40, 56, seed=2).bfloat16()
    layer = make(96, 56, recipe)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.bfloat16())
    wide = passes(layer, x.float(), dy.float())
    narrow = passes(copy.deepcopy(layer).bfloat16(), x, dy)
    for a, b in zip(wide, narrow, strict=True):
        assert b.dtype == torch.bfloat16
        assert_same_bits(b, a.bfloat16())


@pytest.mark.parametrize("recipe", RECIPES)
def test_nan_infinity_and_empty_batches(recipe):
    layer = make(48, 32, recipe)
    x, dy = hard(24, 48, special=True), hard(24, 32, seed=2, special=True)
    for a, b in zip(passes(layer, x, dy), passes(copy.deepcopy(layer), x, dy), strict=True):
        assert torch.equal(words(a), words(b))
    y, dx, dw, db = passes(layer, x[:0], dy[:0])
    assert y.shape == (0, 32) and dx.shape == (0, 48) and not dw.any() and not db.any()


@pytest.mark.parametrize("recipe", ["fp32", "bf16", "nvfp4", "hcp", "mxfp8"])
def test_gradients_are_those_of_a_linear_layer(recipe):
    layer = make(128, 64, recipe)
    x, dy = torch.randn(256, 128), torch.randn(256, 64)
    ours = passes(layer, x, dy)
    exact = [x.double() @ layer.weight.double().T + layer.bias.double(), dy.double() @ layer.weight.double(),
             dy.double().T @ x.double(), dy.double().sum(0)]
    # relative RMS errors of the formats on such data; FP32 sums for db everywhere
    limit = {"fp32": 1e-6, "bf16": 6e-3, "mxfp8": 0.06}.get(recipe, 0.25)
    for got, want, most in zip(ours, exact, [limit, limit, limit, 1e-6], strict=True):
        error = float((got.detach().double() - want.detach()).norm() / want.detach().norm())
        assert error < most
    if recipe in ("nvfp4", "hcp"):
        assert float((ours[0].double() - exact[0].detach()).norm() / exact[0].detach().norm()) > 0.01  # this is FP4


def test_dgrad_of_plain_recipes_is_the_forward_product_of_the_transposed_weight():
    for recipe in ("nvfp4-plain", "bf16", "mxfp8"):
        layer, other = make(96, 64, recipe, bias=False), Linear(64, 96, False, recipe=recipe)
        with torch.no_grad():
            other.weight.copy_(layer.weight.T)
        x, dy = hard(33, 96), hard(33, 64, seed=2)
        assert_same_bits(passes(layer, x, dy)[1], other(dy).detach())


def test_random_words_depend_on_seed_step_micro_batch_and_layer():
    x, dy = hard(32, 64), hard(32, 48, seed=2)
    layer = make(64, 48, "nvfp4")
    first = passes(layer, x, dy)
    again = passes(layer, x, dy)
    for a, b in zip(first, again, strict=True):
        assert_same_bits(b, a)
    for at, micro_batch in ((1, 0), (0, 1)):
        other = passes(layer, x, dy, at, micro_batch)
        assert_same_bits(other[0], first[0])  # fprop rounds to nearest
        assert not torch.equal(words(other[1]), words(first[1]))
        assert not torch.equal(words(other[2]), words(first[2]))
    elsewhere = make(64, 48, "nvfp4")
    elsewhere._spec = json.dumps({**json.loads(elsewhere._spec), "id": 8})
    assert not torch.equal(words(passes(elsewhere, x, dy)[1]), words(first[1]))


def test_threads_change_no_bit():
    layer, x, dy = make(192, 160, "hcp"), hard(96, 192), hard(96, 160, seed=2)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = passes(layer, x, dy)
        torch.set_num_threads(3)
        three = passes(layer, x, dy)
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(one, three, strict=True):
        assert_same_bits(b, a)


def recipe_file(tmp_path, change):
    """That recipe with a change to its linear."""
    recipe = json.loads(_hcp())
    change(recipe["linears"]["nvfp4"], recipe)
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe))
    return str(path)


def _hcp() -> str:
    """A recipe with the patch in every layer, with every field written out."""
    short = {"name": "test", "linears": {"nvfp4": {"fprop": {"a": "nvfp4", "b": {"format": "nvfp4", "block_rows": 16}},
                                                 "dgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8"},
                                                           "b": {"format": "nvfp4", "block_rows": 16}},
                                                 "wgrad": {"a": "nvfp4", "b": "nvfp4"}, "hcp": {}}}, "default": "nvfp4"}
    return str(_nvfp4.linear_recipe(json.dumps(short), "gla")[1])


def test_a_patch_that_changes_with_the_step_is_refused(tmp_path):
    def late(linear, recipe):
        recipe["linears"]["plain"] = {k: v for k, v in linear.items() if k != "hcp"}
        recipe["default"] = "plain"
        recipe["rules"] = [{"from": 10, "use": "nvfp4"}]

    with pytest.raises(ValueError, match="changes the Hot-Channel Patch of .* at step 10"):
        Linear(96, 80, recipe=recipe_file(tmp_path, late))

    def formats_alone(linear, recipe):
        late(linear, recipe)
        recipe["linears"]["plain"]["hcp"] = linear["hcp"]
        recipe["linears"]["plain"]["wgrad"] = {"a": "bf16", "b": "bf16"}

    changing, first, last = (make(96, 80, recipe_file(tmp_path, change)) for change in
                             (formats_alone, lambda l, r: l.update(wgrad={"a": "bf16", "b": "bf16"}), lambda l, r: None))
    x, dy = hard(64, 96), hard(64, 80, seed=2)
    for other, at in ((first, 9), (last, 10)):
        for a, b in zip(passes(changing, x, dy, at), passes(other, x, dy, at), strict=True):
            assert_same_bits(b, a)


def test_hot_channels_are_chosen_kept_and_refreshed(tmp_path):
    layer, x, dy = make(96, 80, "hcp"), hard(64, 96), hard(64, 80, seed=2)
    assert layer.hot_channels.tolist() == [-1] * 16  # ceil(96 / 16 / 16) * 16
    plain = make(96, 80, "nvfp4")
    layer.eval()
    assert_same_bits(passes(layer, x, dy)[0], passes(plain, x, dy)[0])  # none chosen, none used
    layer.train()
    y = passes(layer, x, dy)[0]
    chosen, scores = layer.hot_channels.clone(), layer.hot_scores.clone()
    assert len(set(chosen.tolist())) == 16 and 3 in chosen.tolist()
    assert chosen.tolist() == sorted(range(96), key=lambda j: (-float(scores[j]), j))[:16]
    assert not torch.equal(words(y), words(passes(plain, x, dy)[0]))
    passes(layer, x.flip(-1), dy, 49)
    passes(layer, x.flip(-1), dy, 50, micro_batch=1)
    assert torch.equal(layer.hot_channels, chosen)  # the period is 50 steps, the first micro-batch chooses
    passes(layer, x.flip(-1), dy, 50)
    assert not torch.equal(layer.hot_channels, chosen)

    def dgrad_too(linear, _):
        linear["hcp"] = {"dgrad": True, "k": 32, "choice": "magnitude"}
        linear["dgrad"]["a"] = "nvfp4"

    both = make(96, 80, recipe_file(tmp_path, dgrad_too))
    passes(both, x, dy)
    assert both.hot_channels_dgrad.shape == (32,) and both.hot_scores_dgrad.shape == (80,)
    assert_same_bits(both.hot_scores_dgrad, dy.bfloat16().float().abs().amax(0))
    assert_same_bits(both.hot_scores, x.bfloat16().float().abs().amax(0))
    # a layer that is called twice in a pass
    x2 = x.clone().requires_grad_()
    with step(0, 0):
        (both(x2) * dy + both(x2 * 2) * dy).sum().backward()
    assert x2.grad.isfinite().all()


@pytest.mark.parametrize("write", ["copy_", "data", "load_state_dict"])
@pytest.mark.parametrize("training", [True, False])
def test_channels_that_are_written_count_at_once(write, training):
    """Channels are read into host memory seldom; no way of writing them may leave old ones in use."""
    x, dy, others = hard(64, 96), hard(64, 80, seed=2), torch.arange(20, 52, 2, dtype=torch.int32)
    layer, fresh = (make(96, 80, "hcp") for _ in range(2))
    for each in (layer, fresh):
        passes(each, x, dy)
    before = passes(layer.train(training), x, dy, 7)
    fresh.load_state_dict({**fresh.state_dict(), "hot_channels": others})
    expected = passes(copy.deepcopy(fresh).train(training), x, dy, 7)
    if write == "load_state_dict":
        layer.load_state_dict({**layer.state_dict(), "hot_channels": others})
    else:
        with torch.no_grad():
            (layer.hot_channels.data if write == "data" else layer.hot_channels).copy_(others)
    for a, b in zip(passes(layer, x, dy, 7), expected, strict=True):
        assert_same_bits(a, b)
    assert not torch.equal(words(before[0]), words(expected[0]))


def test_a_pass_of_a_model_reads_all_channels_at_once(monkeypatch):
    model = nvfp4.torch.convert(torch.nn.Sequential(*[torch.nn.Linear(96, 96) for _ in range(4)]), "hcp",
                                roles=lambda path: "mlp.up_proj", layers=8)
    looks = []
    look = _ops._HotChannels._look
    monkeypatch.setattr(_ops._HotChannels, "_look", lambda self, device: looks.append(device) or look(self, device))
    x = hard(32, 96)
    for at in range(3):  # the first chooses
        with step(1, at):
            model(x).sum().backward()
        if at == 0:
            looks.clear()
    assert len(looks) == 2
    model.eval()(x)
    assert len(looks) == 3


class Siblings(torch.nn.Module):
    """Four layers of one input, the third of another recipe's format; between the last two, what `between` does."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(96, 80) for _ in range(4))
        self.between = lambda x: x

    def forward(self, x):
        x = x * 1.0  # memory of the model's own
        a, b, c = (layer(x) for layer in self.layers[:3])
        return a + b + c + self.layers[3](self.between(x))


def siblings(recipe="nvfp4"):
    torch.manual_seed(0)
    roles = {"layers.2": "attn.o_proj", "layers.*": "attn.q_proj"}
    return nvfp4.torch.convert(Siblings(), recipe, roles=roles, layers=8)


@pytest.mark.parametrize("recipe", ["nvfp4", "chon", "mxfp4-sr-rht", "mxfp8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("between", ["nothing", "written", "another of that shape"])
def test_layers_that_share_their_input_have_the_words_of_layers_that_do_not(recipe, dtype, between, monkeypatch):
    shared, alone = siblings(recipe).to(dtype), siblings(recipe).to(dtype)
    change = {"nothing": lambda x: x, "written": lambda x: x.add_(1.0), "another of that shape": lambda x: x.detach() + 1.0}[between]
    if between == "written":  # then autograd refuses a backward pass
        change = lambda x: x.add_(1.0)  # noqa: E731
    numbers = []
    number = _ops._Contents.__call__

    def counted(self, t, shares):
        numbers.append(number(self, t, shares))
        return numbers[-1]

    results = []
    for model in (shared, alone):
        monkeypatch.setattr(_ops._Contents, "__call__", counted if model is shared else lambda self, t, shares: 0)
        model.between = change
        x = hard(64, 96).to(dtype)
        with step(5, 3):
            y = model(x)
            if between == "written":
                with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                    y.sum().backward()
                results.append([y])
                continue
            y.backward(hard(64, 80, seed=2).to(dtype))
        results.append([y, *(p.grad for p in model.parameters())])
    for a, b in zip(*results, strict=True):
        assert_same_bits(a, b)
    assert 0 not in numbers
    forward = numbers[:4]
    assert forward[:3] == [forward[0]] * 3 and (forward[3] == forward[0]) == (between == "nothing")


def test_data_are_not_shared_where_memory_may_be_written_unseen():
    model, x = siblings(), hard(64, 96)
    seen = []
    number = _ops._Contents.__call__
    patch = pytest.MonkeyPatch()
    patch.setattr(_ops._Contents, "__call__", lambda self, t, shares: seen.append(number(self, t, shares)) or seen[-1])
    with torch.no_grad():
        model(x)
    model.eval()(x)
    model.train().requires_grad_(False)(x)
    model.requires_grad_(True)
    torch.compile(model, backend="aot_eager")(x).sum().backward()
    assert seen and set(seen) == {0}
    data = x.numpy()  # whose writes nobody counts: each pass looks anew
    layer = make(96, 80, "nvfp4")
    before = layer(x).detach()
    data[:] += 1
    assert not torch.equal(words(layer(x)), words(before))
    patch.undo()


def test_state_is_saved_loaded_and_moved(tmp_path):
    layer, x, dy = make(96, 80, "hcp"), hard(64, 96), hard(64, 80, seed=2)
    passes(layer, x, dy)
    state = layer.state_dict()
    assert sorted(state) == ["bias", "hot_channels", "hot_scores", "weight"]
    torch.save(state, tmp_path / "state.pt")
    other = make(96, 80, "hcp", seed=9)
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    for a, b in zip(passes(layer, x, dy, 7), passes(other, x, dy, 7), strict=True):
        assert_same_bits(b, a)
    plain = torch.nn.Linear(96, 80)
    other.load_state_dict(plain.state_dict())  # strict; nothing chosen any more
    assert (other.hot_channels == -1).all() and not other.hot_scores.any()
    make(96, 80, "nvfp4").load_state_dict(state)  # a recipe without the patch
    assert other.to("meta").hot_channels.device.type == "meta"
    wide = make(96, 80, "hcp").bfloat16()
    assert wide.hot_channels.dtype == torch.int32
    copied = copy.deepcopy(layer)
    assert copied._clock is not layer._clock
    whole = tmp_path / "whole.pt"
    torch.save(layer, whole)
    loaded = torch.load(whole, weights_only=False)
    for a, b in zip(passes(layer, x, dy, 7), passes(loaded, x, dy, 7), strict=True):
        assert_same_bits(b, a)


def test_errors_say_what_was_expected():
    layer = make(32, 16, "nvfp4")
    with pytest.raises(ValueError, match=r"expected x of shape \[..., 32\], got \[4, 31\]"):
        layer(torch.randn(4, 31))
    with pytest.raises(TypeError, match="expected x in float32 or bfloat16, got torch.float16"):
        layer(torch.randn(4, 32).half())
    with pytest.raises(TypeError, match="expected weight in float32 or bfloat16, got torch.float64"):
        copy.deepcopy(layer).double()(torch.randn(4, 32))
    with pytest.raises(ValueError, match="unknown recipe 'nvfp5'.*expected one of fp32"):
        Linear(32, 16, recipe="nvfp5")
    with pytest.raises(ValueError, match="unknown model family"):
        Linear(32, 16, family="bert")
    with pytest.raises(ValueError, match="expected a seed from 0"):
        Linear(32, 16, seed=-1)
    with pytest.raises(ValueError, match="expected a layer of at least 1 x 1"):
        Linear(0, 16)
    with pytest.raises(ValueError, match="expected a seed from 0"), step(0, -1):
        pass
    if importlib.util.find_spec("nvfp4._nvfp4_cuda") is None:
        with pytest.raises(ValueError, match="this build of nvfp4 has no CUDA part; build the package with nvcc"):
            nvfp4.torch._ops._module("cuda")


@pytest.mark.parametrize("recipe", ["nvfp4", "hcp"])
def test_operators_follow_the_rules_of_torch_library(recipe):
    layer = make(48, 32, recipe)
    x = hard(8, 48).requires_grad_()
    clock = layer._clock.tensor
    torch.library.opcheck(torch.ops.nvfp4.linear.default, (x, layer.weight, layer.bias, layer.hot_channels, None, None, clock,
                                                           False, False, layer._spec))
    torch.library.opcheck(torch.ops.nvfp4.linear_backward.default,
                          (hard(8, 32, seed=2), x.detach(), layer.weight.detach(), layer.bias.detach(), None, clock,
                           [True, True, True], False, layer._spec))
    torch.library.opcheck(torch.ops.nvfp4.tick.default, (clock.clone(), "alone"))
    torch.library.opcheck(torch.ops.nvfp4.look.default, (clock.clone(),))
    if recipe == "hcp":
        torch.library.opcheck(torch.ops.nvfp4.choose_channels.default,
                              (x.detach(), layer.weight.detach(), layer.hot_channels.clone(), layer.hot_scores.clone(), clock,
                               "fprop", layer._spec))


class Seen(TorchDispatchMode):
    """Notes the operators of this package."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "nvfp4":
            self.names.append(func._schema.name.removeprefix("nvfp4::"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("recipe", ["nvfp4", "hcp", "bf16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_are_met_where_something_looks_and_have_the_same_words(recipe, dtype):
    layer, x, dy = make(96, 80, recipe).to(dtype), hard(64, 96, special=True).to(dtype), hard(64, 80, seed=2).to(dtype)
    alone = passes(copy.deepcopy(layer), x, dy)
    with Seen() as seen:
        looked_at = passes(layer, x, dy)
    for a, b in zip(alone, looked_at, strict=True):
        assert torch.equal(words(a), words(b))
    chosen = ["choose_channels"] if recipe == "hcp" else []
    assert seen.names == ["tick", *chosen, "linear", "linear_backward"]
    assert "Nvfp4Linear" in type(layer(x).grad_fn).__name__  # else: without the dispatcher
    with torch.device("cpu"):  # a mode of functions
        assert "GeneratedBackward" in type(layer(x).grad_fn).__name__


@pytest.mark.parametrize("looks", [False, True])
def test_a_second_derivative_is_refused(looks):
    layer, x = make(96, 80, "nvfp4"), hard(64, 96).requires_grad_()
    with Seen() if looks else contextlib.nullcontext():
        first, = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="expected a first derivative"):
            first.sum().backward()


def test_what_a_clock_says_is_read_anew_where_it_has_changed():
    layer, x, dy = make(64, 48, "nvfp4"), hard(32, 64), hard(32, 48, seed=2)
    expected = [passes(copy.deepcopy(layer), x, dy, at)[2] for at in (0, 1)]
    with step(3, 0):
        one = layer(x)
        with torch.inference_mode():
            layer.eval()(x)
        layer.train()
        with step(3, 1):
            two = layer(x)
        three = layer(x)
    for y, want in ((two, expected[1]), (one, expected[0]), (three, expected[0])):
        layer.zero_grad()
        y.backward(dy)
        assert_same_bits(layer.weight.grad, want)
    assert not torch.equal(words(expected[0]), words(expected[1]))


def test_autocast_rounds_the_input_and_gives_its_dtype():
    layer, x = make(64, 48, "nvfp4"), hard(32, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert_same_bits(y, layer(x).bfloat16())
    assert "recipe=nvfp4, role=linear, formats=nvfp4/nvfp4/nvfp4" in repr(layer)
    assert nvfp4.torch.Linear is Linear


@pytest.mark.parametrize("recipe", ["nvfp4", "chon"])
def test_layers_under_inductor_have_the_words_without(recipe):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    # nothing but layers: what inductor makes of FP32 operations between them may be rounded otherwise
    plain = torch.nn.Sequential(*(Linear(64, 64, recipe=recipe, id=i) for i in range(3)))
    other = copy.deepcopy(plain)
    compiled = torch.compile(other, fullgraph=True, backend="inductor")
    x, dy = hard(48, 64), hard(48, 64, seed=2)
    for at in range(3):
        for run in (plain, compiled):
            run.zero_grad(set_to_none=True)
            with step(1, at):
                run(x).backward(dy)
        for a, b in zip(plain.parameters(), other.parameters(), strict=True):
            assert_same_bits(b.grad, a.grad, f"step {at}")
    assert not torch._dynamo.utils.counters["graph_break"]
