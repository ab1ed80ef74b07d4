/* OptionalHasElement and OptionalGetElement, where what is optional is a tensor or nothing at all. Values of an
 * optional type proper are refused when a model is read. */
#include "engine/ops/helpers.h"

static enum qd_status has_infer(const struct qd_call *call, struct qd_error *error)
{
    static const struct qd_shape scalar = {0};
    if (call->in_count > 1 || call->out_count != 1)
        return qd_op_fail(call, error, QD_ERR_INVALID, "takes one input at most");
    return qd_op_out(call, 0, QD_BOOL, &scalar, error);
}

static enum qd_status has_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    *(bool *)call->out[0].data = qd_op_has(call, 0);
    return QD_OK;
}

const struct qd_op qd_op_optional_has = {.flags = QD_OP_SHAPE_ONLY, .infer = has_infer, .run = has_run};

static enum qd_status get_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_TYPES_ANY, error)))
        return status;
    return qd_op_out(call, 0, call->in[0].dtype, &call->in[0].shape, error);
}

static enum qd_status get_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    qd_op_copy(call->out[0].data, call->in[0].data, qd_tensor_bytes(&call->out[0]));
    return QD_OK;
}

const struct qd_op qd_op_optional_get = {.flags = QD_OP_VIEW, .infer = get_infer, .run = get_run};
