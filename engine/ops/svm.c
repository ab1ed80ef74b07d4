/* Support vector machines: SVMClassifier (pairs of classes that vote, with probabilities on request; or a plain linear
 * form) and SVMRegressor. Kernels and sums are computed in double, in the order of the features and of the vectors. */
#include "engine/ops/classical.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum kernel { LINEAR, POLY, RBF, SIGMOID, KERNELS };

#define PROBABILITY_ROUNDS 100

struct svm {
    enum kernel kernel;
    double gamma, coef0, degree;
    size_t vectors, features, classes, pairs, columns; /* vectors 0: the linear form. columns: of the scores */
    const float *coefficients, *support, *rho, *prob_a, *prob_b;
    const int64_t *per_class;
    bool all_positive, one_class;
    enum qd_transform transform;
    struct qd_labels labels; /* count 0: regression */
};

/* ------------------------------------------------------------------ attributes */

static enum qd_status read_kernel(const struct qd_node *node, struct svm *s, struct qd_error *error)
{
    static const char *const names[KERNELS] = {"LINEAR", "POLY", "RBF", "SIGMOID"};
    size_t count;
    const float *params = qd_attr_floats(node, "kernel_params", &count);
    unsigned k = 0;
    while (k < KERNELS && !qd_attr_is(node, "kernel_type", "LINEAR", names[k]))
        k++;
    if (k == KERNELS)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "kernel_type is none of the standard's");
    if (count != 3 && (count || k != LINEAR))
        return qd_op_refuse(node, error, QD_ERR_INVALID, "kernel_params must be gamma, coef0 and degree");
    s->kernel = (enum kernel)k;
    if (count == 3) {
        s->gamma = (double)params[0];
        s->coef0 = (double)params[1];
        s->degree = (double)params[2];
    }
    return qd_transform_read(node, &s->transform, error);
}

/* The vectors' number by class, and what follows from it. */
static enum qd_status read_vectors(const struct qd_node *node, struct svm *s, size_t classes, size_t support,
                                   size_t coefficients, struct qd_error *error)
{
    int64_t sum = 0;
    for (size_t c = 0; c < classes; c++)
        if (s->per_class[c] < 0 || !qd_i64_add(sum, s->per_class[c], &sum) || sum > INT32_MAX)
            return qd_op_refuse(node, error, QD_ERR_INVALID, "vectors_per_class makes no sense");
    s->vectors = (size_t)sum;
    if (s->vectors == 0) {
        s->kernel = LINEAR;
        s->features = coefficients / s->classes;
        return coefficients && coefficients % s->classes == 0
                   ? QD_OK
                   : qd_op_refuse(node, error, QD_ERR_INVALID, "has %zu coefficients for %zu classes", coefficients,
                                  s->classes);
    }
    if (classes != s->classes || s->classes < 2)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "vectors_per_class names %zu classes of %zu", classes,
                            s->classes);
    if (support == 0 || support % s->vectors || coefficients != (s->classes - 1) * s->vectors)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "support_vectors or coefficients don't fit %zu vectors",
                            s->vectors);
    s->features = support / s->vectors;
    return QD_OK;
}

/* rho, prob_a and prob_b by pair of classes, and how many scores there are. */
static enum qd_status read_pairs(const struct qd_node *node, struct svm *s, struct qd_error *error)
{
    size_t rho, a, b;
    s->rho = qd_attr_floats(node, "rho", &rho);
    s->prob_a = qd_attr_floats(node, "prob_a", &a);
    s->prob_b = qd_attr_floats(node, "prob_b", &b);
    s->pairs = s->vectors ? s->classes * (s->classes - 1) / 2 : 1;
    if (rho < s->pairs || a != b || (a && a < s->pairs))
        return qd_op_refuse(node, error, QD_ERR_INVALID, "rho, prob_a or prob_b don't fit %zu pairs of classes",
                            s->pairs);
    s->columns = s->vectors && !a && s->classes > 2 ? s->pairs : s->classes;
    if (s->vectors && !a && s->classes == 2 && s->transform == QD_TRANSFORM_PROBIT)
        return qd_op_refuse(node, error, QD_ERR_UNSUPPORTED, "post_transform PROBIT of one score is not supported");
    return QD_OK;
}

