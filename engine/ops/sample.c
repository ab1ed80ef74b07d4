/* GridSample and AffineGrid: images read at places that are given in coordinates from -1 to 1. The first of a place's
 * coordinates goes along the last dimension. Not for regular grids (resize.c). */
#include "engine/ops/helpers.h"

#include <math.h>

#define SPATIAL_MAX 3
#define TAPS_MAX    4

enum filter { NEAREST, LINEAR, CUBIC };
enum border { ZEROS, BORDER, REFLECTION };

struct sampling {
    enum filter filter;
    enum border border;
    bool align; /* -1 and 1 are the centres of the outermost pixels, not their outer edges */
};

static enum qd_status sample_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                     struct qd_error *error)
{
    static const struct {
        const char *name;
        enum filter filter;
    } filters[] = {
        {"linear", LINEAR}, {"bilinear", LINEAR}, {"nearest", NEAREST}, {"cubic", CUBIC}, {"bicubic", CUBIC}};
    static const char *const borders[] = {[ZEROS] = "zeros", [BORDER] = "border", [REFLECTION] = "reflection"};
    struct sampling *s = QD_PREP_NEW(arena, struct sampling);
    bool filter = false, border = false;
    if (!s)
        return qd_op_no_memory(node, error);
    s->align = qd_attr_int(node, "align_corners", 0) != 0;
    for (size_t i = 0; i < sizeof filters / sizeof filters[0] && !filter; i++) {
        filter = qd_attr_is(node, "mode", "linear", filters[i].name);
        s->filter = filters[i].filter;
    }
    for (int i = ZEROS; i <= REFLECTION && !border; i++) {
        border = qd_attr_is(node, "padding_mode", "zeros", borders[i]);
        s->border = (enum border)i;
    }
    *prep = s;
    return filter && border ? QD_OK : qd_op_refuse(node, error, QD_ERR_FORMAT, "unknown mode or padding_mode");
}

static enum qd_status sample_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *x = &call->in[0].shape, *grid = &call->in[1].shape;
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = qd_op_types(call, 1, QD_TYPES_FLOAT, error)))
        return status;
    int spatial = x->rank - 2;
    bool fits = spatial >= 1 && spatial <= SPATIAL_MAX && grid->rank == x->rank && grid->dims[0] == x->dims[0] &&
                grid->dims[grid->rank - 1] == spatial;
    for (int i = 0; fits && i < spatial; i++)
        fits = x->dims[2 + i] > 0;
    if (!fits)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the image and the grid don't fit together");
    struct qd_shape out = *x;
    for (int i = 0; i < spatial; i++)
        out.dims[2 + i] = grid->dims[1 + i];
    return qd_op_out(call, 0, QD_F32, &out, error);
}

/* Back into [low, high], as a mirror at both ends would. */
static double reflect(double x, double low, double high)
{
    double range = high - low, over = x < low ? low - x : x - high;
    if (over <= 0 || !isfinite(x))
        return x;
    if (range <= 0)
        return low;
    double times = floor(over / range), rest = over - times * range;
    bool near_end = fmod(times, 2) == 0;
    return (x < low) == near_end ? low + rest : high - rest;
}

/* Index of tap `i` in a dimension of `size`, -1 for a zero. */
static int64_t pixel(const struct sampling *s, double i, int64_t size)
{
    double last = (double)(size - 1), low = s->align ? 0 : -0.5, high = s->align ? last : last + 0.5;
    if (i >= 0 && i <= last)
        return (int64_t)i;
    if (s->border == ZEROS || i != i)
        return -1;
    i = s->border == BORDER ? (i < 0 ? 0 : last) : reflect(i, low, high);
    return i > last ? size - 1 : i >= 0 ? (int64_t)i : 0; /* NaN: 0 */
}

