/* DFT, STFT, windows and MelWeightMatrix: spectra of signals. Sums are taken in double by the definition, with a table
 * of the roots of unity; a power of two goes by halves. Not for convolution. */
#include "engine/ops/helpers.h"

#include <math.h>
#include <string.h>

static const double PI = 3.14159265358979323846;

struct complex {
    double re, im;
};

static struct complex times(struct complex a, struct complex b)
{
    return (struct complex){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

/* roots[i] = exp(-+2 pi i / n) */
static void roots_of(int64_t n, bool inverse, struct complex *roots)
{
    for (int64_t i = 0; i < n; i++) {
        double angle = (inverse ? 2 : -2) * PI * (double)i / (double)n;
        roots[i] = (struct complex){cos(angle), sin(angle)};
    }
}

/* In place, n a power of two. */
static void by_halves(struct complex *x, int64_t n, const struct complex *roots)
{
    for (int64_t i = 1, j = 0; i < n; i++) { /* into the order of reversed bits */
        int64_t bit = n >> 1;
        for (; j & bit; bit >>= 1)
            j ^= bit;
        j ^= bit;
        if (i < j) {
            struct complex swap = x[i];
            x[i] = x[j];
            x[j] = swap;
        }
    }
    for (int64_t half = 1; half < n; half *= 2)
        for (int64_t first = 0; first < n; first += 2 * half)
            for (int64_t k = 0; k < half; k++) {
                struct complex a = x[first + k], b = times(x[first + half + k], roots[k * (n / (2 * half))]);
                x[first + k] = (struct complex){a.re + b.re, a.im + b.im};
                x[first + half + k] = (struct complex){a.re - b.re, a.im - b.im};
            }
}

/* x[n] -> the transform, in x; `room` of n for lengths that are no power of two. */
static void transform(struct complex *x, int64_t n, const struct complex *roots, struct complex *room)
{
    if ((n & (n - 1)) == 0) {
        by_halves(x, n, roots);
        return;
    }
    for (int64_t k = 0; k < n; k++) {
        struct complex sum = {0, 0};
        for (int64_t i = 0, at = 0; i < n; i++, at = (at + k) % n) {
            struct complex term = times(x[i], roots[at]);
            sum.re += term.re;
            sum.im += term.im;
        }
        room[k] = sum;
    }
    memcpy(x, room, (size_t)n * sizeof *x);
}

static size_t transform_bytes(int64_t n) { return 3 * (size_t)n * sizeof(struct complex); }

/* ------------------------------------------------------------------ DFT: [..., n, ..., 1 or 2] */

struct dft {
    int axis;
    int64_t length; /* of the signal that is transformed: cut, or filled up with zeros */
    bool inverse, onesided;
};

static enum qd_status dft_read(const struct qd_call *call, struct dft *d, struct qd_error *error)
{
    const struct qd_shape *x = &call->in[0].shape;
    double axis = (double)qd_attr_int(call->node, "axis", 1), length = -1;
    enum qd_status status = QD_OK;
    if (call->node->opset >= 20) {
        axis = -2;
        if (qd_op_has(call, 2))
            status = qd_op_scalar(call, 2, &axis, error);
    }
    if (!status && qd_op_has(call, 1))
        status = qd_op_scalar(call, 1, &length, error);
    int64_t at = (int64_t)axis;
    if (status || (status = qd_op_axis(call, &at, x->rank, error)))
        return status;
    if (at == x->rank - 1)
        return qd_op_fail(call, error, QD_ERR_INVALID, "axis %d holds the parts of the numbers", x->rank - 1);
    *d = (struct dft){.axis = (int)at,
                      .length = qd_op_has(call, 1) ? (int64_t)length : x->dims[at],
                      .inverse = qd_attr_int(call->node, "inverse", 0) != 0,
                      .onesided = qd_attr_int(call->node, "onesided", 0) != 0};
    if (d->length < 1 || length > (double)INT32_MAX)
        return qd_op_fail(call, error, QD_ERR_INVALID, "the length of the transform must be positive");
    return QD_OK;
}

static enum qd_status dft_infer(const struct qd_call *call, struct qd_error *error)
{
    struct dft d;
    const struct qd_shape *x = &call->in[0].shape;
    enum qd_status status = qd_op_inputs(call, 1, 3, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)))
        return status;
    if (x->rank < 2 || (x->dims[x->rank - 1] != 1 && x->dims[x->rank - 1] != 2))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the last dimension must be 1 (real) or 2 (real, imaginary)");
    if ((status = dft_read(call, &d, error)))
        return status;
    struct qd_shape out = *x;
    bool real_out = d.onesided && d.inverse; /* half a spectrum in, a real signal out */
    if (real_out && !qd_op_has(call, 1))
        d.length = 2 * (x->dims[d.axis] - 1);
    out.dims[d.axis] = d.onesided && !d.inverse ? d.length / 2 + 1 : d.length;
    out.dims[x->rank - 1] = real_out ? 1 : 2;
    return qd_op_out(call, 0, QD_F32, &out, error);
}

