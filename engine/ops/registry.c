/* The table of operators: ops.def made into rows, and the lookup by domain, type and opset. */
#include "engine/ops/helpers.h"

#include <inttypes.h>
#include <string.h>

static const struct qd_op_row rows[] = {
#define QD_OP(domain, type, since, vtable) {domain, type, since, &vtable},
#include "engine/ops/ops.def"
#undef QD_OP
};

const struct qd_op_row *qd_op_rows(size_t *count)
{
    *count = sizeof rows / sizeof rows[0];
    return rows;
}

const struct qd_op *qd_op_find(const struct qd_node *node, struct qd_error *error)
{
    const struct qd_op_row *best = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].since <= node->opset && strcmp(rows[i].type, node->op) == 0 &&
            strcmp(rows[i].domain, node->domain) == 0 && (!best || rows[i].since > best->since))
            best = &rows[i];
    if (best)
        return best->op->choose ? best->op->choose(node) : best->op;
    qd_fail(error, QD_ERR_UNSUPPORTED, "operator %s%s%s (node '%s', opset %" PRId64 ") is not supported", node->domain,
            *node->domain ? "." : "", node->op, node->name, node->opset);
    return NULL;
}
