// SPDX-License-Identifier: Apache-2.0
// Digests of what the upstream implementations themselves computed for one deterministic tensor, on a CPU:
// PyTorch 2.15 with the sources named in the table of conventions (torchao 0.18.0 where a name has torchao018, compressed-tensors 0.20.1 and gguf 0.19.0 for their MXFP4), ggml's C functions compiled, and for
// TransformerEngine the plain PyTorch transcription in pytorch/ao
// test/prototype/moe_training/nvfp4_training/nvfp4_reference.py (te213: the same with the older order of
// operations). fouroversix is its PyTorch backend on data where no scale underflows; of its MAE cases one is
// left out, where PyTorch sums the errors of a few blocks in another order and ties fall elsewhere; so it is of if4-mae
// (one block of 32768). HiFloat4 and Metis give values, not codes: their digests are of those.
#include "nvfp4/golden/io/sha256.hpp"
#include "tests/catch.hpp"
#include "tests/emulator/quantize/support.hpp"

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

/// 512 x 1024 sums of four hashed words; some blocks are zero and some 2^37 times smaller, unless `plain`.
/// The maximum, 4.375, is one for which the orders of the scale steps disagree on hundreds of blocks.
Matrix tensor(FormatId type, bool plain) {
  Matrix m(512, 1024);
  for (uint64_t i = 0; i < m.x.size(); ++i) {
    int64_t sum = 0;
    for (uint64_t t = 0; t < 4; ++t) {
      uint32_t u = uint32_t((4 * i + t) * 0x9E3779B1u);
      u = (u ^ (u >> 15)) * 0x2C1B3C6Du;
      u ^= u >> 12;
      sum += int64_t(u >> 8) - (1 << 23);
    }
    const uint64_t block = i / 16;
    const int exponent = !plain && block % 97 == 5 ? -60 : -23;
    m.x[i] = !plain && block % 61 == 0 ? 0.0f : float(std::ldexp(double(sum), exponent));
  }
  m.x[0] = 4.375f;
  for (float &v : m.x) v = round_to(type, v);
  return m;
}

