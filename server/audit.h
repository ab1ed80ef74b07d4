/* Which layers changed their precision, when and why: a model's last QD_AUDIT_ENTRIES changes, in memory only, as
 * GET .../quantization shows them. Every change is logged as well. [loop] */
#ifndef QD_SERVER_AUDIT_H
#define QD_SERVER_AUDIT_H

#include "server/repository.h"
#include "server/text.h"

#define QD_AUDIT_ENTRIES 256

struct qd_audit;
struct qd_audit_before; /* the layers' precisions at a moment */

/* Before a change of plan; NULL when memory is out, which the others take. */
struct qd_audit_before *qd_audit_look(const struct qd_model_entry *entry);
/* After it: notes and logs every layer whose precision is another now. `reason` NULL: the step's own. Frees `before`
 * and clears the pointer. */
void qd_audit_note(struct qd_model_entry *entry, struct qd_audit_before **before, const char *reason);
/* The changes as a JSON array, the earliest first. */
void qd_audit_write(struct qd_text *out, const struct qd_model_entry *entry);
void qd_audit_drop(struct qd_audit_before **before);
void qd_audit_free(struct qd_audit **audit);

#endif
