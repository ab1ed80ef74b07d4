/* Mixed precision by itself: when measured answers are further from FP32 than `target_cosine`, the layers whose errors
 * cost most leave INT8, a few at a time, each time with a new plan that is measured anew. They don't come back by
 * themselves, so that stationary traffic changes nothing; PATCH .../quantization takes them back. [loop] */
#ifndef QD_SERVER_AUTO_PRECISION_H
#define QD_SERVER_AUTO_PRECISION_H

#include "server/serve.h"

/* After each measured request of the model. */
void qd_auto_precision(struct qd_server *server, struct qd_model_entry *entry);

#endif
