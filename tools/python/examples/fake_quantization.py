# SPDX-License-Identifier: Apache-2.0
"""Is my fake quantization the real thing? A torch module that rounds to NVFP4 and multiplies in BF16,
held against TransformerEngine's codes and Blackwell's arithmetic.

    python fake_quantization.py
"""

import nvfp4
import torch

UNIT = "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"
LEVELS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def fake_quantize(x):
    """NVFP4 as it is often written: two levels of scales, nearest value of the grid. Returns codes, scales, amax, values."""
    blocks = x.reshape(x.shape[0], -1, 16)
    amax = x.abs().amax()
    decode = amax / (448 * 6)
    scales = (blocks.abs().amax(-1, keepdim=True) / 6 / decode).clamp(max=448).to(torch.float8_e4m3fn)
    steps = scales.float() * decode
    scaled = torch.where(steps > 0, blocks / steps, 0).clamp(-6, 6)
    index = (scaled.abs().unsqueeze(-1) - LEVELS).abs().argmin(-1)
    codes = (index + 8 * (scaled.signbit())).to(torch.uint8).reshape(x.shape)
    values = (LEVELS[index] * torch.where(scaled < 0, -1.0, 1.0) * steps).reshape(x.shape)
    return codes, scales.squeeze(-1), amax, values


class FakeLinear(torch.nn.Linear):
    def forward(self, x):
        return (fake_quantize(x)[3].bfloat16() @ fake_quantize(self.weight)[3].bfloat16().T).float()


def main():
    torch.manual_seed(0)
    linear = FakeLinear(256, 64, bias=False)
    x = torch.randn(32, 256)
    with torch.no_grad():
        # the quantizer: its codes and scales against TransformerEngine's
        codes, scales, amax, _ = fake_quantize(x)
        mine = nvfp4.QuantizedTensor.from_parts(codes, scales, amax, "te", unpacked=True)
        quantizer = nvfp4.check_quantized(mine, x)
        print("quantizer:", quantizer.verdict)
        # the product: of true operands, in the unit's arithmetic
        a, b = nvfp4.quantize(x), nvfp4.quantize(linear.weight)
        product = nvfp4.check(linear(x), a, b, UNIT, a_source=x, b_source=linear.weight)
        print("product:  ", product.verdict)
        # the real thing
        real = nvfp4.gemm(a, b, UNIT)
        print("real:     ", nvfp4.check(real, a, b, UNIT).verdict)
    return quantizer, product


if __name__ == "__main__":
    main()
