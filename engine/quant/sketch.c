/* The sketch of a distribution. Its window of bins only ever moves up; what falls out below counts as small. */
#include "engine/quant/sketch.h"

#include <math.h>
#include <string.h>

#define SHIFT  (23 - QD_SKETCH_BITS)
#define OCTAVE (1u << QD_SKETCH_BITS)

static uint32_t magnitude_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x7fffffffu;
}

void qd_sketch_init(struct qd_sketch *sketch)
{
    memset(sketch, 0, sizeof *sketch);
    sketch->min = INFINITY;
    sketch->max = -INFINITY;
}

/* Moves the window up to the octave of `key`, if that lies above it. */
static void reach(struct qd_sketch *sketch, uint32_t key)
{
    uint32_t end = (key / OCTAVE + 1) * OCTAVE;
    if (end <= sketch->base + QD_SKETCH_BINS)
        return;
    uint32_t by = end - QD_SKETCH_BINS - sketch->base, gone = by < QD_SKETCH_BINS ? by : QD_SKETCH_BINS;
    for (int sign = 0; sign < 2; sign++) {
        uint64_t *bins = sketch->bins[sign];
        for (uint32_t i = 0; i < gone; i++)
            sketch->small += bins[i];
        memmove(bins, bins + gone, (QD_SKETCH_BINS - gone) * sizeof *bins);
        memset(bins + QD_SKETCH_BINS - gone, 0, gone * sizeof *bins);
    }
    sketch->base += by;
}

void qd_sketch_add(struct qd_sketch *sketch, const float *values, size_t count)
{
    sketch->elems += count;
    for (size_t i = 0; i < count; i++) {
        float value = values[i];
        uint32_t bits = magnitude_bits(value), key = bits >> SHIFT;
        if (bits >= 0x7f800000u) {
            sketch->nonfinite++;
            continue;
        }
        value = bits ? value : 0.0f; /* no negative zero: the state would depend on the order */
        sketch->min = value < sketch->min ? value : sketch->min;
        sketch->max = value > sketch->max ? value : sketch->max;
        reach(sketch, key);
        if (!bits)
            sketch->zeros++;
        else if (key < sketch->base)
            sketch->small++;
        else
            sketch->bins[value < 0.0f][key - sketch->base]++;
    }
}

void qd_sketch_merge(struct qd_sketch *into, const struct qd_sketch *from)
{
    reach(into, from->base + QD_SKETCH_BINS - 1);
    into->min = from->min < into->min ? from->min : into->min;
    into->max = from->max > into->max ? from->max : into->max;
    into->elems += from->elems;
    into->nonfinite += from->nonfinite;
    into->zeros += from->zeros;
    into->small += from->small;
    uint32_t up = into->base - from->base;
    for (int sign = 0; sign < 2; sign++)
        for (uint32_t i = 0; i < QD_SKETCH_BINS; i++)
            if (i < up)
                into->small += from->bins[sign][i];
            else
                into->bins[sign][i - up] += from->bins[sign][i];
}

double qd_sketch_edge(const struct qd_sketch *sketch, size_t i)
{
    uint32_t bits = (sketch->base + (uint32_t)i) << SHIFT;
    float edge;
    memcpy(&edge, &bits, sizeof edge);
    return (double)edge;
}
