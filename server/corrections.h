/* Bias correction and smoothing while serving: when enough was seen, a thread makes the biases, or the plan, and the
 * loop puts them in force. The request that gave the last observation is answered after that, so that a client that
 * waits for its answers finds the same epochs in every run. The arithmetic is the engine's (engine/correct.h,
 * engine/smooth.h). [loop] */
#ifndef QD_SERVER_CORRECTIONS_H
#define QD_SERVER_CORRECTIONS_H

#include "server/serve.h"

/* After each request of the model. True: something is being made, `done` is called when it is in force. Models too
 * large to let a request wait aren't waited for. */
bool qd_corrections_check(struct qd_server *server, struct qd_model_entry *entry, void (*done)(void *ctx), void *ctx);

/* After each measured request: takes smoothing, or corrected biases, back when answers have got worse by
 * them. */
void qd_corrections_judge(struct qd_server *server, struct qd_model_entry *entry);

#endif
