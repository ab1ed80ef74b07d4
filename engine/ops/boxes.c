/* NonMaxSuppression: which boxes stay, best score first, when those that overlap a better one go. How many stay depends
 * on data, so that infer already selects. Not for regions of interest. */
#include "engine/ops/helpers.h"

#include <math.h>

struct limits {
    int64_t batches, classes, boxes, most;
    float overlap, score;
    bool centre; /* boxes are centre and size instead of two corners */
};

/* NEEDS_DATA while an optional number is not known. */
static enum qd_status limits_of(const struct qd_call *call, struct limits *l, struct qd_error *error)
{
    double values[3] = {0, 0, -INFINITY};
    for (int i = 0; i < 3; i++) {
        enum qd_status status = qd_op_has(call, 2 + i) ? qd_op_scalar(call, 2 + i, &values[i], error) : QD_OK;
        if (status)
            return status;
    }
    const struct qd_shape *scores = &call->in[1].shape;
    *l = (struct limits){scores->dims[0],
                         scores->dims[1],
                         scores->dims[2],
                         0,
                         (float)values[1],
                         (float)values[2],
                         qd_attr_int(call->node, "center_point_box", 0) != 0};
    l->most = values[0] > (double)l->boxes ? l->boxes : values[0] > 0 ? (int64_t)values[0] : 0;
    return QD_OK;
}

static void corners(const float *box, bool centre, float out[4])
{
    for (int i = 0; i < 2; i++) {
        float a = centre ? box[i] - box[2 + i] / 2 : box[i], b = centre ? box[i] + box[2 + i] / 2 : box[2 + i];
        out[i] = a < b ? a : b;
        out[2 + i] = a < b ? b : a;
    }
}

static bool overlaps(const float *a, const float *b, const struct limits *l)
{
    float p[4], q[4], area = 1, area_p = 1, area_q = 1;
    corners(a, l->centre, p);
    corners(b, l->centre, q);
    for (int i = 0; i < 2; i++) {
        float low = p[i] > q[i] ? p[i] : q[i], high = p[2 + i] < q[2 + i] ? p[2 + i] : q[2 + i];
        area *= high > low ? high - low : 0;
        area_p *= p[2 + i] - p[i];
        area_q *= q[2 + i] - q[i];
    }
    float both = area_p + area_q - area;
    return area > 0 && both > 0 && area / both > l->overlap;
}

/* The best score behind that of box `last` (-1: of all), ties by index; -1 when there is none above the threshold. */
static int64_t next_best(const float *scores, const struct limits *l, int64_t last)
{
    int64_t best = -1;
    for (int64_t i = 0; i < l->boxes; i++) {
        bool behind = last < 0 || scores[i] < scores[last] || (scores[i] == scores[last] && i > last);
        if (behind && scores[i] > l->score && (best < 0 || scores[i] > scores[best]))
            best = i;
    }
    return best;
}

/* The boxes of one class that stay into kept[], at most l->most; returns their number. */
static int64_t suppress(const float *boxes, const float *scores, const struct limits *l, int64_t *kept)
{
    int64_t count = 0;
    for (int64_t i = next_best(scores, l, -1); i >= 0 && count < l->most; i = next_best(scores, l, i)) {
        bool stays = true;
        for (int64_t k = 0; k < count && stays; k++)
            stays = !overlaps(boxes + 4 * i, boxes + 4 * kept[k], l);
        if (stays)
            kept[count++] = i;
    }
    return count;
}

/* All classes of all images; writes triples [image, class, box] to out, at most `room`, when it is not NULL. */
static int64_t select_all(const struct qd_call *call, const struct limits *l, int64_t *kept, int64_t *out, int64_t room)
{
    int64_t total = 0;
    for (int64_t set = 0; l->most && set < l->batches * l->classes; set++) {
        int64_t image = set / l->classes;
        int64_t count = suppress((const float *)call->in[0].data + 4 * image * l->boxes,
                                 (const float *)call->in[1].data + set * l->boxes, l, kept);
        for (int64_t k = 0; out && k < count && total + k < room; k++) {
            int64_t *triple = out + 3 * (total + k);
            triple[0] = image;
            triple[1] = set % l->classes;
            triple[2] = kept[k];
        }
        total += count;
    }
    return total;
}

static enum qd_status infer(const struct qd_call *call, struct qd_error *error)
{
    struct limits l;
    enum qd_status status = qd_op_inputs(call, 2, 5, error);
    for (int i = 0; i < 5 && !status; i++)
        status = qd_op_types(call, i, i == 2 ? QD_BIT(QD_I64) : QD_TYPES_FLOAT, error);
    if (status)
        return status;
    const struct qd_shape *boxes = &call->in[0].shape, *scores = &call->in[1].shape;
    if (boxes->rank != 3 || scores->rank != 3 || boxes->dims[0] != scores->dims[0] ||
        boxes->dims[1] != scores->dims[2] || boxes->dims[2] != 4)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "boxes and scores don't fit");
    if ((status = limits_of(call, &l, error)))
        return status;
    struct qd_shape out = {.rank = 2, .dims = {0, 3}};
    if (qd_tensor_elems(&call->in[1]) && l.most) {
        if (!call->in[0].data || !call->in[1].data)
            return QD_ERR_NEEDS_DATA;
        int64_t *kept = qd_calloc((size_t)l.most, sizeof *kept);
        if (!kept)
            return qd_op_fail(call, error, QD_ERR_NO_MEMORY, "no memory to select boxes");
        out.dims[0] = select_all(call, &l, kept, NULL, 0);
        qd_free(kept);
    }
    return qd_op_out(call, 0, QD_I64, &out, error);
}

static size_t scratch(const struct qd_call *call)
{
    struct limits l;
    return limits_of(call, &l, NULL) ? 0 : (size_t)l.most * sizeof(int64_t);
}

static enum qd_status run(const struct qd_call *call, struct qd_error *error)
{
    struct limits l;
    enum qd_status status = limits_of(call, &l, error);
    if (status || qd_tensor_elems(&call->in[1]) == 0)
        return status;
    if (select_all(call, &l, call->scratch, call->out[0].data, call->out[0].shape.dims[0]) !=
        call->out[0].shape.dims[0])
        return qd_op_fail(call, error, QD_ERR_SHAPE, "the output's shape is not the planned one");
    return QD_OK;
}

const struct qd_op qd_op_non_max_suppression = {.infer = infer, .scratch = scratch, .run = run};
