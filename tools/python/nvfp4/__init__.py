# SPDX-License-Identifier: Apache-2.0
"""What FP4 tensor cores do, to the last bit: the arithmetic of the program and the C++ library ``nvfp4``.

Every function gives the bits of the program's verb of the same name. Arrays may be NumPy arrays, PyTorch tensors or anything
with ``__dlpack__``; results are of the caller's kind, on the caller's device. quantize, dequantize and gemm work on CUDA tensors
where they lie; the other functions copy them to the CPU. Errors are ValueError and TypeError with one line that says what was expected, what came and what to do. The
interpreter's lock is released while the library works; Ctrl-C ends what takes a ``progress``.
"""

from . import checkpoints, golden, testing
from ._check import CheckResult, check, check_quantized, compare
from ._models import Forward, forward, lab, report, train
from ._nvfp4 import version as __version__
from ._pretrained import Generated, evaluate, generate
from ._product import Report, convert, gemm, mma
from ._quantized import QuantizedTensor, quantize
from ._tables import conventions, conversions, recipes, units

__all__ = [
    "CheckResult", "Forward", "Generated", "QuantizedTensor", "Report", "__version__", "check", "check_quantized", "checkpoints", "compare",
    "conventions", "conversions", "convert", "evaluate", "forward", "gemm", "generate", "golden", "lab", "mma", "quantize", "recipes", "report", "testing",
    "train", "units",
]  # fmt: skip