struct Case {
  const char *convention;
  FormatId source;
  int block_rows;
  bool rotated_columns; ///< axis col with the Hadamard rotation
  const char *codes;
  const char *scales;
};
constexpr Case kCases[] = {
    {"te", FormatId::f32, 1, false, "fa9ab6b8407a6ab8758a0de99c0c91c147af30b80426cf468de31b942755a454",
     "873336cdafb4d42ab31c0460b99fa2951620335af1b2c30b92710eb9dd4ff976"},
    {"te", FormatId::f32, 16, false, "4c852eb5c7ade893c39c038061896d01dc6f07df522fa73709d22df9c43072f9",
     "6d9505bfa908aa7fb92561a756689988519994f43ef00d262bddb6d4f9720823"},
    {"te", FormatId::bf16, 1, false, "f8eea143bf23d21f93220f5c80c4f4aa63ffa1e5cfe33886d239176135b44012",
     "cf077e74d654156e0718d48ef8d5a0f7815b038a0b099a3be8205ccd399f8788"},
    {"te", FormatId::bf16, 16, false, "01e3d8a66848f1978a7b830226f57da2c54d54d3fc59c6464ced9f5fb5b47e38",
     "f14614eca63f07af8c87c13460718422ff88409f6bc3e177eb7d9a99bc9b439c"},
    {"te", FormatId::bf16, 1, true, "58dc15baaff2af4c536e69236645daad076ef8fabf23eb6d2feb87a0c0b51ca3",
     "aa32954920b4f7569160a343bf94ded67dde33b3fbebf3a97a44b653fa04c69d"},
    {"torchao", FormatId::f32, 1, false, "121025dea9173e7432d277e41785592932c13004380cb3991c9bc7aec81b7d48",
     "d47ddad3028e7331ec46eb0082508c1838820c92b837a1b338169d9ccddb1dde"},
    {"torchao", FormatId::bf16, 1, false, "74698f6c60383839ae3db738161abd0ede178505e4c545d77a066e932f05bc96",
     "d36d1d89887fe619e38198863c67671c230f835f2938fb7df554aa657bc6c33b"},
    {"modelopt", FormatId::f32, 1, false, "121025dea9173e7432d277e41785592932c13004380cb3991c9bc7aec81b7d48",
     "aa73f1a2f6fffddd437e60210b49161cf33a05e0acf1fd0f642acc3f84518c80"},
    {"modelopt", FormatId::bf16, 1, false, "92c6ed8dad54a13f97032b86fed4ed7370d7444a1919b8ca61460978ff0da57f",
     "6b38f1deee3ee18d001e279ff58e583ffd499c115177c86dfc665d39e45cc0d2"},
    {"compressed-tensors", FormatId::f32, 1, false,
     "121025dea9173e7432d277e41785592932c13004380cb3991c9bc7aec81b7d48",
     "caf16229b93d52d2cb6423d44d96af9a5581aa29fdbb9d1e5904971224440044"},
    {"compressed-tensors", FormatId::bf16, 1, false,
     "6093c004caa482f7a8804e51b544feac96a64a893d064b67f067107516ee530b",
     "fa7ae636261f831a7ce271727fa6e906600a555df157cc1a838d649b500ed687"},
    {"mxfp4", FormatId::f32, 1, false, "de69369d905eb4f8a39aba8b36dfb7a670af72d3dd8e2cb6df5ba5c3a0ab7911",
     "f0117aaf775a35f5c269270d01f3df8a7143d72dcfb2d23671cf45a5d8f708fd"},
    {"mxfp4", FormatId::bf16, 1, false, "d10641c00463e0206db7801e6e3d5ade54212718828574d6801017e9739c7108",
     "8e046385fe7893d4f00568d12ee072f311b0b8c2c0b7a4ac907fd5064e16e4d6"},
    {"mxfp8-e4m3", FormatId::f32, 1, false,
     "c0827c801bddc4038046a974ac812ba7da19160247c10413cad1e52f8df4fe96",
     "56f1cf930f29a79dcec72ab44c44a3df3ae6beac853b75184564af3e76fc0bc1"},
    {"mxfp8-e4m3", FormatId::bf16, 1, false,
     "8c878df0e03bd17ab96f796d151807eb255ee952eef48f9ff8ac62032ea99d90",
     "30b5954bb5d7f7ba0ca038d54910ec5989bacfefa1309d885137dd8127d3d2d7"},
    {"mxfp8-e5m2", FormatId::f32, 1, false,
     "4d7fce2c26d2abb8431c47ea334b75567d0f0c5bd01ffcfa9c772000f64123b3",
     "4a00e8ce4d8a5e1edca3728c95a2f2d25ffd2a89c093c32eafc8ea5829209059"},
    {"mxfp8-e5m2", FormatId::bf16, 1, false,
     "6ee5b62ddf491336c676b1db3133793cfb04d1656064089b58d8cc48b60e4b79",
     "1a0b8c0b3104c4fa219a0d52656d31ce7c08df683fd0972f7abe7a474b259706"},
    {"mxfp8-e4m3-ceil", FormatId::f32, 1, false,
     "d822b85b3c02b583c9fa580b2dbaaf7e94cded27a477a2e884df6fe06b6390d6",
     "82e10444171acb1fed620f4007d42384ec8bc854c609e9651c54f15c73778a3a"},
    {"mxfp8-e4m3-ceil", FormatId::bf16, 1, false,
     "f05a8a971140fa700ad237b38a41b4d6088d8943e6001f2150beb86bf5413b19",
     "e1ebd849ad6b261962edb44b8f44f1c3cf0b3146088fcc8842571468d7b15039"},
    {"mxfp8-e5m2-ceil", FormatId::f32, 1, false,
     "e5718c446bd45c70d5d7661c46838e41f03b8c64065dd253b594bb76a92ac062",
     "62434169ad95f92c629078e718c914b94a0165851ce89988d0f95eb5c5e0c8ab"},
    {"mxfp8-e5m2-ceil", FormatId::bf16, 1, false,
     "ab4f931e65e66fce8f8963102759745a0d37fc6f62b7be8e780127df9213fb1c",
     "1e2cc055e148d6a16f5552ee7d228a5a55ec42154210196dcb8945f622f6b367"},
    {"fouroversix", FormatId::f32, 1, false,
     "ec92892df7b1956b51ef9a00a89dccd0e7feafd9bf8691c42b18db47aa306da8",
     "74b75699784b0552d58e6fb4c0178020539efa4b2253623a0f8e10245127c6dc"},
    {"fouroversix", FormatId::f32, 16, false,
     "502d7ecc44f4d9a9962b41b39e76610b5749897cbd073a468201c3a16327d2e7",
     "7691bf3cec4b4cb76dff0b0b09d8f9a1a004b7cb8a5af22c38adcd95b34a004b"},
    {"fouroversix", FormatId::bf16, 1, false,
     "9b8753070376a84e6940a2ba82fd287c50c1ae150e90aca4df032a284a698e8c",
     "4ea55fe41dc58f41a44a6653739f6baf47890cf64d90c1e335e6f272651939f8"},
    {"fouroversix", FormatId::bf16, 16, false,
     "5b6bdf5eb04a039d977a2cdb1ce2cec9aabea1ec67746f98b4f9079bdb95c942",
     "ef3ef25d45bb0f44e0e602d8f0523e805397df4ddd90133e9580364e13c28519"},
    {"fouroversix-mae", FormatId::f32, 1, false,
     "d8845f21a76cc7e8746e8073ce027a8d9f50112d6547f5da6baa37ca030757a4",
     "8771f3bcdf12c9e1e5fcb1d275261416c6c22b574208fea8984d901ef7a0706c"},
    {"fouroversix-mae", FormatId::f32, 16, false,
     "10fdd367e3f2f73688afe28b3f804b5616459839d92f3384bd732720201d9aff",
     "3a4ddb6c1874fdaa193888b3567ecee47e5c158bd2a21528a49519b79a3004e3"},
    {"fouroversix-mae", FormatId::bf16, 16, false,
     "0aef27453aee6e9a6db96dd15e54fde88288304901dc4148dc03590843d8ace1",
     "7fed5f6c12e0ba5a58f795085cbe2fd7db10e823134fc36180a4b26353792ffa"},
    {"te213", FormatId::f32, 1, false, "fa9ab6b8407a6ab8758a0de99c0c91c147af30b80426cf468de31b942755a454",
     "873336cdafb4d42ab31c0460b99fa2951620335af1b2c30b92710eb9dd4ff976"},
    {"te213", FormatId::f32, 16, false, "4c852eb5c7ade893c39c038061896d01dc6f07df522fa73709d22df9c43072f9",
     "6d9505bfa908aa7fb92561a756689988519994f43ef00d262bddb6d4f9720823"},
    {"te213", FormatId::bf16, 1, false, "5d44df1ca19d8f7d607799b8328dabc37ad851b8f5fd401f90f7d866241c1d1f",
     "4dabf627ad7df34b00a4714d2970cf9cbae941090484fe9f037a66e92f90d420"},
    {"te213", FormatId::bf16, 16, false, "c0e2031648c5d18ae2617e5cbf2473d443042871a4fd57ee4d69392d0a72bb05",
     "f291096f95d5f07f73a0e25b39ded31613556c5b78f0576e7c68d5c39638fe83"},
    {"mxfp6-e2m3-torchao018", FormatId::f32, 1, false,
     "9878acb74710457bd7b08078fa8f4262aae44891134dee92513bd1a1089672dc",
     "f0117aaf775a35f5c269270d01f3df8a7143d72dcfb2d23671cf45a5d8f708fd"},
    {"mxfp6-e3m2-torchao018", FormatId::f32, 1, false,
     "1284b3ec9dc27f2c2ffa21af408ea1b428fcf10dce399d52be67a51db658472b",
     "5c9164f5d5a4271dd30947a3150496a630f5a26b2a98570eb35e17c18089dbfa"},
    {"mxfp4-torchao018-ceil", FormatId::f32, 1, false,
     "26929caf5c09f22f40d27c8d46dc69f4df0b13add1f34584ccd4d4780b725d27",
     "4a38a8fa89808a5b61498f46679a88c7e423dbcdf660657eacc45907b2f5e26c"},
    {"mxfp4-torchao018-even", FormatId::f32, 1, false,
     "866bfad8ccbb32cf06e6b13c1fba18ff34edce74e5233c0f006f8305c35f3c4e",
     "9c753e0a267da240809fa6107b3ef4544b25ace9d053106eaa827be6da64840a"},
    {"mxfp4-torchao018-rceil", FormatId::f32, 1, false,
     "6720df54c4210ede6b086dffc88efaedd6b80ccfbcb9815eb6039521f1292438",
     "81af147259c6ee6a301dbc2e9045d6e54327409b4ab60d030483aed13d6c0b12"},
    {"mxfp8-e4m3-torchao018-ceil", FormatId::f32, 1, false,
     "bae12762e5d884dc1bd8610328b2b9348587719ff660db8ba753713985650185",
     "29c7811152ab946823620444235a4d66f6d3159568ff136d75dafe37f9e47bcb"},
    {"mxfp8-e4m3-torchao018-even", FormatId::f32, 1, false,
     "a7a1c0e53cc8dcd347c599d0673c8c551763e69444432c998853739871ab08c2",
     "fa6a5038787e95250d9570dfaee200376b780fef9447a9770267379711bb6a93"},
    {"mxfp8-e4m3-torchao018-rceil", FormatId::f32, 1, false,
     "d822b85b3c02b583c9fa580b2dbaaf7e94cded27a477a2e884df6fe06b6390d6",
     "82e10444171acb1fed620f4007d42384ec8bc854c609e9651c54f15c73778a3a"},
    {"mxfp6-e2m3-torchao018", FormatId::bf16, 1, false,
     "c5d5c4209d037d1bcdc217ca8f1e6bd0cfbcce351c72b42b37b0a71d3093f26a",
     "8e046385fe7893d4f00568d12ee072f311b0b8c2c0b7a4ac907fd5064e16e4d6"},
    {"mxfp6-e3m2-torchao018", FormatId::bf16, 1, false,
     "6a2de6aec417270b3c820a76de5665f347ecee6e78c100ef5041fbcb43f13acf",
     "010fc717999f42bc05c36a0e33ad68b1674cb6b0cbedcf48b0320419b68f44e3"},
    {"mxfp4-torchao018-ceil", FormatId::bf16, 1, false,
     "0c2a991a749e7d1d4c318e5e82a167d3d906717fff3a3b9bf2577a5e69e0de68",
     "2a930b31d5ac512e41a30f7e073f11427d83ffd81b1ced9ec28223d15fef3f65"},
    {"mxfp4-torchao018-even", FormatId::bf16, 1, false,
     "831d8129377b7d533136f1088c4416f54827aaf52684495f63c0a392b71766af",
     "e90c64754d939646ebdd60ced4fd172dc6e3376a0632b6de5f5a2bc788b442c4"},
    {"mxfp4-torchao018-rceil", FormatId::bf16, 1, false,
     "83bf198a7af57f3f49d91f4baf2faf4b826eb0d719fda596064408527f5c88e4",
     "39a0dc34365bebf37d146255bf4e7a9f016e39ef67e2cf21c7dd0254b532a2cd"},
    {"mxfp8-e4m3-torchao018-ceil", FormatId::bf16, 1, false,
     "12c9e31b8485fdfaec0a92c65ddcaddf7b7b8a3d449bd4e1049e8993cd656c07",
     "e45daba9a4d9a8204858a19d3e44a334fecf6382cdf9959647b0349bd6b238e5"},
    {"mxfp8-e4m3-torchao018-even", FormatId::bf16, 1, false,
     "2389227db916621a21f566b0f2219c92a54c15e12361f9910609f9bc0791045d",
     "36fb5e60a530aee8a1d7d3468d82463bdb86b81fa5aa5d1f940e978237772f6a"},
    {"mxfp8-e4m3-torchao018-rceil", FormatId::bf16, 1, false,
     "f05a8a971140fa700ad237b38a41b4d6088d8943e6001f2150beb86bf5413b19",
     "e1ebd849ad6b261962edb44b8f44f1c3cf0b3146088fcc8842571468d7b15039"},
    {"mxfp4-compressed-tensors", FormatId::f32, 1, false,
     "866bfad8ccbb32cf06e6b13c1fba18ff34edce74e5233c0f006f8305c35f3c4e",
     "9c753e0a267da240809fa6107b3ef4544b25ace9d053106eaa827be6da64840a"},
    {"mxfp4-compressed-tensors", FormatId::bf16, 1, false,
     "831d8129377b7d533136f1088c4416f54827aaf52684495f63c0a392b71766af",
     "e90c64754d939646ebdd60ced4fd172dc6e3376a0632b6de5f5a2bc788b442c4"},
    {"mxfp4-ggml", FormatId::f32, 1, false,
     "68cfffc2273a101c8529fd7f28bb43aa68dc06331d3e12d82d563d7578f3232b",
     "f0117aaf775a35f5c269270d01f3df8a7143d72dcfb2d23671cf45a5d8f708fd"},
    {"mxfp4-ggml", FormatId::bf16, 1, false,
     "e66f1994f553140a1f9fe90049b4a9c583f379acbd41a350444f07704ac07ffd",
     "8e046385fe7893d4f00568d12ee072f311b0b8c2c0b7a4ac907fd5064e16e4d6"},
    {"if4", FormatId::f32, 1, false, "5faa4834637e4681ef6bad2ec6c7551918d116ff4d2b6b47fbc243985c44d016",
     "4746fa6bc90bd1749a22fcaa8d7ab0e49e6dec7d0144a2d100cc7a8602e239a7"},
    {"if4", FormatId::bf16, 1, false, "0f25a826bca1d60143178b2c9d1cbc626b3a87d46a7f0b0f2e8799175d88f896",
     "06f1db51b536d173b309fcd8f47be3ca58a2884b9f04027ff5a249f72f7edeec"},
    {"if4-mae", FormatId::f32, 1, false, "176db2c5ab7badfda2480f5bed63e2bcdcb84cee36e1e52d40456967f3b281c4",
     "1726d7cc42cb48b1e43ba46dc14e22876187ab12bd7bcb4e6101feb426f299aa"},
    {"ggml", FormatId::f32, 1, false, "ebf7e8c4d783b8d0a6d4cfb077d161c5dbcfdc674a81b863a5c181790236fd92",
     "d31a26391375ad5121456843c27854a9cc9c6b0cd672081e0e99ebb81476b52d"},
};

