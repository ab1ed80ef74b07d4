/* Elementary functions on vectors: vf_exp ... vf_act, bit by bit what functions.h does to one float; its bounds hold.
 * Private to the kernel folders. */
#ifndef QD_ENGINE_KERNELS_FUNCTIONS_SIMD_H
#define QD_ENGINE_KERNELS_FUNCTIONS_SIMD_H

#include "engine/kernels/kernels.h"
#include "engine/kernels/simd.h"

#ifdef QD_SIMD_FLOATS

#include <math.h>

#define QD_FUNCTIONS_LANES
#include "engine/kernels/functions_lanes.h"
#undef QD_FUNCTIONS_LANES

#endif
#endif
