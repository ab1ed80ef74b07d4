/* Scale and zero point of one tensor, from its range: equations (3) and (4) of docs/QUANTIZATION.md.
 * 8-bit activations are carried as u8 in memory whatever the scheme: a symmetric s8 value q is carried as q + 128
 * (zero point 128, limits 1..255), because the instruction multiplies u8 by s8. */
#ifndef QD_ENGINE_QUANT_QPARAMS_H
#define QD_ENGINE_QUANT_QPARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qd_qparams {
    float scale;        /* S > 0, finite, normal */
    int32_t zero_point; /* Z, qmin <= Z <= qmax */
    int32_t qmin, qmax; /* 0..255 asymmetric, 1..255 symmetric (as carried) */
};

/* A row's own, as a product's epilogue takes them. */
struct qd_row_scale {
    float scale;
    int32_t zero_point;
};

#define QD_CARRIER_OFFSET 128 /* carried = s8 value + 128 */

/* From a range of real values, lo <= hi, both finite; zero is included here. `symmetric`: equation (4). [any] */
struct qd_qparams qd_qparams_from_range(double lo, double hi, bool symmetric);
/* The same with fewer bits, 2..8: limits 0..2^bits - 1, or 128 +- (2^(bits - 1) - 1) symmetric, still carried as u8. */
struct qd_qparams qd_qparams_from_range_bits(double lo, double hi, bool symmetric, int bits);
/* Equation (4) with 16 bits: zero point 0, -32767..32767. [any] */
struct qd_qparams qd_qparams_from_range_s16(double lo, double hi);
/* The real values the integers can stand for. */
double qd_qparams_lo(const struct qd_qparams *qp);
double qd_qparams_hi(const struct qd_qparams *qp);

/* Symmetric s8 scale of weights whose largest magnitude is `absmax`: absmax / 127; 1 for 0. */
float qd_weight_scale_s8(float absmax);

/* The same for weights of `bits` bits, 2..16: absmax / (2^(bits - 1) - 1). */
float qd_weight_scale(float absmax, int bits);

/* One output's weights of a convolution: of channel c at tap t it is w[c * channel_step + t * tap_step]. */
struct qd_window_weights {
    const float *w;
    size_t channels, taps, channel_step, tap_step;
};

/* Convolutions with so few channels and weights for an output (depthwise ones, the first of a network) have their
 * scales by (4b). */
#define QD_WINDOW_CHANNELS 4
#define QD_WINDOW_WEIGHTS  512
static inline bool qd_window_is_small(size_t channels, size_t taps)
{
    return taps > 1 && channels <= QD_WINDOW_CHANNELS && channels * taps <= QD_WINDOW_WEIGHTS;
}

/* Equation (4b): neighbouring pixels are nearly alike, so what rounding moves the sum over a channel's taps by counts
 * most; among scales a little larger than qd_weight_scale's one hardly moves it. */
float qd_weight_scale_window(const struct qd_window_weights *weights, int bits);

#endif
