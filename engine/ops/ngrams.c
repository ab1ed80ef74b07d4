/* TfIdfVectorizer: counts of n-grams, of neighbours or with elements skipped, looked up in a pool of the model's. Pools
 * of strings are refused. Not for splitting text into words. */
#include "engine/ops/helpers.h"

#include <string.h>

enum weighting { COUNT, PRESENCE, WEIGHTED };

/* The pool holds the n-grams of each length one after the other; `starts` says where those of length n + 1 begin. */
struct ngrams {
    const int64_t *pool, *starts, *columns; /* columns: of the output, by n-gram */
    const float *weights;                   /* by column, or NULL */
    size_t pool_size, lengths, count, weight_count;
    int64_t least, most, skips, width; /* lengths looked for; elements skipped at most; columns */
    enum weighting weighting;
};

static enum qd_status ngrams_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                     struct qd_error *error)
{
    static const char *const modes[] = {[COUNT] = "TF", [PRESENCE] = "IDF", [WEIGHTED] = "TFIDF"};
    struct ngrams *g = QD_PREP_NEW(arena, struct ngrams);
    int mode = COUNT;
    if (!g)
        return qd_op_no_memory(node, error);
    while (mode <= WEIGHTED && !qd_attr_is(node, "mode", "", modes[mode]))
        mode++;
    g->weighting = (enum weighting)mode;
    g->pool = qd_attr_ints(node, "pool_int64s", &g->pool_size);
    g->starts = qd_attr_ints(node, "ngram_counts", &g->lengths);
    g->columns = qd_attr_ints(node, "ngram_indexes", &g->count);
    g->weights = qd_attr_floats(node, "weights", &g->weight_count);
    g->least = qd_attr_int(node, "min_gram_length", 1);
    g->most = qd_attr_int(node, "max_gram_length", 1);
    g->skips = qd_attr_int(node, "max_skip_count", 0);
    *prep = g;
    if (mode > WEIGHTED)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "mode must be TF, IDF or TFIDF");
    if (!g->pool)
        return qd_op_refuse(node, error, QD_ERR_UNSUPPORTED, "only pools of integers are supported");
    if (!g->starts || !g->columns || g->least < 1 || g->most < g->least || g->skips < 0)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "its n-grams make no sense");
    size_t grams = 0;
    for (size_t n = 0; n < g->lengths; n++) {
        int64_t end = n + 1 < g->lengths ? g->starts[n + 1] : (int64_t)g->pool_size;
        if (g->starts[n] < 0 || end < g->starts[n] || end > (int64_t)g->pool_size ||
            (end - g->starts[n]) % (int64_t)(n + 1))
            return qd_op_refuse(node, error, QD_ERR_INVALID, "ngram_counts don't fit the pool");
        grams += (size_t)(end - g->starts[n]) / (n + 1);
    }
    for (size_t i = 0; i < g->count; i++) {
        if (g->columns[i] < 0 || g->columns[i] > INT32_MAX)
            return qd_op_refuse(node, error, QD_ERR_INVALID, "ngram_indexes must be columns");
        g->width = g->columns[i] + 1 > g->width ? g->columns[i] + 1 : g->width;
    }
    if (grams > g->count || (g->weights && (int64_t)g->weight_count < g->width))
        return qd_op_refuse(node, error, QD_ERR_INVALID, "ngram_indexes or weights are too few");
    return QD_OK;
}

static enum qd_status ngrams_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct ngrams *g = call->prep;
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_INDEX, error)))
        return status;
    struct qd_shape out = call->in[0].shape;
    if (out.rank < 1 || out.rank > 2)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "needs a row of elements, or a batch of rows");
    out.dims[out.rank - 1] = g->width;
    return qd_op_out(call, 0, QD_F32, &out, error);
}

static int64_t element(const struct qd_tensor *in, int64_t i)
{
    return in->dtype == QD_I64 ? ((const int64_t *)in->data)[i] : ((const int32_t *)in->data)[i];
}

/* Adds the n-gram that starts at element `at` of the input, its elements `step` apart, to the row's counts. */
static void count_gram(const struct qd_call *call, int64_t length, int64_t at, int64_t step, float *row)
{
    const struct ngrams *g = call->prep;
    size_t first = 0;
    for (int64_t n = 1; n < length; n++)
        first += (size_t)(g->starts[n] - g->starts[n - 1]) / (size_t)n;
    const int64_t end = (size_t)length < g->lengths ? g->starts[length] : (int64_t)g->pool_size;
    const int64_t *gram = g->pool + g->starts[length - 1];
    for (size_t i = first; gram + length <= g->pool + end; gram += length, i++) {
        int64_t same = 0;
        while (same < length && gram[same] == element(&call->in[0], at + same * step))
            same++;
        if (same == length) {
            row[g->columns[i]] += 1;
            return;
        }
    }
}

static void weigh(const struct ngrams *g, float *row)
{
    for (int64_t c = 0; c < g->width; c++) {
        const float weight = g->weights ? g->weights[c] : 1;
        if (g->weighting == PRESENCE)
            row[c] = row[c] > 0 ? weight : 0;
        else if (g->weighting == WEIGHTED)
            row[c] *= weight;
    }
}

static enum qd_status ngrams_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct ngrams *g = call->prep;
    const struct qd_shape *in = &call->in[0].shape;
    const int64_t n = in->dims[in->rank - 1], rows = in->rank == 2 ? in->dims[0] : 1;
    const int64_t most = g->most < (int64_t)g->lengths ? g->most : (int64_t)g->lengths;
    for (int64_t r = 0; r < rows; r++) {
        float *row = (float *)call->out[0].data + r * g->width;
        for (int64_t c = 0; c < g->width; c++)
            row[c] = 0;
        for (int64_t step = 1; step <= g->skips + 1 && step <= n + 1; step++)
            for (int64_t length = g->least; length <= most; length++)
                for (int64_t at = 0; at + step * (length - 1) < n && !(length == 1 && step > 1); at++)
                    count_gram(call, length, r * n + at, step, row); /* single elements have nothing to skip */
        weigh(g, row);
    }
    return QD_OK;
}

const struct qd_op qd_op_ngrams = {.prepare = ngrams_prepare, .infer = ngrams_infer, .run = ngrams_run};
