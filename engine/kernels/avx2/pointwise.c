/* Elementwise kernels of this instruction set: engine/kernels/pointwise_simd.h compiled for it. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/pointwise_simd.h"