std::string digest(const std::vector<uint8_t> &bytes) {
  return io::sha256_hex(std::as_bytes(std::span(bytes)));
}

} // namespace

TEST_CASE("codes and scales equal those of the upstream software", "[quantize]") {
  for (const Case &c : kCases) {
    const bool plain = c.rotated_columns || std::string_view(c.convention).starts_with("fouroversix");
    CAPTURE(c.convention, format(c.source).name, c.block_rows, c.rotated_columns);
    const BlockScaled q = quantize_as(tensor(c.source, plain), c.convention,
                                      {.axis = c.rotated_columns ? Axis::col : Axis::row,
                                       .block_rows = c.block_rows,
                                       .hadamard = c.rotated_columns,
                                       .source = c.source});
    CHECK(digest(q.scales) == c.scales);
    CHECK(digest(q.codes) == c.codes);
  }
}

// quant_hifx of ddddwee1/HiFloat4 @999cc07 in PyTorch (its NumPy code gave the same on the first 64 rows), and Cast2Hif4
// of sii-research/Metis @3c2e72e: FP32 values row by row, -0 made +0.
TEST_CASE("values equal those of the upstream software", "[quantize]") {
  struct ValueCase {
    const char *convention;
    FormatId source;
    const char *values;
  };
  constexpr ValueCase kValues[] = {
      {"hif4", FormatId::f32, "6ef0d1bd343b1a5d00d9cb7f0c0aef983b2cccfcc07496942a0c578670b774eb"},
      {"hif4", FormatId::bf16, "6f086f65bdcbe885524bf33774107907857ad5c19c22f0137e1a803b952852d5"},
      {"hif4-metis", FormatId::f32, "f225cfce75a6cd0978ad062e793f34a9e5ee9599792b6613096b5abbaa83d593"},
      {"hif4-metis", FormatId::bf16, "e06cc216daab05b4d478ac522c16bec27c3fa26963250395393369c36b7ecd78"}};
  for (const ValueCase &c : kValues) {
    CAPTURE(c.convention, format(c.source).name);
    std::vector<float> y = dequantize(quantize_as(tensor(c.source, false), c.convention, {.source = c.source}));
    for (float &v : y) v = v + 0.0f;
    CHECK(io::sha256_hex(std::as_bytes(std::span(y))) == c.values);
  }
}

// What compressed-tensors 0.20.1 and gguf 0.19.0 gave for one block (codes in the order of k): the tensor above
// has no -0 and few ties.
TEST_CASE("zeros and ties of the MXFP4 of compressed-tensors and of ggml", "[quantize]") {
  Matrix m(1, 32);
  const float values[] = {24, -0.0f, 0, -0.5f, 0.5f, 1, -1, 3, -3, 5, -5, 7, -7, 10, -10, 14, -14, 20, -20, 1.5f};
  for (size_t i = 0; i < std::size(values); ++i) m.x[i] = values[i];
  const auto codes = [&](const char *name) {
    const BlockScaled q = quantize_as(m, name, {.source = FormatId::f32});
    std::vector<int> list{int(q.scale_code(0, 0))};
    for (int64_t i = 0; i < 20; ++i) list.push_back(q.code(0, i));
    return list;
  };
  CHECK(codes("mxfp4-compressed-tensors") ==
        std::vector<int>{129, 7, 0, 0, 8, 0, 0, 8, 2, 10, 2, 10, 4, 12, 4, 12, 6, 14, 6, 14, 1});
  CHECK(codes("mxfp4-ggml") ==
        std::vector<int>{129, 7, 0, 0, 0, 0, 0, 0, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 1});
}
