// SPDX-License-Identifier: Apache-2.0
// GLA on tensor cores: checks, workspace and the order of launches.
#include "nvfp4/gpu/hopper/gla.hpp"

#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/hopper/gla_kernels.hpp"

#include <initializer_list>

namespace nvfp4::cuda {
namespace {

using models::bf16_gla::kChunk;
using models::bf16_gla::Shape;

void check_call(const char *caller, const Shape &shape, std::initializer_list<const void *> pointers) {
  models::bf16_gla::check(shape);
  for (const void *p : pointers)
    if (p == nullptr || reinterpret_cast<uintptr_t>(p) % 16 != 0)
      throw Error(std::string(caller) + ": every array must be 16-byte aligned device memory, got " +
                  (p == nullptr ? "a null pointer" : "another alignment") + "; allocate it with cudaMalloc");
  int device = 0, major = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "compute capability");
  if (major != 9)
    throw Error(std::string(caller) + ": needs a GPU of compute capability 9.0, this one has " +
                std::to_string(major) + ".x; use the FP32 kernels there");
}

/// Hands out 256-byte aligned pieces of a memory block.
struct Pieces {
  uint8_t *base;
  int64_t used = 0;

  template <class T> T *take(int64_t count) {
    T *const piece = base == nullptr ? nullptr : reinterpret_cast<T *>(base + used);
    used += (count * int64_t(sizeof(T)) + 255) / 256 * 256;
    return piece;
  }
};

GlaWorkspace divide(const Shape &s, Pieces &pieces, bool backward) {
  const int64_t n = s.all_chunks();
  GlaWorkspace w{};
  w.decay = pieces.take<float>(n * s.key);
  w.q_decayed = pieces.take<uint16_t>(n * kChunk * s.key);
  w.k_decayed = pieces.take<uint16_t>(n * kChunk * s.key);
  w.scores = pieces.take<uint16_t>(n * kChunk * kChunk);
  w.states = pieces.take<uint16_t>(n * s.key * s.value);
  if (backward) {
    w.state_grads = pieces.take<uint16_t>(n * s.key * s.value);
    w.score_grads = pieces.take<float>(n * kChunk * kChunk);
  }
  return w;
}

} // namespace

int64_t gla_workspace_bytes(const Shape &shape, bool backward) {
  models::bf16_gla::check(shape);
  Pieces pieces{nullptr};
  (void)divide(shape, pieces, backward);
  return pieces.used;
}

GlaWorkspace gla_workspace(const Shape &shape, void *memory, bool backward) {
  models::bf16_gla::check(shape);
  Pieces pieces{static_cast<uint8_t *>(memory)};
  return divide(shape, pieces, backward);
}

void gla_forward(const Shape &shape, const GlaInputs &in, const GlaWorkspace &w, float *o, uint16_t *o_bf16,
                 cudaStream_t stream) {
  if ((o == nullptr) == (o_bf16 == nullptr))
    throw Error("gla_forward: give o in FP32 or in BF16, one of the two");
  check_call("gla_forward", shape,
             {in.q, in.k, in.v, in.g, w.decay, w.q_decayed, w.k_decayed, w.scores, w.states,
              o != nullptr ? static_cast<const void *>(o) : o_bf16});
  gla::launch(gla::Prepare{shape, in.q, in.k, in.g, w.q_decayed, w.k_decayed, w.scores, w.decay}, stream);
  gla::launch(gla::States{shape, w.k_decayed, in.v, w.decay, w.states, false}, stream);
  gla::launch(gla::Outputs{shape, w.q_decayed, w.states, w.scores, in.v, o, o_bf16, false}, stream);
}

void gla_backward(const Shape &shape, const GlaInputs &in, const uint16_t *grad_o, const GlaWorkspace &w,
                  const GlaGradients &out, cudaStream_t stream) {
  check_call("gla_backward", shape,
             {in.q, in.k, in.v, in.g, grad_o, w.decay, w.q_decayed, w.k_decayed, w.scores, w.states,
              w.state_grads, w.score_grads, out.dq, out.dk, out.dv, out.dg});
  gla::launch(gla::States{shape, w.q_decayed, grad_o, w.decay, w.state_grads, true}, stream);
  gla::launch(gla::ScoreGrads{shape, in.v, grad_o, w.score_grads}, stream);
  gla::launch(gla::Outputs{shape, w.k_decayed, w.state_grads, w.scores, grad_o, out.dv, nullptr, true},
              stream);
  gla::launch(gla::InputGrads{shape, in.q, in.k, in.v, grad_o, in.g, w.states, w.state_grads, w.score_grads,
                              out.dq, out.dk, out.dg},
              stream);
}

} // namespace nvfp4::cuda
