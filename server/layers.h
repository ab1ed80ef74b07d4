/* What is said of single layers, pins and rules, while it is put together: from the configuration, from the body of a
 * PATCH, from a state file; and as JSON. Nodes' names are borrowed from where they come from. */
#ifndef QD_SERVER_LAYERS_H
#define QD_SERVER_LAYERS_H

#include "engine/engine.h"

#include <jansson.h>

struct qd_layers {
    struct qd_layer_pin *pins;
    struct qd_layer_rule *rules;
    size_t pin_count, rule_count;
};

/* Starts from those of `options`. Errors: NO_MEMORY. The caller frees in any case. */
enum qd_status qd_layers_begin(struct qd_layers *layers, const struct qd_quant_options *options,
                               struct qd_error *error) QD_MUST_CHECK;
void qd_layers_free(struct qd_layers *layers);
/* Puts the lists into options, which borrow them. */
void qd_layers_use(const struct qd_layers *layers, struct qd_quant_options *options);

/* A pin that counts from now on; what was said of its node before is gone. Errors: NO_MEMORY. */
enum qd_status qd_layers_pin(struct qd_layers *layers, struct qd_layer_pin pin, struct qd_error *error) QD_MUST_CHECK;
/* An option of the layers that a pattern fits, precision as a pin; what the same pattern said of it before is gone.
 * Errors: INVALID, NO_MEMORY. */
enum qd_status qd_layers_put(struct qd_layers *layers, const char *node, const struct qd_quant_option *option,
                             struct qd_quant_value value, struct qd_error *error) QD_MUST_CHECK;
/* Takes back what a pattern says of an option; NULL: of all. */
void qd_layers_drop(struct qd_layers *layers, const char *node, const struct qd_quant_option *option);

/* {"guard": "clip", "activation": {"scheme": null}} of a pattern, or null. Errors: INVALID, NO_MEMORY. */
enum qd_status qd_layers_take(struct qd_layers *layers, const char *node, const json_t *value,
                              struct qd_error *error) QD_MUST_CHECK;
/* All patterns as PATCH takes them. A new reference. */
json_t *qd_layers_json(const struct qd_quant_options *options);

/* For the state file: [{"node", "option", "value"}], what differs from `base`; value null: taken back. Precisions are
 * pins, in a list of their own. A new reference, and over what stands in *layers. Errors: INVALID, NO_MEMORY. */
json_t *qd_layers_overrides(const struct qd_quant_options *base, const struct qd_quant_options *now);
enum qd_status qd_layers_overrides_read(struct qd_layers *layers, const json_t *list,
                                        struct qd_error *error) QD_MUST_CHECK;

#endif
