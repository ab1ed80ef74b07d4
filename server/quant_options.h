/* The engine's quantization options as the configuration and JSON spell them: by the table of engine/options.h, so that
 * an option is added there and in config/options.def only. */
#ifndef QD_SERVER_QUANT_OPTIONS_H
#define QD_SERVER_QUANT_OPTIONS_H

#include "config/config.h"
#include "engine/engine.h"

#include <jansson.h>

/* [any] The configuration has been checked, so every word is known to the engine. */
void qd_config_quant(const struct qd_config *config, struct qd_quant_options *out);

/* Sets one option from JSON of its type. Errors: INVALID. */
enum qd_status qd_quant_option_take(const struct qd_quant_option *option, const json_t *value,
                                    struct qd_quant_options *out, struct qd_error *error) QD_MUST_CHECK;
/* Takes {"guard": "clip", "activation": {"scheme": "symmetric"}}, one key of it and what stands there. Errors: INVALID,
 * also for an option that is set while loading only. */
enum qd_status qd_quant_options_take(const char *key, const json_t *value, struct qd_quant_options *out,
                                     struct qd_error *error) QD_MUST_CHECK;

/* {"guard": "clip", "activation_scheme": "symmetric"}: what can be changed and differs from `base`. A new reference. */
json_t *qd_quant_overrides(const struct qd_quant_options *base, const struct qd_quant_options *now);
/* Back from it, over what stands in *out; keys that are no options are passed over. Errors: INVALID. */
enum qd_status qd_quant_overrides_read(const json_t *overrides, struct qd_quant_options *out,
                                       struct qd_error *error) QD_MUST_CHECK;

#endif
