/* Einsum as what it mostly is: matrix products, elementwise products, sums and transposes, which have kernels, INT8
 * paths and patterns (an attention written by Einsum is recognised as one). Terms are joined from the left. What
 * doesn't fit, such as a diagonal, an ellipsis, or two axes to be joined of which no size is known, stays an Einsum
 * (engine/ops/einsum.c).
 *
 * For two terms each letter is one of: batch (in both and in the result), rows (only in the first), columns (only in
 * the second), inner (in both, summed). The first term is turned to [batch, rows, inner], the second to [batch, inner,
 * columns]. */
#include "engine/plan/contrib_impl.h"

#include <ctype.h>
#include <string.h>

enum { MOST_TERMS = 8, MOST_LETTERS = 2 * QD_MAX_RANK };

struct letters {
    int count;
    char list[MOST_LETTERS];
};

struct term {
    int value;
    bool constant;
    struct letters l;
};

struct job {
    struct qd_rewriter *r;
    bool dry; /* only find out whether it works: nothing is written */
    struct term terms[MOST_TERMS];
    int count;
    struct letters out;
    int64_t sizes[128]; /* of letters, -1: not known */
};

static int place_of(const struct letters *l, char letter)
{
    const char *at = memchr(l->list, letter, (size_t)l->count);
    return at ? (int)(at - l->list) : -1;
}

static bool has(const struct letters *l, char letter) { return place_of(l, letter) >= 0; }

static void add(struct letters *l, char letter) { l->list[l->count++] = letter; }

/* ------------------------------------------------------------------ reading */

/* Letters of one term, none twice. */
static bool read_letters(const char *text, size_t length, struct letters *l)
{
    l->count = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] == ' ')
            continue;
        if (!isalpha((unsigned char)text[i]) || has(l, text[i]) || l->count >= QD_MAX_RANK)
            return false;
        add(l, text[i]);
    }
    return true;
}

/* Without an arrow: all letters that stand once, in alphabetical order. */
static bool implied(const struct job *j, struct letters *out)
{
    out->count = 0;
    for (char c = 'A'; c <= 'z'; c++) {
        int met = 0;
        for (int t = 0; t < j->count; t++)
            met += has(&j->terms[t].l, c);
        if (met == 1 && out->count >= QD_MAX_RANK)
            return false;
        if (met == 1)
            add(out, c);
    }
    return true;
}

static bool read_equation(struct job *j)
{
    const struct qd_text *text = qd_rw_get_text(j->r, "equation");
    if (!text || j->r->node.in_count > MOST_TERMS)
        return false;
    const char *at = text->bytes, *end = at + text->length, *stop = at;
    j->count = j->r->node.in_count;
    for (int t = 0; t < j->count; t++) {
        while (stop < end && *stop != ',' && *stop != '-')
            stop++;
        if (!read_letters(at, (size_t)(stop - at), &j->terms[t].l) ||
            (stop < end && *stop == ',') != (t + 1 < j->count))
            return false;
        if (t + 1 < j->count)
            at = ++stop;
    }
    if (stop == end)
        return implied(j, &j->out);
    return end - stop >= 2 && stop[1] == '>' && read_letters(stop + 2, (size_t)(end - stop - 2), &j->out);
}

/* Sizes as far as known. An axis of 1 that is to be repeated is not for a matrix product. */
static bool find_sizes(struct job *j)
{
    memset(j->sizes, -1, sizeof j->sizes);
    for (int t = 0; t < j->count; t++) {
        struct term *term = &j->terms[t];
        term->value = qd_rw_need(j->r, t);
        if (term->value == QD_NO_VALUE)
            return false;
        term->constant = j->r->graph->values[term->value].constant;
        int rank = j->r->graph->values[term->value].info.shape.rank;
        if (rank >= 0 && rank != term->l.count)
            return false;
        for (int i = 0; i < term->l.count; i++) {
            int64_t size = qd_rw_dim(j->r, term->value, i), *known = &j->sizes[(unsigned char)term->l.list[i]];
            if (size >= 0 && *known >= 0 && size != *known)
                return false;
            *known = size >= 0 ? size : *known;
        }
    }
    for (int i = 0; i < j->out.count; i++) {
        bool met = false;
        for (int t = 0; t < j->count; t++)
            met |= has(&j->terms[t].l, j->out.list[i]);
        if (!met)
            return false;
    }
    return true;
}

/* ------------------------------------------------------------------ steps; dry: only the letters change */

static void turn(struct job *j, struct term *t, const struct letters *to)
{
    int64_t perm[QD_MAX_RANK];
    bool turned = false;
    for (int i = 0; i < to->count; i++) {
        perm[i] = place_of(&t->l, to->list[i]);
        turned |= perm[i] != i;
    }
    if (turned && !j->dry)
        t->value = qd_rw_transpose(j->r, t->value, perm, (size_t)to->count);
    t->l = *to;
}

