// SPDX-License-Identifier: Apache-2.0
// NumPy's .npy format: one array with a small Python dict for a header. Bytes in, bytes out.
#pragma once
#include "nvfp4/golden/io/tensor.hpp"

namespace nvfp4::io {

/// What every .npy file starts with.
inline constexpr std::string_view npy_magic = "\x93NUMPY";

/// Reads a whole file (format 1.0, 2.0 or 3.0) from memory into a tensor named "data". Little-endian numbers
/// and booleans only; an array in Fortran order is brought into C order. An Error names `source`.
[[nodiscard]] Tensor parse_npy(std::span<const std::byte> bytes, std::string_view source);

/// What stands before the numbers of a .npy file, and where they begin.
struct NpyHeader {
  DType dtype;
  bool fortran_order;
  std::vector<int64_t> shape;
  size_t data_offset;
};
/// From the first bytes of a file of `file_size` bytes, which must end where the numbers do. Errors are those
/// of parse_npy().
[[nodiscard]] NpyHeader parse_npy_header(std::span<const std::byte> start, size_t file_size,
                                         std::string_view source);

/// The bytes of a format 1.0 file; the tensor's name is not in it. An Error, which names `destination`, for
/// the types that NumPy lacks (BF16 and the 8-bit floats).
[[nodiscard]] std::vector<std::byte> to_npy(const Tensor &tensor, std::string_view destination = {});

} // namespace nvfp4::io
