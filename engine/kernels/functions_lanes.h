/* Elementary functions, written once in the names of simd.h. Included twice, with QD_FUNCTIONS_LANES defined: by
 * functions_simd.h for the vectors of an ISA and by functions.h with the same names standing for one float. So every
 * ISA computes the same operations in the same order and gives the same bits. Not to be included by anyone else; no
 * guard. Coefficients are minimax fits of ours; bounds are in functions.h and tests/kernels/test_functions.c holds
 * them.
 *
 * vf_min(a, b) and vf_max(a, b) give b for NaN: a limit stands first where NaN has to pass. */
#ifdef QD_FUNCTIONS_LANES

#define QD_LN2_HIGH 0.693147182f
#define QD_LN2_LOW  (-1.90465421e-9f)
#define QD_ROUNDER  12582912.0f /* 1.5 * 2^23: adding it rounds |x| < 2^22 to an integer */

/* e^x - 1 = (1 + tail) * 2^power - 1, |power| small enough not to round: x = power * ln 2 + r, tail = e^r - 1. */
static inline vf vf_exp_reduce(vf x, vf *power)
{
    const vf rounder = vf_set(QD_ROUNDER);
    *power = vf_sub(vf_fma(x, vf_set(1.44269504f), rounder), rounder);
    vf r = vf_fma(*power, vf_set(-QD_LN2_HIGH), x);
    r = vf_fma(*power, vf_set(-QD_LN2_LOW), r);
    vf p = vf_fma(vf_set(0.00138145406f), r, vf_set(0.00836874545f));
    p = vf_fma(p, r, vf_set(0.0416683890f));
    p = vf_fma(p, r, vf_set(0.166665211f));
    p = vf_fma(p, r, vf_set(0.499999940f));
    return vf_fma(vf_mul(r, r), p, r);
}

/* e^x for x <= 88. What isn't a normal number any more is 0: a processor takes thirty times as long for others, and
 * what a mask drives out of a softmax would all be such. */
static inline vf vf_exp_below(vf x)
{
    const vf smallest = vf_set(-87.3365402f); /* log of the smallest normal number */
    vf power, tail = vf_exp_reduce(vf_max(smallest, x), &power);
    return vf_pick(vm_lt(x, smallest), vf_set(0.0f), vf_scale(vf_add(vf_set(1.0f), tail), power));
}

static inline vf vf_exp(vf x) { return vf_exp_below(vf_min(vf_set(89.0f), x)); }

/* log x of a positive normal number. */
static inline vf vf_log_normal(vf x, vf power)
{
    const vi bits = vi_from_bits(x), middle = vi_set(0x3f3504f3); /* sqrt(1/2) */
    const vi up = vi_exponent_down(vi_sub(bits, middle));
    power = vf_add(power, vf_from_vi(up));
    const vf f = vf_sub(vf_from_bits(vi_sub(bits, vi_exponent_up(up))), vf_set(1.0f));
    vf p = vf_fma(vf_set(-0.0763451159f), f, vf_set(0.127616003f));
    p = vf_fma(p, f, vf_set(-0.131601870f));
    p = vf_fma(p, f, vf_set(0.142017558f));
    p = vf_fma(p, f, vf_set(-0.166233569f));
    p = vf_fma(p, f, vf_set(0.200012267f));
    p = vf_fma(p, f, vf_set(-0.250008225f));
    p = vf_fma(p, f, vf_set(0.333333313f));
    p = vf_fma(p, f, vf_set(-0.5f));
    p = vf_fma(p, vf_mul(f, f), vf_mul(power, vf_set(QD_LN2_LOW)));
    return vf_fma(power, vf_set(QD_LN2_HIGH), vf_add(p, f));
}

static inline vf vf_log(vf x)
{
    const vm tiny = vm_lt(x, vf_set(1.17549435e-38f));
    const vf scaled = vf_pick(tiny, vf_mul(x, vf_set(8388608.0f)), x);
    vf y = vf_log_normal(scaled, vf_pick(tiny, vf_set(-23.0f), vf_set(0.0f)));
    y = vf_pick(vm_lt(vf_set(0.0f), x), y, vf_pick(vm_lt(x, vf_set(0.0f)), vf_set(NAN), vf_set(-INFINITY)));
    return vf_pick(vm_lt(x, vf_set(INFINITY)), y, x);
}

static inline vf vf_within_one(vf x) { return vf_min(vf_set(1.0f), vf_max(vf_set(-1.0f), x)); }

/* x P(x^2) / Q(x^2); the limit is where that is 1. */
static inline vf vf_tanh(vf x)
{
    x = vf_min(vf_set(9.02000046f), vf_max(vf_set(-9.02000046f), x));
    const vf s = vf_mul(x, x);
    vf p = vf_fma(vf_set(-1.22034848e-11f), s, vf_set(3.05850492e-08f));
    p = vf_fma(p, s, vf_set(2.80074692e-05f));
    p = vf_fma(p, s, vf_set(0.00386832817f));
    p = vf_fma(p, s, vf_set(0.136799157f));
    p = vf_fma(p, s, vf_set(1.0f));
    vf q = vf_fma(vf_set(1.28736735e-06f), s, vf_set(0.000393863214f));
    q = vf_fma(q, s, vf_set(0.0272458401f));
    q = vf_fma(q, s, vf_set(0.470132470f));
    q = vf_fma(q, s, vf_set(1.0f));
    return vf_within_one(vf_div(vf_mul(x, p), q));
}

