/* From the words of the configuration to the engine's quantization options. The one place where both are known. */
#ifndef QD_SERVER_QUANT_OPTIONS_H
#define QD_SERVER_QUANT_OPTIONS_H

#include "config/config.h"
#include "engine/engine.h"

/* [any] The configuration has been checked, so every word is known to the engine. */
void qd_config_quant(const struct qd_config *config, struct qd_quant_options *out);

#endif
