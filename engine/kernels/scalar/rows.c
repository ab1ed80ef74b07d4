/* Normalizations and reductions of rows in portable C, value by value in the order of rows_plain.h. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/rows_plain.h"

/* At most QD_ROWS_BLOCK values. */
static float reduce_block(enum qd_reduction kind, const float *x, size_t n, float mean)
{
    float parts[QD_ROWS_PARTS], t[16];
    bool nan = false;
    for (size_t i = 0; i < QD_ROWS_PARTS; i++)
        parts[i] = rows_empty(kind);
    for (size_t i = 0; i < n; i++) {
        parts[i % QD_ROWS_PARTS] = rows_step(kind, parts[i % QD_ROWS_PARTS], x[i], mean);
        nan = nan || isnan(x[i]);
    }
    for (size_t i = 0; i < 16; i++)
        t[i] = rows_join(kind, rows_join(kind, parts[i], parts[i + 16]), rows_join(kind, parts[i + 32], parts[i + 48]));
    return rows_picks(kind) && nan ? NAN : rows_join_16(kind, t);
}

static double reduce(enum qd_reduction kind, const float *x, size_t n, float mean)
{
    if (n <= QD_ROWS_BLOCK)
        return (double)reduce_block(kind, x, n, mean);
    double all = (double)rows_empty(kind);
    for (size_t i = 0; i < n; i += QD_ROWS_BLOCK) {
        float block = reduce_block(kind, x + i, n - i < QD_ROWS_BLOCK ? n - i : QD_ROWS_BLOCK, mean);
        if (!rows_picks(kind))
            all += (double)block;
        else if (isnan(block))
            return NAN;
        else
            all = (double)rows_join(kind, (float)all, block);
    }
    return all;
}

void qd_moments__scalar(const float *x, size_t n, float *mean, float *variance)
{
    *mean = (float)(reduce(QD_SUM_OF, x, n, 0) / (double)n);
    *variance = (float)(reduce(QD_SUM_OF_SQUARES, x, n, *mean) / (double)n);
}

static void norm_rows(const struct qd_norm *norm, bool centred)
{
    for (size_t r = 0; r < norm->rows; r++) {
        const float *x = norm->x + r * norm->n;
        float *y = norm->y + r * norm->n, mean = 0, variance;
        if (centred)
            qd_moments__scalar(x, norm->n, &mean, &variance);
        else
            variance = (float)(reduce(QD_SUM_OF_SQUARES, x, norm->n, 0) / (double)norm->n);
        float inv = rows_inverse_root(variance, norm->epsilon);
        for (size_t i = 0; i < norm->n; i++) {
            float v = (x[i] - mean) * inv, scale = norm->scale ? norm->scale[i] : 1.0f;
            y[i] = norm->bias ? fmaf(v, scale, norm->bias[i]) : v * scale;
        }
        if (norm->mean)
            norm->mean[r] = mean;
        if (norm->inv)
            norm->inv[r] = inv;
    }
}

void qd_layer_norm__scalar(const struct qd_norm *norm) { norm_rows(norm, true); }

void qd_rms_norm__scalar(const struct qd_norm *norm) { norm_rows(norm, false); }

/* Sum of e^(x - most), also to y unless it is NULL; at most QD_ROWS_BLOCK values. */
static float exp_block(const float *x, size_t n, float most, float *y)
{
    float parts[QD_ROWS_PARTS] = {0}, t[16];
    for (size_t i = 0; i < n; i++) {
        float e = qd_f_exp_below(x[i] - most);
        parts[i % QD_ROWS_PARTS] += e;
        if (y)
            y[i] = e;
    }
    for (size_t i = 0; i < 16; i++)
        t[i] = (parts[i] + parts[i + 16]) + (parts[i + 32] + parts[i + 48]);
    return rows_join_16(QD_SUM_OF, t);
}

void qd_softmax__scalar(const float *x, size_t rows, size_t n, bool logarithm, float *y)
{
    for (size_t r = 0; r < rows; r++, x += n, y += n) {
        float most = -INFINITY; /* NaN passed over: it comes back in the sum */
        double all = 0;
        for (size_t i = 0; i < n; i++)
            most = x[i] > most ? x[i] : most;
        for (size_t i = 0; i < n; i += QD_ROWS_BLOCK)
            all += (double)exp_block(x + i, n - i < QD_ROWS_BLOCK ? n - i : QD_ROWS_BLOCK, most,
                                     logarithm ? NULL : y + i);
        const float sum = (float)all, log = qd_f_log(sum), factor = 1 / sum;
        for (size_t i = 0; i < n; i++)
            y[i] = logarithm ? (x[i] - most) - log : y[i] * factor;
    }
}

void qd_centre__scalar(const float *x, size_t n, float mean, float factor, float bias, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = fmaf(x[i] - mean, factor, bias);
}

void qd_reduce_rows__scalar(enum qd_reduction kind, const float *x, size_t rows, size_t n, float *out)
{
    for (size_t r = 0; r < rows; r++)
        out[r] = (float)reduce(kind, x + r * n, n, 0);
}

void qd_reduce_columns__scalar(enum qd_reduction kind, const float *x, size_t rows, size_t stride, size_t n, float *out)
{
    for (size_t j = 0; j < n; j++) {
        float all = rows_empty(kind), block = all;
        bool nan = false;
        for (size_t r = 0; r < rows; r++) {
            block = rows_step(kind, block, x[r * stride + j], 0);
            nan = nan || isnan(x[r * stride + j]);
            if ((r + 1) % QD_ROWS_COLUMN_BLOCK == 0 || r + 1 == rows) {
                all = rows_join(kind, all, block);
                block = rows_empty(kind);
            }
        }
        out[j] = rows_picks(kind) && nan ? NAN : all;
    }
}
