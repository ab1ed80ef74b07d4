/* Rules of operators that add, drop, cut or join axes, and of lists of dimensions that exporters cut and join. */
#include "engine/plan/dims_impl.h"

void qd_dims_squeeze(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *in = dims_input(t, node, 0);
    int64_t axes[QD_MAX_RANK];
    int count;
    unsigned gone = 0;
    out->length = in->length;
    memcpy(out->list, in->list, sizeof out->list);
    if (in->rank < 0 || !dims_axes_of(t, node, axes, &count) || count == 0)
        return;
    for (int i = 0; i < count; i++) {
        int64_t axis = axes[i] < 0 ? axes[i] + in->rank : axes[i];
        if (axis < 0 || axis >= in->rank)
            return;
        gone |= 1u << axis;
    }
    out->rank = 0;
    for (int i = 0; i < in->rank; i++)
        if (!(gone >> i & 1))
            out->dims[out->rank++] = in->dims[i];
}

void qd_dims_unsqueeze(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *in = dims_input(t, node, 0);
    int64_t axes[QD_MAX_RANK];
    int count, taken = 0;
    unsigned made = 0;
    out->length = in->rank == 0 ? in->length : -1;
    out->list[0] = in->list[0];
    out->has_number = in->has_number;
    out->number = in->number;
    if (in->rank < 0 || !dims_axes_of(t, node, axes, &count) || in->rank + count > QD_MAX_RANK)
        return;
    for (int i = 0; i < count; i++) {
        int64_t axis = axes[i] < 0 ? axes[i] + in->rank + count : axes[i];
        if (axis < 0 || axis >= in->rank + count || made >> axis & 1)
            return;
        made |= 1u << axis;
    }
    out->rank = in->rank + count;
    for (int i = 0; i < out->rank; i++)
        out->dims[i] = made >> i & 1 ? 1 : in->dims[taken++];
}

void qd_dims_shape(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *in = dims_input(t, node, 0);
    out->rank = 1;
    out->dims[0] = dims_fresh(t);
    if (in->rank < 0)
        return;
    int64_t begin = qd_attr_int(node, "start", 0), end = qd_attr_int(node, "end", in->rank);
    begin = begin < 0 ? begin + in->rank : begin;
    end = end < 0 ? end + in->rank : end > in->rank ? in->rank : end;
    if (begin < 0 || end < begin)
        return;
    out->length = (int)(end - begin);
    memcpy(out->list, in->dims + begin, (size_t)out->length * sizeof out->list[0]);
    out->dims[0] = out->length;
}

void qd_dims_concat(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *first = dims_input(t, node, 0);
    int64_t axis = qd_attr_int(node, "axis", 0);
    out->rank = first->rank;
    memcpy(out->dims, first->dims, sizeof out->dims);
    if (first->rank < 0 || axis < -first->rank || axis >= first->rank) {
        out->rank = -1;
        return;
    }
    axis += axis < 0 ? first->rank : 0;
    int64_t total = 0;
    out->length = first->rank == 1 ? 0 : -1;
    for (int i = 0; i < node->in_count; i++) {
        const struct qd_dims *in = dims_input(t, node, i);
        bool fits = in->length >= 0 && out->length >= 0 && out->length + in->length <= QD_MAX_RANK;
        if (fits)
            memcpy(out->list + out->length, in->list, (size_t)in->length * sizeof in->list[0]);
        out->length = fits ? out->length + in->length : -1;
        bool known = total >= 0 && in->rank == first->rank && qd_dim_known(in->dims[axis]) &&
                     in->dims[axis] <= INT32_MAX;
        total = known ? total + in->dims[axis] : -1;
    }
    out->dims[axis] = total >= 0 ? total : dims_fresh(t);
}

void qd_dims_gather(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *in = dims_input(t, node, 0), *index = dims_input(t, node, 1);
    int64_t axis = qd_attr_int(node, "axis", 0), at[QD_MAX_RANK];
    int count;
    if (in->rank < 1 || index->rank < 0 || in->rank - 1 + index->rank > QD_MAX_RANK)
        return;
    axis = axis < 0 ? axis + in->rank : axis;
    if (axis < 0 || axis >= in->rank)
        return;
    for (int i = 0; i < in->rank; i++) {
        if (i != axis)
            out->dims[i < axis ? i : i - 1 + index->rank] = in->dims[i];
    }
    memcpy(out->dims + axis, index->dims, (size_t)index->rank * sizeof out->dims[0]);
    out->rank = in->rank - 1 + index->rank;
    if (in->rank != 1 || in->length < 0 || !dims_numbers(t, node, 1, at, &count))
        return;
    for (int i = 0; i < count; i++) {
        at[i] = at[i] < 0 ? at[i] + in->length : at[i];
        if (at[i] < 0 || at[i] >= in->length)
            return;
        out->list[i] = in->list[at[i]];
    }
    out->length = count;
}

