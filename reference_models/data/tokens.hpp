// SPDX-License-Identifier: Apache-2.0
// Token files: which names mean them, and what they hold. Several are one row of tokens, one behind the
// other: those of a list in its order, those of a pattern in the order of their names' bytes. Windows of
// training go over the seams. Internal.
//
// .bin   llm.c: 256 int32 of header, of which the first is 20240520 (version 1, uint16) or 20240801
//        (version 7, uint32) and the third the number of tokens. Megatron: where FILE.idx lies beside FILE.bin, with
//        uint16 or int32 tokens, all documents in a row. Else uint16 without a header (nanoGPT), or uint32
//        where :uint32 stands behind the name.
// .npy   uint16, uint32, int32 or int64, of any shape in C order.
// Little-endian all of them. All files of a row hold the same type, and ids are below 2^31 - 1.
#pragma once
#include "nvfp4/reference_models/data/token_stream.hpp"

#include <string_view>
#include <vector>

namespace nvfp4::models {

/// Whether a name of data means token files: .bin or .npy stands at its end, before a :uint32 or :uint16.
[[nodiscard]] bool names_tokens(std::string_view spec);

/// The files that a name means: parts between commas, each a file or a pattern with * ? [ ]; a file of just
/// that name is one file. Error where a pattern matches nothing or a file comes twice.
[[nodiscard]] std::vector<std::string> token_files(const std::string &spec);

} // namespace nvfp4::models