static int64_t product(const struct job *j, const struct letters *l)
{
    int64_t all = 1;
    for (int i = 0; i < l->count && all >= 0; i++) {
        int64_t size = j->sizes[(unsigned char)l->list[i]];
        if (size < 0 || !qd_i64_mul(all, size, &all))
            all = -1;
    }
    return all;
}

struct target {
    int64_t sizes[MOST_LETTERS]; /* 0: as it is, -1: what remains */
    int count, open;
};

static void put(struct target *to, int64_t size)
{
    to->open += size < 0;
    to->sizes[to->count++] = size;
}

static void put_kept(struct target *to, int count)
{
    for (int i = 0; i < count; i++)
        to->sizes[to->count++] = 0;
}

static bool reshape(struct job *j, int *value, const struct target *to)
{
    if (to->open > 1)
        return false;
    if (!j->dry)
        *value = QD_RW(j->r, "Reshape", QD_RW_NEW, *value, qd_rw_list(j->r, to->sizes, (size_t)to->count));
    return true;
}

static void along(struct job *j, const char *op, int *value, int from, int count)
{
    int64_t axes[QD_MAX_RANK];
    for (int i = 0; i < count && i < QD_MAX_RANK; i++)
        axes[i] = from + i;
    if (count && !j->dry)
        *value = QD_RW(j->r, op, QD_RW_NEW, *value, qd_rw_list(j->r, axes, (size_t)count));
}

/* Sums over the letters of `t` that `kept` lacks. */
static void sum_out(struct job *j, struct term *t, const struct letters *kept)
{
    struct letters left = {0};
    int64_t axes[QD_MAX_RANK];
    size_t count = 0;
    for (int i = 0; i < t->l.count; i++)
        if (has(kept, t->l.list[i]))
            add(&left, t->l.list[i]);
        else
            axes[count++] = i;
    if (count && !j->dry) {
        t->value = QD_RW(j->r, "ReduceSum", QD_RW_NEW, t->value, qd_rw_list(j->r, axes, count));
        qd_rw_int(j->r, "keepdims", 0);
    }
    t->l = left;
}

/* ------------------------------------------------------------------ two terms */

struct kinds {
    struct letters batch, rows, columns, inner;
};

static struct letters joined(const struct letters *a, const struct letters *b, const struct letters *c)
{
    struct letters all = *a;
    for (int i = 0; i < b->count; i++)
        add(&all, b->list[i]);
    for (int i = 0; i < c->count; i++)
        add(&all, c->list[i]);
    return all;
}

static struct kinds kinds_of(const struct term *a, const struct term *b, const struct letters *out)
{
    struct kinds k = {0};
    for (int i = 0; i < out->count; i++) {
        char c = out->list[i];
        add(has(&a->l, c) ? has(&b->l, c) ? &k.batch : &k.rows : &k.columns, c);
    }
    for (int i = 0; i < a->l.count; i++)
        if (!has(out, a->l.list[i]))
            add(&k.inner, a->l.list[i]);
    return k;
}

/* [batch, first, second] with each of the two joined to one axis, or made one; without a batch and the first being the
 * rows, these stay as many as they are. */
static bool join_axes(struct job *j, int *value, const struct kinds *k, const struct letters *first,
                      const struct letters *second)
{
    const bool rows = first == &k->rows, loose = k->batch.count == 0 && rows;
    const bool joins = (first->count > 1 && !loose) || second->count > 1;
    struct target to = {.count = 0};
    put_kept(&to, k->batch.count);
    if (loose || first->count == 1)
        put_kept(&to, first->count);
    else if (first->count > 1)
        put(&to, product(j, first));
    if (second->count == 1 && (loose || first->count < 2))
        put_kept(&to, 1);
    else if (second->count)
        put(&to, product(j, second));
    if (joins && !reshape(j, value, &to))
        return false;
    if (k->batch.count && first->count == 0)
        along(j, "Unsqueeze", value, k->batch.count, 1);
    if (k->batch.count && second->count == 0)
        along(j, "Unsqueeze", value, k->batch.count + 1, 1);
    return true;
}

/* The product's axes back to one a letter. */
static bool part_axes(struct job *j, int *value, const struct kinds *k)
{
    const bool loose = k->batch.count == 0, rows_joined = !loose && k->rows.count > 1;
    struct target to = {.count = 0};
    put_kept(&to, k->batch.count);
    for (int i = 0; i < k->rows.count; i++)
        if (rows_joined)
            put(&to, j->sizes[(unsigned char)k->rows.list[i]]);
        else
            put_kept(&to, 1);
    for (int i = 0; i < k->columns.count; i++)
        put(&to, j->sizes[(unsigned char)k->columns.list[i]]);
    if (k->columns.count < 2 && !rows_joined) {
        along(j, "Squeeze", value, k->batch.count + 1, !loose && k->columns.count == 0);
        along(j, "Squeeze", value, k->batch.count, !loose && k->rows.count == 0);
        return true;
    }
    return reshape(j, value, &to);
}

