/* Sequences of tensors that a graph makes and takes apart again, as exporters write torch.unbind, split, stack and
 * lists: what is taken out of one becomes a Gather, a Slice or the tensor that was put in, what is joined a Concat. So
 * no plan knows of sequences. Not for those that go into a model, out of it, or through control flow: these are
 * refused. */
#include "engine/plan/contrib_impl.h"

#include <string.h>

enum { MOST_ITEMS = 1024 };     /* of a list, and operators that one is made by */
enum { MOST_WALKED = 1 << 20 }; /* items and operators, for all that read them */

/* What is known of a sequence: a list of values, or a tensor that is split along an axis. */
struct sequence {
    const struct qd_node *split; /* NULL: a list */
    int count, items[MOST_ITEMS];
};

static void refuse(struct qd_rewriter *r)
{
    qd_rw_fail(r, QD_ERR_UNSUPPORTED,
               "has to do with a sequence that is not put together in this graph, of at most %d parts", MOST_ITEMS);
}

static bool is(const struct qd_node *node, const char *op) { return node && qd_node_is(node, op); }

static const struct qd_node *maker_of(const struct qd_rewriter *r, int value)
{
    const int producer = value < 0 ? -1 : r->graph->values[value].producer;
    return producer < 0 ? NULL : &r->graph->nodes[producer];
}

/* A constant position below `count`, counted from the end (if that is known) where negative; -1 when it is none. */
static int position(const struct qd_rewriter *r, int value, int count, bool end_known)
{
    int64_t at;
    size_t n;
    if (value < 0 || !r->graph->values[value].constant || !qd_tensor_ints(&r->graph->values[value].info, &at, 1, &n) ||
        n != 1)
        return -1;
    at += at < 0 && end_known ? count : 0;
    return at >= 0 && at < count ? (int)at : -1;
}

static int nth_input(const struct qd_node *node, int i) { return i < node->in_count ? node->in[i] : QD_NO_VALUE; }

/* One operator's change of a list; false when it is none, or the list grows too long. */
static bool change(struct qd_rewriter *r, const struct qd_node *node, struct sequence *s)
{
    const bool inserts = is(node, "SequenceInsert");
    const int where = nth_input(node, inserts ? 2 : 1);
    int at = s->count - (inserts ? 0 : 1);
    if (where != QD_NO_VALUE)
        at = position(r, where, s->count + inserts, true);
    if (at < 0 || s->count + inserts > MOST_ITEMS || (inserts && nth_input(node, 1) == QD_NO_VALUE))
        return false;
    const size_t behind = (size_t)(s->count - at - !inserts) * sizeof *s->items;
    if (inserts)
        memmove(s->items + at + 1, s->items + at, behind);
    else
        memmove(s->items + at, s->items + at + 1, behind);
    if (inserts)
        s->items[at] = node->in[1];
    s->count += inserts ? 1 : -1;
    return true;
}

/* What the sequence consists of. False, and r has failed, when that is not known, or a file wants too much walking. */
static bool read_sequence(struct qd_rewriter *r, int value, struct sequence *s)
{
    const struct qd_node *changes[MOST_ITEMS], *node = maker_of(r, value);
    int depth = 0;
    s->split = NULL;
    s->count = 0;
    for (; (is(node, "SequenceInsert") || is(node, "SequenceErase")) && depth < MOST_ITEMS; depth++) {
        changes[depth] = node;
        node = maker_of(r, nth_input(node, 0));
    }
    if (is(node, "SplitToSequence") && depth == 0 && nth_input(node, 0) != QD_NO_VALUE) {
        s->split = node;
        return true;
    }
    const bool listed = is(node, "SequenceConstruct") && node->in_count <= MOST_ITEMS;
    r->walked += depth + (listed ? node->in_count : 0);
    bool good = (listed || is(node, "SequenceEmpty")) && r->walked <= MOST_WALKED;
    for (int i = 0; good && listed && i < node->in_count; i++) {
        good = node->in[i] != QD_NO_VALUE;
        s->items[s->count++] = node->in[i];
    }
    while (good && depth > 0)
        good = change(r, changes[--depth], s);
    if (!good)
        refuse(r);
    return good;
}

/* Nothing is left of an operator that makes a sequence; who reads it knows how it was made. */
static void maker(struct qd_rewriter *r) { (void)r; }

/* ------------------------------------------------------------------ readers */

static int number(struct qd_rewriter *r, int value) { return QD_RW(r, "Reshape", QD_RW_NEW, value, QD_RW_LIST(r, 1)); }