static enum qd_status svm_classifier_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                             struct qd_error *error)
{
    struct svm *s = QD_PREP_NEW(arena, struct svm);
    size_t classes, support, coefficients;
    if (!s)
        return qd_op_no_memory(node, error);
    *prep = s;
    s->per_class = qd_attr_ints(node, "vectors_per_class", &classes);
    s->support = qd_attr_floats(node, "support_vectors", &support);
    s->coefficients = qd_attr_floats(node, "coefficients", &coefficients);
    s->all_positive = true;
    for (size_t i = 0; i < coefficients; i++)
        s->all_positive = s->all_positive && s->coefficients[i] >= 0;
    enum qd_status status = qd_labels_read(node, "classlabels_ints", &s->labels, error);
    s->classes = s->labels.count;
    if (!status)
        status = read_kernel(node, s, error);
    if (!status)
        status = read_vectors(node, s, classes, support, coefficients, error);
    return status ? status : read_pairs(node, s, error);
}

static enum qd_status svm_regressor_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                            struct qd_error *error)
{
    struct svm *s = QD_PREP_NEW(arena, struct svm);
    size_t support, coefficients, rho;
    const int64_t vectors = qd_attr_int(node, "n_supports", 0);
    if (!s)
        return qd_op_no_memory(node, error);
    *prep = s;
    s->columns = 1;
    s->one_class = qd_attr_int(node, "one_class", 0) != 0;
    s->support = qd_attr_floats(node, "support_vectors", &support);
    s->coefficients = qd_attr_floats(node, "coefficients", &coefficients);
    s->rho = qd_attr_floats(node, "rho", &rho);
    enum qd_status status = read_kernel(node, s, error);
    if (status)
        return status;
    if (vectors < 0 || vectors > INT32_MAX || rho < 1 || coefficients < 1)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "n_supports, rho or coefficients make no sense");
    s->vectors = (size_t)vectors;
    if (vectors == 0)
        s->kernel = LINEAR;
    s->features = vectors ? support / s->vectors : coefficients;
    if (vectors && (support == 0 || support % s->vectors || coefficients != s->vectors))
        return qd_op_refuse(node, error, QD_ERR_INVALID, "support_vectors or coefficients don't fit %zu vectors",
                            s->vectors);
    return QD_OK;
}

/* ------------------------------------------------------------------ shapes */

static enum qd_status svm_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct svm *s = call->prep;
    int64_t rows, features;
    enum qd_status status = qd_table_infer(call, &rows, &features, error);
    if (status)
        return status;
    if (features != (int64_t)s->features)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "was trained with %zu features, rows have %" PRId64, s->features,
                          features);
    const struct qd_shape out = {.rank = 2, .dims = {rows, 1}};
    return s->labels.count ? qd_table_classify(call, &s->labels, rows, (int64_t)s->columns, error)
                           : qd_op_out(call, 0, QD_F32, &out, error);
}

/* What one row wants in doubles: the kernel with each vector, a score by pair, two lists by class, and for
 * probabilities two tables of classes by classes (of which the file has as much, in rho). */
static size_t row_doubles(const struct svm *s)
{
    const size_t tables = s->vectors && s->prob_a ? 2 * s->classes * s->classes : 0;
    return s->vectors + s->pairs + tables + 2 * s->classes;
}

static size_t svm_scratch(const struct qd_call *call)
{
    const struct svm *s = call->prep;
    return qd_table_scratch(call) + row_doubles(s) * sizeof(double) + s->columns * sizeof(float);
}

/* ------------------------------------------------------------------ arithmetic */

