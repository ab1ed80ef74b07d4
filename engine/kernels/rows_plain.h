/* What rows of floats share on every ISA: element i of a block of QD_ROWS_BLOCK adds to part i % QD_ROWS_PARTS, one
 * tree joins the parts, blocks add up in double. The order depends on n only, and so do the bits. rows_simd.h does the
 * same many at a time. Private to engine/kernels. */
#ifndef QD_ENGINE_KERNELS_ROWS_PLAIN_H
#define QD_ENGINE_KERNELS_ROWS_PLAIN_H

#include "engine/kernels/functions.h"

enum {
    QD_ROWS_PARTS = 64,
    QD_ROWS_BLOCK = 4096,
    QD_ROWS_COLUMN_BLOCK = 128, /* rows of a column that add up in one float */
};

/* Sums of squares are centred: of (x - mean). */
static inline float rows_step(enum qd_reduction kind, float part, float x, float mean)
{
    switch (kind) {
    case QD_SUM_OF:
        return part + x;
    case QD_SUM_OF_ABS:
        return part + fabsf(x);
    case QD_SUM_OF_SQUARES:
        return fmaf(x - mean, x - mean, part);
    case QD_MAX_OF:
        return x > part ? x : part;
    default:
        return x < part ? x : part;
    }
}

static inline float rows_join(enum qd_reduction kind, float a, float b)
{
    return kind == QD_MAX_OF ? (b > a ? b : a) : kind == QD_MIN_OF ? (b < a ? b : a) : a + b;
}

static inline float rows_empty(enum qd_reduction kind)
{
    return kind == QD_MAX_OF ? -INFINITY : kind == QD_MIN_OF ? INFINITY : 0.0f;
}

static inline bool rows_picks(enum qd_reduction kind) { return kind == QD_MAX_OF || kind == QD_MIN_OF; }

/* The end of the tree: sixteen parts, each already joined with those 16, 32 and 48 further on. */
static inline float rows_join_16(enum qd_reduction kind, float t[16])
{
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            t[i] = rows_join(kind, t[i], t[i + half]);
    return t[0];
}

static inline float rows_inverse_root(float variance, float epsilon)
{
    return (float)(1.0 / sqrt((double)variance + (double)epsilon));
}

#endif
