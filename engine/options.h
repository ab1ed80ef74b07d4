/* How a model is quantized: modes, guards, schemes, precisions, and the options that a model is loaded with or changed
 * to while it serves. Part of the installed interface. What they mean: docs/QUANTIZATION.md. */
#ifndef QD_ENGINE_OPTIONS_H
#define QD_ENGINE_OPTIONS_H

#include "base/status.h"
#include "engine/quant/observers.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum qd_mode { QD_MODE_EMA, QD_MODE_REQUEST, QD_MODE_STATIC };
enum qd_guard { QD_GUARD_WIDEN, QD_GUARD_CLIP, QD_GUARD_REJECT, QD_GUARD_ESCALATE };
enum qd_scheme { QD_ASYMMETRIC, QD_SYMMETRIC };
enum qd_granularity { QD_PER_TENSOR, QD_PER_CHANNEL, QD_PER_ROW, QD_GRANULARITY_AUTO };
enum qd_precision { QD_INT8, QD_INT16, QD_FP32, QD_FAKE, QD_PRECISION_AUTO };

/* Lower-case names as the wire and the configuration spell them ("ema", "widen", "asymmetric", "int8"); NULL out of
 * range. The _from functions return false for an unknown name. [any] */
const char *qd_mode_name(enum qd_mode mode);
const char *qd_guard_name(enum qd_guard guard);
const char *qd_scheme_name(enum qd_scheme scheme);
const char *qd_compat_name(enum qd_compat compat);
const char *qd_granularity_name(enum qd_granularity granularity);
const char *qd_precision_name(enum qd_precision precision);
bool qd_mode_from(const char *name, enum qd_mode *out);
bool qd_guard_from(const char *name, enum qd_guard *out);
bool qd_scheme_from(const char *name, enum qd_scheme *out);
bool qd_compat_from(const char *name, enum qd_compat *out);
bool qd_granularity_from(const char *name, enum qd_granularity *out);
bool qd_precision_from(const char *name, enum qd_precision *out);

/* Who says so. What timing chose in an earlier run is said again, so that the plan is the same again. */
enum qd_pin_kind { QD_PIN_ASKED, QD_PIN_TIMED, QD_PIN_ACCURACY };
/* Default of weight_bits. Two bits less than they are stored in: sums of products then run far in 32 bits, and weights
 * still have 78 dB. */
#define QD_WEIGHT_BITS   14
#define QD_TARGET_COSINE 0.999
/* ... and what is enough where that would take so many times all INT8's time. */
#define QD_TARGET_COSINE_DEAR 0.9985
#define QD_TARGET_DEAR        1.3

/* A layer whose precision is given. */
struct qd_layer_pin {
    const char *node;            /* the node's name, or a pattern with * and ? */
    enum qd_precision precision; /* QD_PRECISION_AUTO takes back what an earlier pin said of a node */
    enum qd_pin_kind kind;
};

/* An option that single layers have other than the model: engine/options.c says which can (`layers`). */
struct qd_layer_rule {
    const char *node; /* the node's name, or a pattern with * and ? */
    const struct qd_quant_option *option;
    int value; /* of words their enum's */
};

/* Columns of a tensor that are divided by s, and its layers' weights multiplied, before they are quantized. */
struct qd_smoothed_tensor {
    const char *tensor;
    size_t columns;
    const float *s; /* [columns] */
};

