/* Elementwise kernels in portable C: pointwise.def on one float at a time. */
#include "engine/kernels/dispatch.h"
#include "engine/kernels/functions.h"

#include "engine/kernels/lane_names.h"

#define QD_PW1(NAME, name, value)                                                                                      \
    static void pw_##name(const float *a_, const float *b_, float p, float q, float *out, size_t n)                    \
    {                                                                                                                  \
        for (size_t i = 0; i < n; i++) {                                                                               \
            const float a = a_[i];                                                                                     \
            out[i] = value;                                                                                            \
        }                                                                                                              \
        (void)b_, (void)p, (void)q;                                                                                    \
    }
#define QD_PW2(NAME, name, value)                                                                                      \
    static void pw_##name(const float *a_, const float *b_, float p, float q, float *out, size_t n)                    \
    {                                                                                                                  \
        for (size_t i = 0; i < n; i++) {                                                                               \
            const float a = a_[i], b = b_[i];                                                                          \
            out[i] = value;                                                                                            \
        }                                                                                                              \
        (void)p, (void)q;                                                                                              \
    }
#include "engine/kernels/pointwise.def"
#undef QD_PW1
#undef QD_PW2

#define QD_PW1(NAME, name, value) [QD_PW_##NAME] = {pw_##name},
#define QD_PW2(NAME, name, value) [QD_PW_##NAME] = {pw_##name},
const struct qd_pw_kernel qd_pointwise__scalar[QD_PW_COUNT] = {
#include "engine/kernels/pointwise.def"
};