static int64_t dft_length(const struct qd_call *call, const struct dft *d)
{
    return d->onesided && d->inverse ? call->out[0].shape.dims[d->axis] : d->length;
}

static size_t dft_scratch(const struct qd_call *call)
{
    struct dft d;
    struct qd_error ignored;
    return dft_read(call, &d, &ignored) == QD_OK ? transform_bytes(dft_length(call, &d)) : 0;
}

static enum qd_status dft_run(const struct qd_call *call, struct qd_error *error)
{
    struct dft d;
    enum qd_status status = qd_op_recheck(call, dft_infer, error);
    if (status || (status = dft_read(call, &d, error)))
        return status;
    const struct qd_shape *in = &call->in[0].shape, *out = &call->out[0].shape;
    int64_t n = dft_length(call, &d), parts = in->dims[in->rank - 1], out_parts = out->dims[out->rank - 1];
    int64_t inner = qd_shape_span(in, d.axis + 1, in->rank - 1), outer = qd_shape_span(in, 0, d.axis);
    int64_t from_n = in->dims[d.axis], to_n = out->dims[d.axis];
    struct complex *roots = call->scratch, *x = roots + n, *room = x + n;
    roots_of(n, d.inverse, roots);
    for (int64_t i = 0; i < outer * inner; i++) {
        const float *from = (const float *)call->in[0].data + (i / inner * from_n * inner + i % inner) * parts;
        float *to = (float *)call->out[0].data + (i / inner * to_n * inner + i % inner) * out_parts;
        for (int64_t k = 0; k < n; k++) {
            bool mirrored = d.onesided && d.inverse && k >= from_n && n - k < from_n;
            const float *value = from + (mirrored ? n - k : k) * inner * parts;
            bool there = mirrored || k < from_n;
            x[k] = (struct complex){there ? value[0] : 0, there && parts == 2 ? (mirrored ? -1 : 1) * value[1] : 0};
        }
        transform(x, n, roots, room);
        for (int64_t k = 0; k < to_n; k++)
            for (int64_t p = 0; p < out_parts; p++)
                to[k * inner * out_parts + p] = (float)((p ? x[k].im : x[k].re) / (d.inverse ? (double)n : 1));
    }
    return QD_OK;
}

const struct qd_op qd_op_dft = {.infer = dft_infer, .scratch = dft_scratch, .run = dft_run};

/* ------------------------------------------------------------------ STFT: signal [N, n, 1 or 2], step, window, length
 */

static enum qd_status stft_read(const struct qd_call *call, int64_t *step, int64_t *length, struct qd_error *error)
{
    double value, frame = qd_op_has(call, 2) ? (double)call->in[2].shape.dims[0] : 0;
    enum qd_status status = qd_op_scalar(call, 1, &value, error);
    if (!status && qd_op_has(call, 3))
        status = qd_op_scalar(call, 3, &frame, error);
    if (status)
        return status;
    if (!(value >= 1) || !(frame >= 1) || value > INT32_MAX || frame > INT32_MAX)
        return qd_op_fail(call, error, QD_ERR_INVALID, "frame_step and frame_length must be positive");
    *step = (int64_t)value;
    *length = (int64_t)frame;
    return QD_OK;
}

