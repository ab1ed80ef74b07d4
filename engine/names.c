/* The engine's words: enum values and the names that configuration and wire use for them. */
#include "engine/engine.h"

#include <string.h>

static const char *const modes[] = {[QD_MODE_EMA] = "ema", [QD_MODE_REQUEST] = "request", [QD_MODE_STATIC] = "static"};
static const char *const guards[] = {[QD_GUARD_WIDEN] = "widen",
                                     [QD_GUARD_CLIP] = "clip",
                                     [QD_GUARD_REJECT] = "reject",
                                     [QD_GUARD_ESCALATE] = "escalate"};
static const char *const schemes[] = {[QD_ASYMMETRIC] = "asymmetric", [QD_SYMMETRIC] = "symmetric"};
static const char *const granularities[] = {
    [QD_PER_TENSOR] = "tensor", [QD_PER_CHANNEL] = "channel", [QD_PER_ROW] = "row", [QD_GRANULARITY_AUTO] = "auto"};
static const char *const precisions[] = {
    [QD_INT8] = "int8", [QD_INT16] = "int16", [QD_FP32] = "fp32", [QD_FAKE] = "fake", [QD_PRECISION_AUTO] = "auto"};

static const char *const compats[] = {[QD_COMPAT_QUANTD] = "quantd",
                                      [QD_COMPAT_TORCH] = "torch",
                                      [QD_COMPAT_TORCH_FUSED] = "torch_fused",
                                      [QD_COMPAT_TF] = "tf",
                                      [QD_COMPAT_ORT] = "ort"};

static const char *const methods[] = {[QD_METHOD_MINMAX] = "minmax",
                                      [QD_METHOD_EMA] = "ema",
                                      [QD_METHOD_PERCENTILE] = "percentile",
                                      [QD_METHOD_ENTROPY] = "entropy",
                                      [QD_METHOD_MSE] = "mse"};

static int find(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; name && i < count; i++)
        if (strcmp(names[i], name) == 0)
            return (int)i;
    return -1;
}

#define NAMED(type, function, table)                                                                                   \
    const char *qd_##function##_name(enum type value)                                                                  \
    {                                                                                                                  \
        return (size_t)value < sizeof table / sizeof table[0] ? table[value] : NULL;                                   \
    }                                                                                                                  \
    bool qd_##function##_from(const char *name, enum type *out)                                                        \
    {                                                                                                                  \
        int i = find(table, sizeof table / sizeof table[0], name);                                                     \
        if (i >= 0)                                                                                                    \
            *out = (enum type)i;                                                                                       \
        return i >= 0;                                                                                                 \
    }

NAMED(qd_mode, mode, modes)
NAMED(qd_guard, guard, guards)
NAMED(qd_scheme, scheme, schemes)
NAMED(qd_granularity, granularity, granularities)
NAMED(qd_precision, precision, precisions)
NAMED(qd_compat, compat, compats)
NAMED(qd_method, method, methods)
