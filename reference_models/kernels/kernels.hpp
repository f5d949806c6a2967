// SPDX-License-Identifier: Apache-2.0
// The list of all kernels. A new one is its struct and a line here; every backend then has it.
#pragma once
#include "nvfp4/reference_models/kernels/attention_backward.hpp"
#include "nvfp4/reference_models/kernels/attention_products.hpp"
#include "nvfp4/reference_models/kernels/attention_statistics.hpp"
#include "nvfp4/reference_models/kernels/cached_attention.hpp"
#include "nvfp4/reference_models/kernels/convolution.hpp"
#include "nvfp4/reference_models/kernels/delta_inputs.hpp"
#include "nvfp4/reference_models/kernels/delta_products.hpp"
#include "nvfp4/reference_models/kernels/digest.hpp"
#include "nvfp4/reference_models/kernels/elementwise.hpp"
#include "nvfp4/reference_models/kernels/finite.hpp"
#include "nvfp4/reference_models/kernels/gla_backward.hpp"
#include "nvfp4/reference_models/kernels/gla_products.hpp"
#include "nvfp4/reference_models/kernels/images.hpp"
#include "nvfp4/reference_models/kernels/kept_values.hpp"
#include "nvfp4/reference_models/kernels/matmul.hpp"
#include "nvfp4/reference_models/kernels/norm.hpp"
#include "nvfp4/reference_models/kernels/rope.hpp"
#include "nvfp4/reference_models/kernels/scan_products.hpp"
#include "nvfp4/reference_models/kernels/slot_products.hpp"
#include "nvfp4/reference_models/kernels/vocabulary.hpp"
#include "nvfp4/reference_models/kernels/weights.hpp"

// clang-format off
#define NVFP4_MODEL_KERNELS(X)                                                                               \
  X(Add) X(AddBias) X(AccumulateColumns) X(Scale) X(SquareSums) X(DigestSums) X(NotFiniteChunks) X(AdamW)    \
  X(LargestChunks) X(KeptScale) X(Keep)                                                                      \
  X(SwigluForward) X(SwigluBackward) X(GegluForward) X(GateForward) X(GateBackward)                                          \
  X(RmsNormForward) X(RmsNormBackward) X(GatedNormForward) X(GatedNormBackward)                              \
  X(EmbeddingForward) X(EmbeddingBackward) X(CrossEntropy) X(Matmul)                                         \
  X(GlaDecays) X(GlaStates) X(GlaOutputs) X(GlaStateGradients) X(GlaGradients) X(GlaGateGradients)           \
  X(GlaStateFactors) X(GlaDecayed) X(GlaOwnScores) X(GlaSubFactors) X(GlaStateFactorGradients)               \
  X(GlaSubFactorGradients) X(GlaOwnQueryGradients)                                                           \
  X(RopeForward) X(RopeBackward) X(AttentionTurn) X(AttentionOutputs) X(AttentionQueryGradients)             \
  X(AttentionKeyGradients) X(AttentionMomentSums) X(MoveHeads) X(AttentionProbabilities)                     \
  X(AttentionScoreGradients) X(KvStore) X(CachedAttention)                                                   \
  X(ConvolutionForward) X(ConvolutionSlopes) X(ConvolutionInputs) X(ConvolutionWeights)                      \
  X(L2NormForward) X(L2NormBackward)                                                                         \
  X(DeltaGateForward) X(DeltaGateBackward) X(DeltaProducts) X(DeltaStates) X(DeltaOutputs)                   \
  X(DeltaStateGradients) X(DeltaGradients)                                                                   \
  X(SiluForward) X(SiluBackward) X(SlotGateForward) X(SlotGateBackward) X(SlotSoftmaxForward)                \
  X(SlotSoftmaxBackward) X(SlotScores) X(PassedGradients)                                                    \
  X(ScanGateForward) X(ScanGateBackward) X(ScanDecays) X(ScanProducts) X(ScanStates) X(ScanOutputs)          \
  X(ScanStateGradients) X(ScanGradients)                                                                     \
  X(DeltaDecays) X(DeltaStateFactors) X(DeltaScores) X(DeltaSolve) X(DeltaWritten) X(DeltaDecayed)           \
  X(DeltaSolveBack) X(DeltaFactorGradients)                                                                  \
  X(PassedStates) X(PassedReads) X(PassedLeaves) X(PassedPairs)                                              \
  X(ScanFactors) X(ScanScores) X(ScanSkip) X(ScanDecayed) X(ScanFactorGradients) X(SumHeads)                 \
  X(GatherPatches) X(TurnFilters) X(CopyColumns) X(BatchStatistics) X(StoredStatistics) X(BatchNormForward)  \
  X(BatchNormSums) X(BatchNormBackward) X(MaxPoolForward) X(MaxPoolBackward)                                 \
  X(SoftClip) X(LargestMagnitudes) X(FifteenLevels)
// clang-format on
