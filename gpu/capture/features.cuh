// SPDX-License-Identifier: Apache-2.0
// Which instruction families the architecture being compiled for has, as preprocessor switches for device
// code. Sources: PTX ISA 9.1 target notes of mma, wgmma, tcgen05 and cvt.
#pragma once

#if defined(__CUDA_ARCH__)
#define CAPTURE_ARCH __CUDA_ARCH__
#else
#define CAPTURE_ARCH 0
#endif

#define CAPTURE_HAS_MMA16 (CAPTURE_ARCH >= 800)
#define CAPTURE_HAS_MMA_FP8 (CAPTURE_ARCH >= 890)
#define CAPTURE_HAS_F64_WIDE (CAPTURE_ARCH >= 900)
#define CAPTURE_HAS_CVT_SM90 (CAPTURE_ARCH >= 900)
#define CAPTURE_HAS_CVT_SM100 (CAPTURE_ARCH >= 1000)

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define CAPTURE_HAS_WGMMA 1
#else
#define CAPTURE_HAS_WGMMA 0
#endif

#if defined(__CUDA_ARCH_FEAT_SM100_ALL) || defined(__CUDA_ARCH_FEAT_SM103_ALL) ||                            \
    defined(__CUDA_ARCH_FEAT_SM110_ALL)
#define CAPTURE_HAS_TCGEN05 1
#else
#define CAPTURE_HAS_TCGEN05 0
#endif

#if defined(__CUDA_ARCH_FEAT_SM120_ALL) || defined(__CUDA_ARCH_FEAT_SM121_ALL)
#define CAPTURE_HAS_MMA_BLOCK 1
#else
#define CAPTURE_HAS_MMA_BLOCK 0
#endif

#define CAPTURE_HAS_CVT_NARROW (CAPTURE_HAS_TCGEN05 || CAPTURE_HAS_MMA_BLOCK)

#if defined(__CUDA_ARCH_FEAT_SM100_ALL) || defined(__CUDA_ARCH_FEAT_SM103_ALL)
#define CAPTURE_HAS_CVT_RS 1
#else
#define CAPTURE_HAS_CVT_RS 0
#endif
