/* What the classical models of `ai.onnx.ml` share: rows of numbers as FP32, labels of classes, and what is made of
 * scores in the end (post_transform). Where the standard leaves a case open, the rule is the one onnxruntime serves by.
 * Private to engine/ops; not for the models themselves (trees.c, linear_models.c, svm.c). */
#ifndef QD_ENGINE_OPS_CLASSICAL_H
#define QD_ENGINE_OPS_CLASSICAL_H

#include "engine/ops/helpers.h"

/* Numeric inputs of the domain; doubles come as FP32 (engine/plan/floats.h). */
#define QD_TYPES_TABLE (QD_BIT(QD_F32) | QD_BIT(QD_I64) | QD_BIT(QD_I32))

#define QD_MOST_CLASSES 65535

enum qd_transform { /* the numbers of TreeEnsemble's attribute */
                    QD_TRANSFORM_NONE,
                    QD_TRANSFORM_SOFTMAX,
                    QD_TRANSFORM_LOGISTIC,
                    QD_TRANSFORM_SOFTMAX_ZERO,
                    QD_TRANSFORM_PROBIT,
                    QD_TRANSFORM_COUNT,
};

/* Attribute post_transform as text; absent: NONE. Errors: INVALID. */
enum qd_status qd_transform_read(const struct qd_node *node, enum qd_transform *out,
                                 struct qd_error *error) QD_MUST_CHECK;
/* n scores of a row, in place. */
void qd_transform_apply(enum qd_transform transform, float *scores, size_t n);
double qd_logistic(double x);
float qd_probit(float p);

/* Where one score stands for two classes: {1 - s, s}, or {-s, s} when `mirrored`; with LOGISTIC {f(-s), f(s)}. */
void qd_transform_pair(enum qd_transform transform, bool mirrored, float s, float out[2]);

/* The names of a classifier's classes: ints or strings of the model, never both. */
struct qd_labels {
    size_t count; /* >= 1, <= QD_MOST_CLASSES */
    const int64_t *ints;
    const struct qd_text *strings;
};

/* Attributes classlabels_strings and `ints_name`. Errors: INVALID. */
enum qd_status qd_labels_read(const struct qd_node *node, const char *ints_name, struct qd_labels *out,
                              struct qd_error *error) QD_MUST_CHECK;
enum qd_dtype qd_labels_dtype(const struct qd_labels *labels);
/* Element `row` of an output of labels. */
void qd_labels_put(const struct qd_labels *labels, size_t which, struct qd_tensor *out, int64_t row);

/* Input 0 is [N, F], or [F] for one row: its sizes. Errors: UNSUPPORTED, SHAPE. */
enum qd_status qd_table_infer(const struct qd_call *call, int64_t *rows, int64_t *features,
                              struct qd_error *error) QD_MUST_CHECK;
/* Outputs of a classifier: labels [N] and, when it is asked for, scores [N, columns]. */
enum qd_status qd_table_classify(const struct qd_call *call, const struct qd_labels *labels, int64_t rows,
                                 int64_t columns, struct qd_error *error) QD_MUST_CHECK;
/* FP32 of input 0: itself, or made in call->scratch, of which it takes qd_table_scratch bytes from the start. */
const float *qd_table_floats(const struct qd_call *call);
size_t qd_table_scratch(const struct qd_call *call);

/* Floats of an attribute that is a list, or with "<name>_as_tensor" (or the name alone) a tensor of any floating type;
 * *count 0 and NULL when there is neither. Made in the arena where they are not floats. Errors: NO_MEMORY, INVALID. */
enum qd_status qd_attr_numbers(const struct qd_node *node, const char *name, struct qd_arena *arena, const float **out,
                               size_t *count, struct qd_error *error) QD_MUST_CHECK;

#endif