/* Nothing summed: every element of one with every of the other, but for the batch. */
static void multiply(struct job *j, struct term *a, struct term *b, const struct kinds *k)
{
    along(j, "Unsqueeze", &a->value, k->batch.count + k->rows.count, k->columns.count);
    along(j, "Unsqueeze", &b->value, k->batch.count, k->rows.count);
    if (!j->dry)
        a->value = QD_RW(j->r, "Mul", QD_RW_NEW, a->value, b->value);
}

/* a and b become one term with the letters `out`, in whichever order is the least work. */
static bool combine(struct job *j, struct term *a, struct term *b, const struct letters *out)
{
    struct letters both = {0};
    for (int i = 0; i < b->l.count; i++)
        if (has(&a->l, b->l.list[i]) || has(out, b->l.list[i]))
            add(&both, b->l.list[i]);
    sum_out(j, b, &both);
    both.count = 0;
    for (int i = 0; i < a->l.count; i++)
        if (has(&b->l, a->l.list[i]) || has(out, a->l.list[i]))
            add(&both, a->l.list[i]);
    sum_out(j, a, &both);
    struct kinds k = kinds_of(b, a, out);
    struct letters swapped = joined(&k.batch, &k.rows, &k.columns);
    if (a->constant || (!b->constant && memcmp(swapped.list, out->list, (size_t)out->count) == 0)) {
        struct term other = *a;
        *a = *b;
        *b = other;
    }
    k = kinds_of(a, b, out);
    struct letters left = joined(&k.batch, &k.rows, &k.inner), right = joined(&k.batch, &k.inner, &k.columns);
    struct letters result = joined(&k.batch, &k.rows, &k.columns);
    turn(j, a, &left);
    turn(j, b, &right);
    if (k.inner.count == 0) {
        multiply(j, a, b, &k);
    } else {
        if (!join_axes(j, &a->value, &k, &k.rows, &k.inner) || !join_axes(j, &b->value, &k, &k.inner, &k.columns))
            return false;
        if (!j->dry)
            a->value = QD_RW(j->r, "MatMul", QD_RW_NEW, a->value, b->value);
        if (!part_axes(j, &a->value, &k))
            return false;
    }
    a->l = result;
    a->constant &= b->constant;
    turn(j, a, out);
    return true;
}

/* What of the first t + 1 terms is still wanted: by the result, and by the terms behind them. */
static struct letters wanted(const struct job *j, const struct term *a, int t)
{
    struct letters out = {0};
    const struct letters *parts[] = {&a->l, &j->terms[t].l};
    if (t + 1 == j->count)
        return j->out;
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < parts[p]->count; i++) {
            char c = parts[p]->list[i];
            bool later = has(&j->out, c);
            for (int u = t + 1; u < j->count; u++)
                later |= has(&j->terms[u].l, c);
            if (later && !has(&out, c))
                add(&out, c);
        }
    return out;
}

/* Writes it all, or (dry) tells whether that works. */
static bool rewrite(struct job *j, int *value)
{
    struct term a = j->terms[0];
    for (int t = 1; t < j->count; t++) {
        struct term b = j->terms[t];
        struct letters out = wanted(j, &a, t);
        if (out.count > QD_MAX_RANK || !combine(j, &a, &b, &out))
            return false;
    }
    sum_out(j, &a, &j->out);
    turn(j, &a, &j->out);
    *value = a.value;
    return true;
}

static void einsum(struct qd_rewriter *r)
{
    struct job job = {.r = r, .dry = true};
    int value, out = qd_rw_out(r, 0), before = r->count;
    bool fits = read_equation(&job) && find_sizes(&job) && rewrite(&job, &value);
    if (!fits) {
        qd_rw_make(r, "Einsum", out, r->node.in, r->node.in_count);
        qd_rw_keep(r, "equation");
        return;
    }
    job.dry = false;
    rewrite(&job, &value);
    if (r->count == before)
        QD_RW(r, "Identity", out, value);
    else
        qd_rw_outputs(r, &out, 1);
}

const struct qd_contrib qd_contrib_einsum[] = {{"", "Einsum", "MatMul", 1, MOST_TERMS, einsum, 0}};
const size_t qd_contrib_einsum_count = sizeof qd_contrib_einsum / sizeof qd_contrib_einsum[0];
