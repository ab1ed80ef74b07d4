/* The engine's quantization options as the configuration and JSON spell them: by the table of engine/options.h, so that
 * an option is added there and in config/options.def only. */
#ifndef QD_SERVER_QUANT_OPTIONS_H
#define QD_SERVER_QUANT_OPTIONS_H

#include "config/config.h"
#include "engine/engine.h"

#include <jansson.h>

struct qd_layers;

/* [any] The configuration has been checked, so every word is known to the engine. */
void qd_config_quant(const struct qd_config *config, struct qd_quant_options *out);
/* What the configuration says of this model and its layers, over what stands in *out, which then borrows *layers, and
 * names from the configuration. Errors: INVALID, NO_MEMORY; the caller frees *layers in any case. */
enum qd_status qd_config_quant_of(const struct qd_config *config, const char *model, struct qd_layers *layers,
                                  struct qd_quant_options *out, struct qd_error *error) QD_MUST_CHECK;
/* That every option it says of models and layers is one and has a value that it can have. Errors: as above. */
enum qd_status qd_config_check_rules(const struct qd_config *config, struct qd_error *error) QD_MUST_CHECK;
/* That each model which the configuration says something of is there. Errors: NOT_FOUND. */
enum qd_status qd_config_check_models(const struct qd_config *config, bool (*has)(void *ctx, const char *name),
                                      void *ctx, struct qd_error *error) QD_MUST_CHECK;

/* JSON as a value and back; a word is borrowed. Errors: INVALID where it is of another type than the option. */
enum qd_status qd_quant_value_of(const struct qd_quant_option *option, const json_t *json, struct qd_quant_value *out,
                                 struct qd_error *error) QD_MUST_CHECK;
json_t *qd_quant_value_json(const struct qd_quant_option *option, struct qd_quant_value value);

/* The options of one key in the body of a PATCH: "guard": "clip" is one, "activation": {"scheme": "symmetric"} as many
 * as stand there. Errors: INVALID for a name of none, and what `take` says. */
enum qd_status qd_quant_visit(const char *key, const json_t *json,
                              enum qd_status (*take)(void *ctx, const struct qd_quant_option *option,
                                                     const json_t *json, struct qd_error *error),
                              void *ctx, struct qd_error *error) QD_MUST_CHECK;
/* Sets them in *out. */
enum qd_status qd_quant_options_take(const char *key, const json_t *value, struct qd_quant_options *out,
                                     struct qd_error *error) QD_MUST_CHECK;

/* {"guard": "clip", "activation_scheme": "symmetric"}: what can be changed and differs from `base`. A new reference. */
json_t *qd_quant_overrides(const struct qd_quant_options *base, const struct qd_quant_options *now);
/* Back from it, over what stands in *out; keys that are no options are passed over. Errors: INVALID. */
enum qd_status qd_quant_overrides_read(const json_t *overrides, struct qd_quant_options *out,
                                       struct qd_error *error) QD_MUST_CHECK;

#endif