static enum qd_status stft_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_shape *x = &call->in[0].shape;
    int64_t step, length;
    enum qd_status status = qd_op_inputs(call, 2, 4, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_FLOAT, error)) ||
        (status = qd_op_types(call, 2, QD_TYPES_FLOAT, error)))
        return status;
    if ((x->rank != 2 && (x->rank != 3 || (x->dims[2] != 1 && x->dims[2] != 2))) ||
        (qd_op_has(call, 2) && call->in[2].shape.rank != 1))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the signal must be [batch, length, 1 or 2], the window a vector");
    if ((status = stft_read(call, &step, &length, error)))
        return status;
    if (qd_op_has(call, 2) && call->in[2].shape.dims[0] != length)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the window must be as long as a frame");
    if (x->dims[1] < length)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the signal is shorter than a frame");
    bool onesided = qd_attr_int(call->node, "onesided", 1) != 0;
    struct qd_shape out = {4, {x->dims[0], (x->dims[1] - length) / step + 1, onesided ? length / 2 + 1 : length, 2}};
    return qd_op_out(call, 0, QD_F32, &out, error);
}

static size_t stft_scratch(const struct qd_call *call)
{
    int64_t step, length;
    struct qd_error ignored;
    return stft_read(call, &step, &length, &ignored) == QD_OK ? transform_bytes(length) : 0;
}

static enum qd_status stft_run(const struct qd_call *call, struct qd_error *error)
{
    int64_t step, n;
    enum qd_status status = qd_op_recheck(call, stft_infer, error);
    if (status || (status = stft_read(call, &step, &n, error)))
        return status;
    const struct qd_shape *in = &call->in[0].shape, *out = &call->out[0].shape;
    int64_t parts = in->rank == 3 ? in->dims[2] : 1, frames = out->dims[1], bins = out->dims[2];
    const float *window = qd_op_has(call, 2) ? call->in[2].data : NULL;
    struct complex *roots = call->scratch, *x = roots + n, *room = x + n;
    roots_of(n, false, roots);
    for (int64_t f = 0; f < in->dims[0] * frames; f++) {
        const float *from = (const float *)call->in[0].data + (f / frames * in->dims[1] + f % frames * step) * parts;
        float *to = (float *)call->out[0].data + f * bins * 2;
        for (int64_t i = 0; i < n; i++) {
            double w = window ? (double)window[i] : 1;
            x[i] = (struct complex){w * (double)from[i * parts], parts == 2 ? w * (double)from[i * parts + 1] : 0};
        }
        transform(x, n, roots, room);
        for (int64_t k = 0; k < bins; k++) {
            to[2 * k] = (float)x[k].re;
            to[2 * k + 1] = (float)x[k].im;
        }
    }
    return QD_OK;
}

const struct qd_op qd_op_stft = {.infer = stft_infer, .scratch = stft_scratch, .run = stft_run};

/* ------------------------------------------------------------------ windows: a + b cos + c cos 2 */

static enum qd_status window_infer(const struct qd_call *call, struct qd_error *error)
{
    double size;
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_scalar(call, 0, &size, error)))
        return status;
    enum qd_dtype dtype = qd_dtype_from_onnx(qd_attr_int(call->node, "output_datatype", 1));
    if (dtype != QD_F32 && dtype != QD_F64)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "only windows of FP32 and FP64 are made");
    struct qd_shape out = {1, {(int64_t)size}};
    if (!(size >= 0) || size > INT32_MAX)
        return qd_op_fail(call, error, QD_ERR_INVALID, "a window's size must not be negative");
    return qd_op_out(call, 0, dtype, &out, error);
}

