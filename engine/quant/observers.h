/* Other libraries' moving averages and their scale and zero point, bit for bit (docs/QUANTIZATION.md, section 3): for
 * people who compare a model served here with one prepared there. Arithmetic in float where theirs is in float. Only
 * the ranges follow them: values are rounded by equation (1) whatever the observer. Not for our own average
 * (engine/quant/range.h) nor our own scale (engine/quant/qparams.h). [any] */
#ifndef QD_ENGINE_QUANT_OBSERVERS_H
#define QD_ENGINE_QUANT_OBSERVERS_H

#include "engine/quant/qparams.h"

#include <stdbool.h>

enum qd_compat {
    QD_COMPAT_QUANTD,      /* none of these: ours */
    QD_COMPAT_TORCH,       /* PyTorch MovingAverageMinMaxObserver */
    QD_COMPAT_TORCH_FUSED, /* PyTorch fused_moving_avg_obs_fake_quant, as its training modules use it */
    QD_COMPAT_TF,          /* TensorFlow Model Optimization MovingAvgQuantize */
    QD_COMPAT_ORT,         /* ONNX Runtime MinMaxCalibrater(moving_average=True), one request a collect_data */
};

struct qd_observer_rules {
    enum qd_compat compat; /* not QD_COMPAT_QUANTD */
    bool symmetric;
    float averaging_constant; /* c; TensorFlow's decay is 1 - c */
};

/* A bound may become infinite or NaN where theirs would (a difference of two finite floats can overflow). */
struct qd_observer {
    float lo, hi;
};

/* Before the first observation: what theirs starts from. */
struct qd_observer qd_observer_start(const struct qd_observer_rules *rules);
/* One observation, min <= max. */
void qd_observer_fold(struct qd_observer *observer, const struct qd_observer_rules *rules, float min, float max);
/* Scale and zero point of the range as carried in u8 (a symmetric s8 zero point of 0 is 128; limits 0..255, or 1..255
 * where theirs is -127..127). False, and *out is unset, when theirs gives none that can be used: the range is not
 * finite, or the scale no normal float. */
bool qd_observer_qparams(const struct qd_observer *observer, const struct qd_observer_rules *rules,
                         struct qd_qparams *out);

#endif