static double kernel_of(const struct svm *s, const float *x, const float *y)
{
    double sum = 0;
    for (size_t f = 0; f < s->features; f++) {
        const double d = (double)x[f] - (double)y[f];
        sum += s->kernel == RBF ? d * d : (double)x[f] * (double)y[f];
    }
    switch (s->kernel) {
    case POLY:
        return pow(s->gamma * sum + s->coef0, s->degree);
    case RBF:
        return exp(-s->gamma * sum);
    case SIGMOID:
        return tanh(s->gamma * sum + s->coef0);
    default:
        return sum;
    }
}

/* A score for each pair i < j of classes: above 0 it speaks for i. votes[class] counts. Coefficients lie as libsvm's
 * do: the row j - 1 of class i's vectors and the row i of class j's belong to the pair. */
static void score_pairs(const struct svm *s, const double *kernels, double *scores, double *votes)
{
    size_t pair = 0, first_i = 0;
    memset(votes, 0, s->classes * sizeof *votes);
    for (size_t i = 0; i < s->classes; first_i += (size_t)s->per_class[i++]) {
        size_t first_j = first_i + (size_t)s->per_class[i];
        for (size_t j = i + 1; j < s->classes; first_j += (size_t)s->per_class[j++]) {
            double sum = 0;
            for (size_t v = first_i; v < first_i + (size_t)s->per_class[i]; v++)
                sum += (double)s->coefficients[(j - 1) * s->vectors + v] * kernels[v];
            for (size_t v = first_j; v < first_j + (size_t)s->per_class[j]; v++)
                sum += (double)s->coefficients[i * s->vectors + v] * kernels[v];
            scores[pair] = sum + (double)s->rho[pair];
            votes[scores[pair] > 0 ? i : j] += 1;
            pair++;
        }
    }
}

/* Probabilities of classes out of those of pairs: Wu, Lin and Weng, "Probability Estimates for Multi-class
 * Classification by Pairwise Coupling" (2004), algorithm 2. pair[i][j] of i against j; p is the result. */
static void couple(size_t k, const double *pair, double *q, double *qp, double *p)
{
    for (size_t i = 0; i < k; i++) {
        p[i] = 1.0 / (double)k;
        q[i * k + i] = 0;
        for (size_t j = 0; j < k; j++) {
            if (j == i)
                continue;
            q[i * k + i] += pair[j * k + i] * pair[j * k + i];
            q[i * k + j] = -pair[j * k + i] * pair[i * k + j];
        }
    }
    for (int round = 0; round < PROBABILITY_ROUNDS; round++) {
        double pqp = 0, worst = 0;
        for (size_t i = 0; i < k; i++) {
            qp[i] = 0;
            for (size_t j = 0; j < k; j++)
                qp[i] += q[i * k + j] * p[j];
            pqp += p[i] * qp[i];
        }
        for (size_t i = 0; i < k; i++)
            worst = fmax(worst, fabs(qp[i] - pqp));
        if (worst < 0.005 / (double)k)
            return;
        for (size_t i = 0; i < k; i++) {
            const double step = (pqp - qp[i]) / q[i * k + i];
            p[i] += step;
            pqp = (pqp + step * (step * q[i * k + i] + 2 * qp[i])) / (1 + step) / (1 + step);
            for (size_t j = 0; j < k; j++) {
                qp[j] = (qp[j] + step * q[i * k + j]) / (1 + step);
                p[j] /= 1 + step;
            }
        }
    }
}

