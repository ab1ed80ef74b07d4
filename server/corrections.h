/* Bias correction while serving: when the averages have seen enough, a thread makes the biases and the loop puts them
 * in force. The request that gave the last observation is answered after that, so that a client that waits for its
 * answers finds the same epochs in every run. The arithmetic is the engine's (engine/correct.h). [loop] */
#ifndef QD_SERVER_CORRECTIONS_H
#define QD_SERVER_CORRECTIONS_H

#include "server/serve.h"

/* After each request of the model. True: other biases are being made, `done` is called when they are in force. Models
 * too large to let a request wait aren't waited for. */
bool qd_corrections_check(struct qd_server *server, struct qd_model_entry *entry, void (*done)(void *ctx), void *ctx);

#endif