/* Part `at` of a tensor that is cut by sizes (a list, or one size for all): from where to where. */
static void cut_by_sizes(struct qd_rewriter *r, const struct qd_node *split, int at, int axis)
{
    const int sizes = nth_input(split, 1), rank = qd_rw_rank(r, sizes);
    int first, size;
    if (rank == 0) {
        size = number(r, sizes);
        first = QD_RW(r, "Mul", QD_RW_NEW, qd_rw_cast(r, QD_RW_NEW, size, QD_I64), QD_RW_LIST(r, at));
    } else {
        int before = QD_RW(r, "Slice", QD_RW_NEW, sizes, QD_RW_LIST(r, 0), QD_RW_LIST(r, at));
        first = QD_RW(r, "ReduceSum", QD_RW_NEW, qd_rw_cast(r, QD_RW_NEW, before, QD_I64), QD_RW_LIST(r, 0));
        size = QD_RW(r, "Gather", QD_RW_NEW, sizes, QD_RW_LIST(r, at));
    }
    int end = QD_RW(r, "Add", QD_RW_NEW, first, qd_rw_cast(r, QD_RW_NEW, size, QD_I64));
    QD_RW(r, "Slice", qd_rw_out(r, 0), split->in[0], first, end, QD_RW_LIST(r, axis));
}

static void take(struct qd_rewriter *r)
{
    const int where = qd_rw_in(r, 1);
    struct sequence s;
    if (!read_sequence(r, qd_rw_in(r, 0), &s))
        return;
    if (!s.split) {
        const int at = position(r, where, s.count, true);
        if (at < 0)
            qd_rw_fail(r, QD_ERR_UNSUPPORTED, "takes a part of a list by no constant position that it has");
        else
            QD_RW(r, "Identity", qd_rw_out(r, 0), s.items[at]);
        return;
    }
    const int64_t axis = qd_attr_int(s.split, "axis", 0);
    if (nth_input(s.split, 1) == QD_NO_VALUE) { /* parts of one */
        const bool kept = qd_attr_int(s.split, "keepdims", 1) != 0;
        int at = kept ? number(r, where) : QD_RW(r, "Reshape", QD_RW_NEW, where, qd_rw_list(r, NULL, 0));
        QD_RW(r, "Gather", qd_rw_out(r, 0), s.split->in[0], at);
        qd_rw_int(r, "axis", axis);
        return;
    }
    const int at = position(r, where, MOST_ITEMS, false);
    if (at < 0 || axis != (int)axis || qd_rw_rank(r, nth_input(s.split, 1)) < 0)
        qd_rw_fail(r, QD_ERR_UNSUPPORTED, "takes a part of a tensor split by sizes by no constant position");
    else
        cut_by_sizes(r, s.split, at, (int)axis);
}

static void join(struct qd_rewriter *r)
{
    struct sequence s;
    if (!read_sequence(r, qd_rw_in(r, 0), &s))
        return;
    const int64_t axis = qd_rw_get_int(r, "axis", 0);
    const bool stacks = qd_rw_get_int(r, "new_axis", 0) != 0;
    if (s.split || s.count == 0) {
        qd_rw_fail(r, QD_ERR_UNSUPPORTED, "joins a sequence that is no list of tensors");
        return;
    }
    for (int i = 0; stacks && !r->status && i < s.count; i++)
        s.items[i] = QD_RW(r, "Unsqueeze", QD_RW_NEW, s.items[i], QD_RW_LIST(r, axis));
    if (r->status)
        return;
    qd_rw_make(r, "Concat", qd_rw_out(r, 0), s.items, s.count);
    qd_rw_int(r, "axis", axis);
}

static void length(struct qd_rewriter *r)
{
    struct sequence s;
    if (!read_sequence(r, qd_rw_in(r, 0), &s))
        return;
    if (!s.split) {
        QD_RW(r, "Identity", qd_rw_out(r, 0), qd_rw_one_int(r, s.count));
        return;
    }
    const int sizes = nth_input(s.split, 1);
    if (sizes == QD_NO_VALUE) {
        int shape = QD_RW(r, "Shape", QD_RW_NEW, s.split->in[0]);
        QD_RW(r, "Gather", qd_rw_out(r, 0), shape, qd_rw_one_int(r, qd_attr_int(s.split, "axis", 0)));
    } else if (qd_rw_rank(r, sizes) == 1) {
        QD_RW(r, "Size", qd_rw_out(r, 0), sizes);
    } else {
        qd_rw_fail(r, QD_ERR_UNSUPPORTED, "counts the parts of a tensor that is split by one size");
    }
}

const struct qd_contrib qd_contrib_sequence[] = {
    {"", "ConcatFromSequence", "Concat", 1, 1, join, 0},
    {"", "SequenceAt", "", 2, 2, take, 0},
    {"", "SequenceConstruct", "", 1, MOST_ITEMS, maker, 0},
    {"", "SequenceEmpty", "", 0, 0, maker, 0},
    {"", "SequenceErase", "", 1, 2, maker, 0},
    {"", "SequenceInsert", "", 2, 3, maker, 0},
    {"", "SequenceLength", "", 1, 1, length, 0},
    {"", "SplitToSequence", "", 1, 2, maker, 0},
};
const size_t qd_contrib_sequence_count = sizeof qd_contrib_sequence / sizeof *qd_contrib_sequence;