static double cubic_weight(double d)
{
    const double a = -0.75;
    d = fabs(d);
    return d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

/* The taps along one dimension for coordinate `n`: indices and weights; returns their number. */
static int taps_of(const struct sampling *s, float n, int64_t size, int64_t index[TAPS_MAX], double weight[TAPS_MAX])
{
    double last = (double)(size - 1), low = s->align ? 0 : -0.5, high = s->align ? last : last + 0.5;
    double x = s->align ? ((double)n + 1) / 2 * last : (((double)n + 1) * (double)size - 1) / 2;
    if (s->filter == NEAREST)
        x = rint(x);
    if (x < low || x > high) {
        if (s->border == BORDER && s->filter != CUBIC) /* whose taps end at the border each */
            x = x < 0 ? 0 : last;
        else if (s->border == REFLECTION)
            x = reflect(x, low, high);
    }
    double first = floor(x);
    int count = s->filter == NEAREST ? 1 : s->filter == LINEAR ? 2 : 4;
    for (int i = 0; i < count; i++) {
        double at = s->filter == CUBIC ? first - 1 + i : first + i;
        index[i] = pixel(s, at, size);
        weight[i] = s->filter == NEAREST ? 1 : s->filter == LINEAR ? 1 - fabs(x - at) : cubic_weight(x - at);
    }
    return count;
}

struct sample_run {
    const struct qd_call *call;
    int64_t channels, in_span, places;
};

static void sample_places(void *ctx, int64_t begin, int64_t end)
{
    const struct sample_run *r = ctx;
    const struct qd_shape *shape = &r->call->in[0].shape;
    int spatial = shape->rank - 2;
    for (int64_t p = begin; p < end; p++) {
        int64_t index[SPATIAL_MAX][TAPS_MAX], image = p / r->places, place = p % r->places;
        double weight[SPATIAL_MAX][TAPS_MAX];
        int count = 1, all = 1;
        for (int d = 0; d < spatial; d++) {
            float n = ((const float *)r->call->in[1].data)[p * spatial + (spatial - 1 - d)];
            count = taps_of(r->call->prep, n, shape->dims[2 + d], index[d], weight[d]);
            all *= count;
        }
        for (int64_t c = 0; c < r->channels; c++) {
            const float *in = (const float *)r->call->in[0].data + (image * r->channels + c) * r->in_span;
            double sum = 0;
            for (int t = 0; t < all; t++) {
                int64_t at = 0;
                double w = 1;
                for (int d = 0, rest = t; d < spatial; d++, rest /= count) {
                    int64_t i = index[d][rest % count];
                    at = i < 0 || at < 0 ? -1 : at * shape->dims[2 + d] + i;
                    w *= weight[d][rest % count];
                }
                sum += at < 0 ? 0 : w * (double)in[at];
            }
            ((float *)r->call->out[0].data)[(image * r->channels + c) * r->places + place] = (float)sum;
        }
    }
}

static enum qd_status sample_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct qd_shape *x = &call->in[0].shape, *out = &call->out[0].shape;
    struct sample_run r = {call, x->dims[1], qd_shape_span(x, 2, x->rank), qd_shape_span(out, 2, out->rank)};
    qd_op_split(call, out->dims[0] * r.places, 64, sample_places, &r);
    return QD_OK;
}

const struct qd_op qd_op_grid_sample = {.prepare = sample_prepare, .infer = sample_infer, .run = sample_run};

/* ------------------------------------------------------------------ AffineGrid: theta [N, d, d + 1], size [N, C, ...]
 */

static enum qd_status affine_infer(const struct qd_call *call, struct qd_error *error)
{
    int64_t size[2 + SPATIAL_MAX];
    size_t count;
    const struct qd_shape *theta = &call->in[0].shape;
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = qd_op_ints(call, 1, size, 2 + SPATIAL_MAX, &count, error)))
        return status;
    int spatial = (int)count - 2;
    if (spatial < 2 || theta->rank != 3 || theta->dims[0] != size[0] || theta->dims[1] != spatial ||
        theta->dims[2] != spatial + 1)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "theta and size don't fit together");
    struct qd_shape out = {.rank = spatial + 2};
    out.dims[0] = size[0];
    for (int i = 0; i < spatial; i++) {
        if (size[2 + i] < 0)
            return qd_op_fail(call, error, QD_ERR_SHAPE, "a size is negative");
        out.dims[1 + i] = size[2 + i];
    }
    out.dims[spatial + 1] = spatial;
    return qd_op_out(call, 0, QD_F32, &out, error);
}

static enum qd_status affine_run(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_recheck(call, affine_infer, error);
    const struct qd_shape *out = &call->out[0].shape;
    int spatial = out->rank - 2;
    bool align = qd_attr_int(call->node, "align_corners", 0) != 0;
    int64_t places = status ? 0 : qd_shape_span(out, 1, out->rank - 1);
    float *to = call->out[0].data;
    for (int64_t i = 0; !status && i < out->dims[0] * places; i++) {
        const float *theta = (const float *)call->in[0].data + i / places * spatial * (spatial + 1);
        double base[SPATIAL_MAX]; /* the place's own coordinates, last dimension first */
        int64_t rest = i % places;
        for (int d = spatial - 1; d >= 0; d--) {
            int64_t size = out->dims[1 + d], at = rest % size;
            base[spatial - 1 - d] = align ? (size > 1 ? 2.0 * (double)at / (double)(size - 1) - 1 : -1)
                                          : (2.0 * (double)at + 1) / (double)size - 1;
            rest /= size;
        }
        for (int d = 0; d < spatial; d++) {
            double sum = (double)theta[d * (spatial + 1) + spatial];
            for (int k = 0; k < spatial; k++)
                sum += (double)theta[d * (spatial + 1) + k] * base[k];
            to[i * spatial + d] = (float)sum;
        }
    }
    return status;
}

const struct qd_op qd_op_affine_grid = {.infer = affine_infer, .run = affine_run};
