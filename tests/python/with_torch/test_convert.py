# SPDX-License-Identifier: Apache-2.0
"""Whole models: which modules are converted, the clock, torch.compile, checkpointing, export, training."""

from __future__ import annotations

import copy
import types

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from bits import assert_same_bits, hard
from torch.utils.checkpoint import checkpoint

from nvfp4.torch import Linear, convert, converted, revert, set_step, step


class Block(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.self_attn = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(width, width),
                                              "v_proj": torch.nn.Linear(width, width, bias=False)})
        self.mlp = torch.nn.ModuleDict({"up_proj": torch.nn.Linear(width, 2 * width),
                                        "down_proj": torch.nn.Linear(2 * width, width)})
        self.router = torch.nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + torch.tanh(self.self_attn["q_proj"](x)) * self.self_attn["v_proj"](x)
        return x + self.mlp["down_proj"](torch.relu(self.mlp["up_proj"](x))) * torch.sigmoid(self.router(x).mean(-1, True))


class Toy(torch.nn.Module):
    """Two blocks named as models of transformers name them, and a head."""

    def __init__(self, width: int = 64, checkpoints: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = torch.nn.ModuleList([Block(width) for _ in range(2)])
        self.lm_head = torch.nn.Linear(width, 32, bias=False)
        self.checkpoints = checkpoints

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.layers:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpoints else block(x)
        return self.lm_head(x)


ROLES = {"layers.*.self_attn.q_proj": "attn.q_proj", "layers.*.self_attn.v_proj": "attn.v_proj",
         "layers.*.mlp.up_proj": "mlp.up_proj", "layers.*.mlp.down_proj": "mlp.down_proj", "lm_head": "lm_head"}


def toy(recipe: str = "chon", **options) -> Toy:
    return convert(Toy(**options), recipe, ROLES, layers=8)  # of 8 blocks the last is in BF16: neither of these two


def gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p.grad for p in model.parameters()]


def test_names_decide_what_is_converted():
    model = toy()
    assert list(converted(model)) == [f"layers.{i}.{m}" for i in range(2) for m in (
        "self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj")] + ["lm_head"]
    text = repr(model)
    assert text.count("(0-1): 2 x Block") == 1
    assert text.count("recipe=chon, role=attn.v_proj, formats=bf16/bf16/bf16") == 1  # protected
    assert text.count("recipe=chon, role=attn.q_proj, formats=nvfp4/nvfp4/nvfp4") == 1
    assert text.count("role=lm_head, formats=bf16/bf16/bf16") == 1
    assert type(model.layers[0].router) is torch.nn.Linear
    assert repr(toy("nvfp4")).count("role=attn.v_proj, formats=nvfp4") == 1
    last = convert(Toy(), "nvfp4", ROLES)
    assert "formats=bf16" in repr(last.layers[1].mlp) and "formats=nvfp4" in repr(last.layers[0].mlp)
    assert "recipe=chon" in repr(convert(Toy(), roles=ROLES))  # the default
    by_function = convert(Toy(), "nvfp4", lambda path: "mlp.up_proj" if path.endswith("router") else None)
    assert list(converted(by_function)) == ["layers.0.router", "layers.1.router"]
    ids = {m._spec for m in converted(toy()).values()}
    assert len(ids) == 9


def test_flash_linear_attention_by_names():
    """Its models need a GPU; these are their modules' names (fla 0.6.0: layers/gla.py, layers/gated_deltanet.py, mlp.py)."""
    linear = torch.nn.Linear

    def model(kind: str, attention: dict[str, torch.nn.Module]) -> torch.nn.Module:
        block = torch.nn.ModuleDict({"attn": torch.nn.ModuleDict(attention), "mlp": torch.nn.ModuleDict(
            {name: linear(16, 16, bias=False) for name in ("gate_proj", "up_proj", "down_proj")})})
        block["mlp"].fuse_swiglu = True
        whole = torch.nn.Module()
        whole.model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([block, copy.deepcopy(block)])})
        whole.lm_head = linear(16, 8, bias=False)
        whole.config = types.SimpleNamespace(model_type=kind, num_hidden_layers=8, fuse_linear_cross_entropy=True)
        return whole

    low_rank = torch.nn.Sequential(linear(16, 16, bias=False), linear(16, 16))
    gla = model("gla", {name: linear(16, 16) for name in ("q_proj", "k_proj", "v_proj", "g_proj", "o_proj")} | {
        "gk_proj": low_rank})
    gdn = model("gated_deltanet", {name: linear(16, 16) for name in (
        "q_proj", "k_proj", "v_proj", "a_proj", "b_proj", "g_proj", "o_proj")} | {"q_conv1d": torch.nn.Conv1d(16, 16, 4)})
    for whole, protected in ((gla, ["gk_proj.0", "gk_proj.1", "o_proj"]), (gdn, ["a_proj", "b_proj", "o_proj"])):
        layers = converted(convert(whole, "chon"))
        assert len(layers) == 2 * 10 + 1
        in_bf16 = {path for path, m in layers.items() if "formats=bf16" in repr(m)}
        assert in_bf16 == {f"model.layers.{i}.attn.{name}" for i in range(2) for name in protected} | {"lm_head"}
        # the fused kernels that read down_proj's and lm_head's weights past their modules are off, and on again afterwards
        flags = [b["mlp"].fuse_swiglu for b in whole.model["layers"]] + [whole.config.fuse_linear_cross_entropy]
        assert flags == [False] * 3
        revert(whole)
        flags = [b["mlp"].fuse_swiglu for b in whole.model["layers"]] + [whole.config.fuse_linear_cross_entropy]
        assert flags == [True] * 3


