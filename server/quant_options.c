/* Words and numbers of struct qd_config as struct qd_quant_options. */
#include "server/quant_options.h"

#include <stddef.h>

void qd_config_quant(const struct qd_config *config, struct qd_quant_options *out)
{
    *out = qd_quant_defaults();
    /* options.def lists only words that these know; tests/unit/test_config.c tries each. */
    (void)qd_mode_from(config->mode, &out->mode);
    (void)qd_guard_from(config->guard, &out->guard);
    (void)qd_precision_from(config->precision, &out->precision);
    (void)qd_scheme_from(config->activation_scheme, &out->activation_scheme);
    (void)qd_granularity_from(config->activation_granularity, &out->activation_granularity);
    (void)qd_scheme_from(config->weight_scheme, &out->weight_scheme);
    (void)qd_granularity_from(config->weight_granularity, &out->weight_granularity);
    (void)qd_compat_from(config->compat, &out->compat);
    out->smoothing = config->smoothing;
    out->bias_correction = config->bias_correction;
    out->weight_bits = (int)config->weight_bits;
    out->fake_weight_bits = (int)config->fake_weight_bits;
    out->fake_activation_bits = (int)config->fake_activation_bits;
    out->averaging_constant = config->averaging_constant;
    out->max_step = config->max_step;
    out->guard_tolerance = config->guard_tolerance;
    out->publish_tolerance = config->publish_tolerance;
    out->target_cosine = config->target_cosine;
    out->target_sqnr_db = config->target_sqnr_db;
    out->min_observations = config->min_observations;
    out->epochs_kept = config->epochs_kept;
}