struct qd_quant_options {
    enum qd_mode mode;
    enum qd_guard guard;
    enum qd_scheme activation_scheme;           /* asymmetric u8 or symmetric s8 */
    enum qd_granularity activation_granularity; /* of matrix layers' inputs: per tensor, per row, or auto: per row where
                                                   rows are tokens (tensors of three dimensions and more) */
    enum qd_granularity weight_granularity;     /* per channel or per tensor */
    enum qd_scheme weight_scheme;               /* of INT8 layers: symmetric s8, or asymmetric with a zero point */
    enum qd_precision precision; /* QD_PRECISION_AUTO: int8 where it can run and is faster than FP32 on this
                                    machine; QD_INT8: where it can run; QD_INT16: linear layers in 16 bits
                                    where they can, the rest in FP32; QD_FP32: no quantization; QD_FAKE: what
                                    INT8 would round is rounded, the arithmetic is FP32 */
    int weight_bits;             /* of the weights of 16-bit layers, 8..16 */
    int fake_weight_bits, fake_activation_bits; /* of layers in fake quantization, 2..8 */
    enum qd_compat compat;                      /* whose average and scale: ours, or another library's bit for bit */
    double averaging_constant;                  /* c of equations (5) and (6), 0 < c <= 1 */
    double max_step;           /* winsorising: widths of the range one observation may move a bound by, times c_n */
    double guard_tolerance;    /* share of the width a request may leave the range by */
    double publish_tolerance;  /* share of the width a bound moves before a new epoch */
    uint32_t min_observations; /* requests served by their own range before the average is used */
    bool bias_correction;      /* what rounding the weights costs on average leaves the biases (engine/correct.h) */
    bool smoothing;            /* columns of rows are smoothed when enough was seen of them (engine/smooth.h) */
    double target_cosine;      /* layers move between precisions until shadow runs say as much; 0: none does; below 0:
                                  QD_TARGET_COSINE with precision auto and without target_sqnr_db, else none */
    double target_sqnr_db;     /* the same by squared error of the answers; 0: none; not both */
    uint32_t epochs_kept;      /* how many epochs can be replayed, 1..64 */
    const struct qd_layer_pin *pins; /* the last that fits a node counts; borrowed during calls, models keep copies */
    size_t pin_count;
    const struct qd_layer_rule *rules; /* the last of an option that fits a node counts; borrowed and copied as pins */
    size_t rule_count;
    const struct qd_smoothed_tensor *smoothed; /* what is smoothed; borrowed and copied as pins */
    size_t smoothed_count;
};

/* The documented defaults. [any] */
struct qd_quant_options qd_quant_defaults(void);

/* ------------------------------------------------------------------ by name */

/* Each option once: what configuration, PATCH /quantization and the state file call it, where it stands in struct
 * qd_quant_options, and what it may be. */
enum qd_quant_kind { QD_QUANT_WORD, QD_QUANT_BOOL, QD_QUANT_INT, QD_QUANT_COUNT, QD_QUANT_REAL };

struct qd_quant_option {
    const char *key; /* in the configuration and in state files */
    const char *group,
        *name; /* in PATCH: {group: {name: value}}, or {name: value}; name NULL: set while loading only */
    enum qd_quant_kind kind;
    size_t offset;
    const char *(*word_of)(int value); /* of words */
    bool (*value_of)(const char *word, int *value);
    unsigned words;    /* the values that are allowed, a bit each */
    double low, high;  /* of numbers, both inclusive unless ... */
    bool above, below; /* ... low, high itself is not allowed */
    bool layers;       /* a rule can say it of single layers */
};

extern const struct qd_quant_option qd_quant_table[];
extern const size_t qd_quant_table_count;

/* A word, or with word == NULL a number; true and false are 1 and 0. */
struct qd_quant_value {
    const char *word;
    double number;
};

/* NULL: there is none. [any] */
const struct qd_quant_option *qd_quant_option_by_key(const char *key);
const struct qd_quant_option *qd_quant_option_by_name(const char *group, const char *name); /* group may be NULL */
struct qd_quant_value qd_quant_option_get(const struct qd_quant_option *option, const struct qd_quant_options *options);
/* Errors: INVALID, in a sentence with the key; *options is as before. [any] */
enum qd_status qd_quant_option_set(const struct qd_quant_option *option, struct qd_quant_value value,
                                   struct qd_quant_options *options, struct qd_error *error) QD_MUST_CHECK;
/* A rule's option and value, and back; its node is not touched. Errors: INVALID. [any] */
enum qd_status qd_layer_rule_set(struct qd_layer_rule *rule, const struct qd_quant_option *option,
                                 struct qd_quant_value value, struct qd_error *error) QD_MUST_CHECK;
struct qd_quant_value qd_layer_rule_get(const struct qd_layer_rule *rule);

#endif