/* By Platt's sigmoid of each pair's score. `room` as row_doubles says, behind the pairs' scores. */
static void probabilities(const struct svm *s, const double *scores, double *room, float *out)
{
    const size_t k = s->classes;
    double *pair = room, *q = pair + k * k, *qp = q + k * k, *p = qp + k;
    size_t at = 0;
    for (size_t i = 0; i < k; i++)
        for (size_t j = i + 1; j < k; j++, at++) {
            const double raw = 1 - qd_logistic(scores[at] * (double)s->prob_a[at] + (double)s->prob_b[at]);
            pair[i * k + j] = fmin(fmax(raw, 1e-7), 1 - 1e-7);
            pair[j * k + i] = 1 - pair[i * k + j];
        }
    couple(k, pair, q, qp, p);
    for (size_t i = 0; i < k; i++)
        out[i] = (float)p[i];
}

/* ------------------------------------------------------------------ rows */

static size_t largest(const double *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

/* The linear form: a score by class. Two classes are told apart by the sign alone, or by a half. */
static size_t score_linear(const struct svm *s, const float *row, double *scores, float *out)
{
    for (size_t c = 0; c < s->classes; c++) {
        scores[c] = kernel_of(s, row, s->coefficients + c * s->features) + (double)s->rho[0];
        out[c] = (float)scores[c];
    }
    const size_t best = largest(scores, s->classes);
    if (s->classes == 2 && (s->all_positive ? out[best] >= 0.5f : out[best] > 0))
        return 1;
    return best;
}

static void classify_row(const struct qd_call *call, const float *row, double *room, float *scores, int64_t r)
{
    const struct svm *s = call->prep;
    double *pairs = room + s->vectors, *rest = pairs + s->pairs;
    size_t label;
    if (s->vectors == 0) {
        label = score_linear(s, row, rest, scores);
        qd_transform_apply(s->transform, scores, s->columns);
    } else {
        for (size_t v = 0; v < s->vectors; v++)
            room[v] = kernel_of(s, row, s->support + v * s->features);
        score_pairs(s, room, pairs, rest);
        label = largest(rest, s->classes);
        for (size_t p = 0; p < s->pairs && !s->prob_a && s->classes > 2; p++)
            scores[p] = (float)pairs[p];
        if (s->prob_a)
            probabilities(s, pairs, rest, scores);
        if (!s->prob_a && s->classes == 2)
            qd_transform_pair(s->transform, s->transform == QD_TRANSFORM_NONE, (float)pairs[0], scores);
        else
            qd_transform_apply(s->transform, scores, s->columns);
    }
    if (qd_op_wants(call, 0))
        qd_labels_put(&s->labels, label, &call->out[0], r);
    if (call->out_count > 1 && qd_op_wants(call, 1))
        memcpy((float *)call->out[1].data + r * (int64_t)s->columns, scores, s->columns * sizeof *scores);
}

static float regress_row(const struct svm *s, const float *row)
{
    double sum = s->vectors ? 0 : kernel_of(s, row, s->coefficients);
    for (size_t v = 0; v < s->vectors; v++)
        sum += (double)s->coefficients[v] * kernel_of(s, row, s->support + v * s->features);
    sum += (double)s->rho[0];
    return s->one_class ? (sum > 0 ? 1 : -1) : (float)sum;
}

static enum qd_status svm_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct svm *s = call->prep;
    const int64_t rows = call->in[0].shape.rank == 2 ? call->in[0].shape.dims[0] : 1;
    const float *x = qd_table_floats(call);
    double *room = (double *)(void *)((unsigned char *)call->scratch + qd_table_scratch(call));
    for (int64_t r = 0; r < rows; r++) {
        const float *row = x + r * (int64_t)s->features;
        if (s->labels.count)
            classify_row(call, row, room, (float *)(void *)(room + row_doubles(s)), r);
        else
            ((float *)call->out[0].data)[r] = regress_row(s, row);
    }
    return QD_OK;
}

const struct qd_op qd_op_svm_classifier = {
    .prepare = svm_classifier_prepare, .infer = svm_infer, .scratch = svm_scratch, .run = svm_run};
const struct qd_op qd_op_svm_regressor = {
    .prepare = svm_regressor_prepare, .infer = svm_infer, .scratch = svm_scratch, .run = svm_run};