def test_convert_is_undone_and_keeps_parameters():
    model = Toy()
    keys, parameters, text = list(model.state_dict()), list(model.parameters()), repr(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    convert(model, "nvfp4", ROLES)
    assert list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    x = hard(4, 64)
    model(x).square().mean().backward()
    before = model.lm_head.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(model.lm_head.weight, before)
    revert(model)
    assert list(model.state_dict()) == keys and repr(model) == text
    assert_same_bits(model(x), Toy.forward(model, x))
    revert(convert(model, "chon", ROLES))
    assert list(model.state_dict()) == keys and repr(model) == text
    with pytest.raises(ValueError, match="expected a model that convert"):
        revert(model)
    with pytest.raises(ValueError, match="got a converted one; revert"):
        convert(convert(model, "nvfp4", ROLES), "nvfp4", ROLES)
    with pytest.raises(ValueError, match="unknown kind of model: expected a model with config.model_type of qwen3, "):
        convert(Toy(), "nvfp4")
    with pytest.raises(ValueError, match="no torch.nn.Linear of the model has a role"):
        convert(Toy(), "nvfp4", {"nothing": "lm_head"})
    with pytest.raises(ValueError, match="expected layers of at least 2"):
        convert(Toy(), "nvfp4", ROLES, layers=1)


def test_a_model_counts_its_steps():
    model, other = toy(), toy()
    x = hard(4, 64)
    clock = next(iter(converted(model).values()))._clock.tensor
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    stranger = torch.optim.SGD(other.parameters(), lr=0.0)
    seen = []

    def train() -> None:
        model(x).sum().backward()
        seen.append(clock[1:3].tolist())

    train()
    train()
    optimizer.step()
    with torch.no_grad():
        model(x)  # no training pass
    model.eval()(x)
    model.train()
    stranger.step()
    train()
    optimizer.step()
    optimizer.step()
    train()
    with step(9, 40, 2):
        train()
        train()
    train()
    set_step(model, 100)
    train()
    optimizer.step()
    train()
    assert seen == [[0, 0], [0, 1], [1, 0], [2, 0], [40, 2], [40, 2], [2, 1], [100, 0], [101, 0]]


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients(reentrant):
    plain, again = toy("hcp"), toy("hcp")
    x = hard(16, 64)
    for passes in range(2):
        for model, wrap in ((plain, False), (again, True)):
            model.zero_grad()
            y = x.clone().requires_grad_()
            out = y
            if wrap:
                next(iter(converted(model).values()))  # the root runs its blocks inside checkpoints
                model.forward = lambda v, m=model: m.lm_head(checkpoint(
                    lambda u: m.layers[1](m.layers[0](u)), v, use_reentrant=reentrant))
            model(out).square().mean().backward()
        for a, b in zip(gradients(plain), gradients(again), strict=True):
            assert_same_bits(b, a)
    assert torch.equal(plain.layers[0].mlp["up_proj"].hot_channels, again.layers[0].mlp["up_proj"].hot_channels)
    clocks = [next(iter(converted(m).values()))._clock.tensor.tolist() for m in (plain, again)]
    assert clocks[0] == clocks[1]


def test_a_pass_that_is_computed_again_is_not_counted():
    plain, again = toy("nvfp4"), toy("nvfp4")
    clock = next(iter(converted(again).values()))._clock.tensor
    x = hard(16, 64).requires_grad_()
    for micro_batch in range(2):
        plain(x).square().mean().backward()
        checkpoint(again, x, use_reentrant=False).square().mean().backward()
        assert clock[1:3].tolist() == [0, micro_batch]
    for a, b in zip(gradients(plain), gradients(again), strict=True):
        assert_same_bits(b, a)


@pytest.mark.parametrize("recipe", ["nvfp4", "hcp"])
def test_compile_sees_operators_and_gives_the_same_words(recipe):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain, model = toy(recipe), toy(recipe)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (plain, model)]
    x = hard(16, 64)
    graphs = []
    for at in range(3):
        losses = []
        for run, optimizer in zip((plain, compiled), optimizers, strict=True):
            optimizer.zero_grad()
            loss = run(x).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        assert_same_bits(losses[1], losses[0], f"step {at}")
        for a, b in zip(plain.parameters(), model.parameters(), strict=True):
            assert_same_bits(b, a, f"step {at}")
    assert next(iter(converted(model).values()))._clock.tensor[1] == 2
    assert graphs[0] == graphs[2]  # a step compiles nothing anew
    assert not torch._dynamo.utils.counters["graph_break"]


def test_export_has_the_operator():
    model = toy("hcp")
    x = hard(16, 64)
    model(x)
    program = torch.export.export(model.eval(), (x,))
    assert str(program).count("torch.ops.nvfp4.linear.default") == 9
    assert_same_bits(program.module()(x), model(x))


def test_copies_and_pickles_are_models_of_their_own(tmp_path):
    model = toy("hcp")
    x = hard(16, 64)
    other = copy.deepcopy(model)
    model(x).sum().backward()
    assert not torch.equal(model.layers[0].mlp["up_proj"].hot_channels, other.layers[0].mlp["up_proj"].hot_channels)
    other(x).sum().backward()
    for a, b in zip(gradients(model), gradients(other), strict=True):
        assert_same_bits(b, a)
    clocks = [next(iter(converted(m).values()))._clock for m in (model, other)]
    assert clocks[0] is not clocks[1]
    torch.optim.SGD(other.parameters(), lr=0.0).step()
    other(x)
    assert [c.tensor[1].item() for c in clocks] == [0, 1]
    revert(other)
    assert isinstance(model.lm_head, Linear) and not isinstance(other.lm_head, Linear)