/* The same way. */
static inline vf vf_erf(vf x)
{
    x = vf_min(vf_set(3.93000126f), vf_max(vf_set(-3.93000126f), x));
    const vf s = vf_mul(x, x);
    vf p = vf_fma(vf_set(-1.28579352e-08f), s, vf_set(4.62005119e-06f));
    p = vf_fma(p, s, vf_set(0.000377167278f));
    p = vf_fma(p, s, vf_set(0.00384029280f));
    p = vf_fma(p, s, vf_set(0.0542547330f));
    p = vf_fma(p, s, vf_set(0.185147688f));
    p = vf_fma(p, s, vf_set(1.12837923f));
    vf q = vf_fma(vf_set(6.25007960e-05f), s, vf_set(0.00130240910f));
    q = vf_fma(q, s, vf_set(0.0154348379f));
    q = vf_fma(q, s, vf_set(0.113886945f));
    q = vf_fma(q, s, vf_set(0.497416258f));
    q = vf_fma(q, s, vf_set(1.0f));
    return vf_within_one(vf_div(vf_mul(x, p), q));
}

/* By e^-|x|, which neither overflows nor loses the digits of small results. */
static inline vf vf_sigmoid(vf x)
{
    const vf one = vf_set(1.0f), e = vf_exp_below(vf_sub(vf_set(0.0f), vf_abs(x)));
    return vf_div(vf_pick(vm_lt(x, vf_set(0.0f)), e, one), vf_add(one, e));
}

static inline vf vf_rsqrt(vf x) { return vf_div(vf_set(1.0f), vf_sqrt(x)); }

/* -inf gives 0: below the limit the result is 0 anyway. */
static inline vf vf_silu(vf x)
{
    x = vf_max(vf_set(-128.0f), x);
    return vf_mul(x, vf_sigmoid(x));
}

/* x/2 + x/2 erf(x / sqrt 2) */
static inline vf vf_gelu(vf x)
{
    const vf half = vf_mul(vf_set(0.5f), vf_max(vf_set(-16.0f), x));
    return vf_fma(half, vf_erf(vf_mul(x, vf_set(0.707106769f))), half);
}

/* x/2 (1 + tanh u) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
static inline vf vf_gelu_tanh(vf x)
{
    x = vf_max(vf_set(-16.0f), x);
    const vf cubic = vf_fma(vf_mul(x, x), vf_set(0.0713548163f), vf_set(1.59576917f));
    return vf_mul(x, vf_sigmoid(vf_mul(x, cubic)));
}

static inline vf vf_hard_sigmoid(vf x, vf a, vf b)
{
    return vf_min(vf_set(1.0f), vf_max(vf_set(0.0f), vf_fma(a, x, b)));
}

static inline vf vf_hard_swish(vf x, vf a, vf b) { return vf_mul(x, vf_hard_sigmoid(x, a, b)); }

static inline vf vf_leaky_relu(vf x, vf a) { return vf_pick(vm_lt(x, vf_set(0.0f)), vf_mul(a, x), x); }

/* x < 0 ? a (e^x - 1) : x */
static inline vf vf_elu(vf x, vf a)
{
    const vf zero = vf_set(0.0f), one = vf_set(1.0f);
    vf power, tail = vf_exp_reduce(vf_min(zero, vf_max(vf_set(-40.0f), x)), &power);
    const vf scale = vf_scale(one, power), y = vf_fma(scale, tail, vf_sub(scale, one));
    return vf_pick(vm_lt(x, zero), vf_mul(a, y), x);
}

/* log(1 + e^x) = max(x, 0) + log(1 + e), e = e^-|x|; what 1 + e lost is put back to first order. */
static inline vf vf_softplus(vf x)
{
    const vf zero = vf_set(0.0f), one = vf_set(1.0f), e = vf_exp_below(vf_sub(zero, vf_abs(x)));
    const vf sum = vf_add(one, e), lost = vf_sub(e, vf_sub(sum, one));
    return vf_add(vf_max(zero, x), vf_add(vf_log_normal(sum, zero), vf_div(lost, sum)));
}

/* kernels.h: an activation with its parameters. The kind is a constant wherever speed counts. */
static inline vf vf_act_kind(const struct qd_activation *act, vf x)
{
    switch (act->kind) {
    case QD_ACT_CLIP:
        return vf_min(vf_max(x, vf_set(act->a)), vf_set(act->b));
    case QD_ACT_HARD_SIGMOID:
        return vf_hard_sigmoid(x, vf_set(act->a), vf_set(act->b));
    case QD_ACT_HARD_SWISH:
        return vf_hard_swish(x, vf_set(act->a), vf_set(act->b));
    case QD_ACT_SIGMOID:
        return vf_sigmoid(x);
    case QD_ACT_SILU:
        return vf_silu(x);
    case QD_ACT_GELU:
        return vf_gelu(x);
    case QD_ACT_GELU_TANH:
        return vf_gelu_tanh(x);
    case QD_ACT_TANH:
        return vf_tanh(x);
    case QD_ACT_LEAKY_RELU:
        return vf_leaky_relu(x, vf_set(act->a));
    case QD_ACT_NONE:
    case QD_ACT_COUNT:
        break;
    }
    return x;
}

static inline vf vf_act(const struct qd_activation *act, vf x)
{
    x = vf_act_kind(act, x);
    return act->affine ? vf_add(vf_mul(x, vf_set(act->mul)), vf_set(act->add)) : x;
}

#undef QD_LN2_HIGH
#undef QD_LN2_LOW
#undef QD_ROUNDER
#endif
