# SPDX-License-Identifier: Apache-2.0
"""What FP4 tensor cores do, to the last bit: the arithmetic of the program and the C++ library `nvfp4`.

Every function gives the bits of the verb of the same name. Arrays may be NumPy arrays, PyTorch tensors or anything with
``__dlpack__``; results are of the caller's kind. Errors are ValueError and TypeError with one line that says what was
expected, what came and what to do.
"""

from nvfp4._nvfp4 import version as __version__

__all__ = ["__version__"]
