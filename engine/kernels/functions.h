/* Elementary functions of one float: qd_f_exp ... qd_act_one. What portable C computes and what every vector of every
 * ISA equals to the last bit (functions_simd.h; the text of both is functions_lanes.h). Without an instruction for
 * fused multiply-add they are slow, and right.
 *
 * Largest errors in ULP of the exact result, over all floats (held by tests/kernels/test_functions.c); exact where the
 * result is infinite or NaN, or saturated; NaN gives NaN, but CLIP (kernels.h):
 *   exp 1.1   log 1   tanh 5   erf 6   sigmoid 2.5   rsqrt 1.5   softplus 2.5   elu 2.5 (a = 1)   silu 3.5
 *   gelu, gelu_tanh: 2 ULP of x
 * A denormal result has these errors in units of the smallest denormal number, or it is 0; silu is 0 where sigmoid is.
 */
#ifndef QD_ENGINE_KERNELS_FUNCTIONS_H
#define QD_ENGINE_KERNELS_FUNCTIONS_H

#include "engine/kernels/kernels.h"
#include "engine/kernels/lane.h"

#include "engine/kernels/lane_names.h"
#define QD_FUNCTIONS_LANES
#include "engine/kernels/functions_lanes.h"
#undef QD_FUNCTIONS_LANES
#include "engine/kernels/lane_names_end.h"

#endif