/* One axis of numbers start, end, step from a Slice; false: another Slice. */
static bool slice_range(const struct dims_tracer *t, const struct qd_node *node, int64_t range[3], int64_t *axis)
{
    int64_t list[QD_MAX_RANK];
    int count;
    range[2] = 1;
    *axis = 0;
    if (node->opset < 10) {
        static const char *const names[] = {"starts", "ends"};
        size_t given;
        for (int i = 0; i < 2; i++) {
            const int64_t *values = qd_attr_ints(node, names[i], &given);
            if (!values || given != 1)
                return false;
            range[i] = values[0];
        }
        const int64_t *axes = qd_attr_ints(node, "axes", &given);
        if (axes && given == 1)
            *axis = axes[0];
        return !axes || given == 1;
    }
    for (int i = 1; i < 5; i++) {
        if (i >= 3 && (i >= node->in_count || node->in[i] == QD_NO_VALUE))
            continue;
        if (!dims_numbers(t, node, i, list, &count) || count != 1)
            return false;
        *(i < 3 ? &range[i - 1] : i == 3 ? axis : &range[2]) = list[0];
    }
    return true;
}

void qd_dims_range(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *start = dims_input(t, node, 0), *limit = dims_input(t, node, 1),
                         *step = dims_input(t, node, 2);
    dims_all_fresh(t, out, 1);
    bool counts = start->length == 1 && limit->length == 1 && step->length == 1 && start->list[0] == 0 &&
                  step->list[0] == 1 && !(qd_dim_known(limit->list[0]) && limit->list[0] < 0);
    if (counts)
        out->dims[0] = limit->list[0];
}

void qd_dims_slice(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *in = dims_input(t, node, 0);
    int64_t range[3], axis;
    dims_all_fresh(t, out, in->rank);
    if (in->rank < 1 || !slice_range(t, node, range, &axis))
        return;
    axis = axis < 0 ? axis + in->rank : axis;
    if (axis < 0 || axis >= in->rank)
        return;
    for (int i = 0; i < in->rank; i++)
        if (i != axis)
            out->dims[i] = in->dims[i];
    int64_t size = in->dims[axis];
    if (!qd_dim_known(size) || range[2] != 1)
        return;
    for (int i = 0; i < 2; i++) {
        range[i] = range[i] < 0 ? range[i] + size : range[i];
        range[i] = range[i] < 0 ? 0 : range[i] > size ? size : range[i];
    }
    out->dims[axis] = range[1] > range[0] ? range[1] - range[0] : 0;
    if (in->rank == 1 && in->length == size) {
        out->length = (int)out->dims[axis];
        memmove(out->list, in->list + range[0], (size_t)out->length * sizeof out->list[0]);
    }
}

void qd_dims_split(struct dims_tracer *t, const struct qd_node *node, struct qd_dims *out)
{
    const struct qd_dims *in = dims_input(t, node, 0);
    int64_t axis = qd_attr_int(node, "axis", 0), sizes[QD_MAX_RANK];
    size_t given;
    int count = 0;
    const int64_t *list = qd_attr_ints(node, "split", &given);
    axis = axis < 0 && in->rank > 0 ? axis + in->rank : axis;
    bool named = list || (node->in_count > 1 && node->in[1] != QD_NO_VALUE);
    bool known = list ? true : named && dims_numbers(t, node, 1, sizes, &count);
    if (list)
        count = (int)given;
    for (int o = 0; o < node->out_count && in->rank > 0 && axis >= 0 && axis < in->rank; o++) {
        if (node->out[o] == QD_NO_VALUE)
            continue;
        struct qd_dims *to = o ? &t->dims[node->out[o]] : out;
        to->rank = in->rank;
        memcpy(to->dims, in->dims, sizeof to->dims);
        bool even = !named && qd_dim_known(in->dims[axis]) && in->dims[axis] % node->out_count == 0;
        to->dims[axis] = known && o < count ? (list ? list[o] : sizes[o])
                         : even             ? in->dims[axis] / node->out_count
                                            : dims_fresh(t);
    }
}
