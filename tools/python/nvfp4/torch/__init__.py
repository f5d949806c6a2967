# SPDX-License-Identifier: Apache-2.0
"""PyTorch modules whose matrix products have the bits of FP4 tensor cores, forward and backward, on any machine.

    import nvfp4.torch
    model = nvfp4.torch.convert(model, "chon")        # every known Linear of the model, in place
    loss = model(tokens, labels=tokens).loss          # train as ever: optimizers, DDP, FSDP2, torch.compile
    loss.backward()
    nvfp4.torch.revert(model)

The arithmetic of a layer is that of this project's C++ layers, bit for bit: quantization of x, W and dy, products in the
tensor core's accumulation, stochastic rounding, Hadamard rotation, the Hot-Channel Patch, protected layers in BF16.
"""

from nvfp4.torch._clock import set_step, step
from nvfp4.torch._convert import convert, converted, revert
from nvfp4.torch._linear import Linear
from nvfp4.torch._record import Mismatch, record, replay
from nvfp4.torch._roles import Roles, model_types

__all__ = ["Linear", "Mismatch", "Roles", "convert", "converted", "model_types", "record", "replay", "revert", "set_step",
           "step"]