static enum qd_status window_run(const struct qd_call *call, struct qd_error *error)
{
    static const struct {
        const char *op;
        double a, b, c;
    } windows[] = {{"HannWindow", 0.5, -0.5, 0},
                   {"HammingWindow", 25.0 / 46, -21.0 / 46, 0},
                   {"BlackmanWindow", 0.42, -0.5, 0.08}};
    enum qd_status status = qd_op_recheck(call, window_infer, error);
    int64_t n = status ? 0 : call->out[0].shape.dims[0];
    double period = (double)(qd_attr_int(call->node, "periodic", 1) ? n : n - 1);
    int w = 0;
    while (strcmp(call->node->op, windows[w].op) != 0)
        w++;
    for (int64_t i = 0; i < n; i++) {
        double angle = period > 0 ? 2 * PI * (double)i / period : 0;
        double value = windows[w].a + windows[w].b * cos(angle) + windows[w].c * cos(2 * angle);
        if (call->out[0].dtype == QD_F64)
            ((double *)call->out[0].data)[i] = value;
        else
            ((float *)call->out[0].data)[i] = (float)value;
    }
    return status;
}

const struct qd_op qd_op_window = {.infer = window_infer, .run = window_run};

/* ------------------------------------------------------------------ MelWeightMatrix: [bins of a spectrum, mel bins] */

enum { MEL_BINS, DFT_LENGTH, SAMPLE_RATE, LOWER, UPPER, MEL_INPUTS };

static enum qd_status mel_read(const struct qd_call *call, double in[MEL_INPUTS], struct qd_error *error)
{
    enum qd_status status = QD_OK;
    for (int i = 0; i < MEL_INPUTS && !status; i++)
        status = qd_op_scalar(call, i, &in[i], error);
    return status;
}

static enum qd_status mel_infer(const struct qd_call *call, struct qd_error *error)
{
    double in[MEL_INPUTS];
    enum qd_status status = qd_op_inputs(call, MEL_INPUTS, MEL_INPUTS, error);
    if (status || (status = mel_read(call, in, error)))
        return status;
    if (qd_attr_int(call->node, "output_datatype", 1) != 1)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "only FP32 matrices are made");
    bool good = in[MEL_BINS] >= 1 && in[MEL_BINS] < 1e6 && in[DFT_LENGTH] >= 1 && in[DFT_LENGTH] < 1e9 &&
                in[SAMPLE_RATE] > 0 && in[LOWER] >= 0 && in[UPPER] > in[LOWER];
    if (!good)
        return qd_op_fail(call, error, QD_ERR_INVALID, "bins, length, rate or edges are out of range");
    struct qd_shape out = {2, {(int64_t)in[DFT_LENGTH] / 2 + 1, (int64_t)in[MEL_BINS]}};
    return qd_op_out(call, 0, QD_F32, &out, error);
}

static int64_t mel_bin(const double in[MEL_INPUTS], int64_t i)
{
    double low = 2595 * log10(1 + in[LOWER] / 700), high = 2595 * log10(1 + in[UPPER] / 700);
    double mel = low + (double)i * (high - low) / (in[MEL_BINS] + 2);
    double hertz = 700 * (pow(10, mel / 2595) - 1);
    return (int64_t)floor((in[DFT_LENGTH] + 1) * hertz / in[SAMPLE_RATE]);
}

static enum qd_status mel_run(const struct qd_call *call, struct qd_error *error)
{
    double in[MEL_INPUTS];
    enum qd_status status = qd_op_recheck(call, mel_infer, error);
    if (status || (status = mel_read(call, in, error)))
        return status;
    int64_t rows = call->out[0].shape.dims[0], cols = call->out[0].shape.dims[1];
    float *out = call->out[0].data;
    memset(out, 0, (size_t)(rows * cols) * sizeof *out);
    for (int64_t m = 0; m < cols; m++) {
        int64_t low = mel_bin(in, m), centre = mel_bin(in, m + 1), high = mel_bin(in, m + 2);
        if (low == centre && centre < rows)
            out[centre * cols + m] = 1;
        for (int64_t k = low; k <= centre && k < rows && low != centre; k++)
            out[k * cols + m] = (float)((double)(k - low) / (double)(centre - low));
        for (int64_t k = centre; k < high && k < rows; k++)
            out[k * cols + m] = (float)((double)(high - k) / (double)(high - centre));
    }
    return QD_OK;
}

const struct qd_op qd_op_mel_weight_matrix = {.infer = mel_infer, .run = mel_run};
