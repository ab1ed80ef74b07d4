/* Bias correction while serving: when the averages have seen enough, a thread makes the biases and the loop puts them
 * in force. The arithmetic is the engine's (engine/correct.h). [loop] */
#ifndef QD_SERVER_CORRECTIONS_H
#define QD_SERVER_CORRECTIONS_H

#include "server/serve.h"

/* After each request of the model that was learned from. */
void qd_corrections_check(struct qd_server *server, struct qd_model_entry *entry);

#endif
