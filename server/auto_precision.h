/* Mixed precision by itself, the server's part: the engine decides from what was measured (engine/mixed.h), a thread
 * compiles the plan, the loop puts it in force and notes which layers moved. [loop] */
#ifndef QD_SERVER_AUTO_PRECISION_H
#define QD_SERVER_AUTO_PRECISION_H

#include "server/serve.h"

/* After each measured request of the model. */
void qd_auto_precision(struct qd_server *server, struct qd_model_entry *entry);

#endif
