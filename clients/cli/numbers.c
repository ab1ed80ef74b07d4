/*
 * Elements of tensors as numbers: for input in another type than the model's, and for printing. Integers keep all 64
 * bits; a number that the datatype can't hold is refused, never wrapped. A real is rounded to the nearest FP32, as
 * numpy does.
 */
#include "clients/cli/quantctl.h"

#include <math.h>
#include <string.h>

/* The integer datatypes by what they hold. */
static bool integer_limits(enum quantd_client_datatype type, int64_t *low, uint64_t *high)
{
    size_t bits = quantd_client_datatype_bytes(type) * 8;
    switch (type) {
    case QUANTD_CLIENT_BOOL:
        *low = 0;
        *high = 1;
        return true;
    case QUANTD_CLIENT_UINT8:
    case QUANTD_CLIENT_UINT16:
    case QUANTD_CLIENT_UINT32:
    case QUANTD_CLIENT_UINT64:
        *low = 0;
        *high = UINT64_MAX >> (64 - bits);
        return true;
    case QUANTD_CLIENT_INT8:
    case QUANTD_CLIENT_INT16:
    case QUANTD_CLIENT_INT32:
    case QUANTD_CLIENT_INT64:
        *high = UINT64_MAX >> (65 - bits);
        *low = -(int64_t)*high - 1;
        return true;
    default:
        return false;
    }
}

static bool store_integer(enum quantd_client_datatype type, struct quantd_ctl_number number, void *place)
{
    int64_t low = 0;
    uint64_t high = 0, bits;
    if (!integer_limits(type, &low, &high) || number.kind == QUANTD_CTL_REAL)
        return false;
    if (number.kind == QUANTD_CTL_SIGNED && number.whole < 0) {
        if (number.whole < low)
            return false;
        bits = (uint64_t)number.whole;
    } else {
        bits = number.kind == QUANTD_CTL_SIGNED ? (uint64_t)number.whole : number.natural;
        if (bits > high)
            return false;
    }
    memcpy(place, &bits, quantd_client_datatype_bytes(type)); /* little-endian: the low bytes come first */
    return true;
}

bool quantd_ctl_number_store(enum quantd_client_datatype type, struct quantd_ctl_number number, void *place)
{
    double real = number.kind == QUANTD_CTL_REAL     ? number.real
                  : number.kind == QUANTD_CTL_SIGNED ? (double)number.whole
                                                     : (double)number.natural;
    if (type == QUANTD_CLIENT_FP64)
        memcpy(place, &real, sizeof real);
    else if (type == QUANTD_CLIENT_FP32) {
        float single = (float)real;
        if (isfinite(real) && !isfinite(single))
            return false;
        memcpy(place, &single, sizeof single);
    } else
        return store_integer(type, number, place);
    return true;
}

static double half_to_double(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double value = exponent == 31  ? (fraction ? NAN : INFINITY)
                   : exponent == 0 ? ldexp(fraction, -24)
                                   : ldexp(fraction + 1024, exponent - 25);
    return bits >> 15 ? -value : value;
}

bool quantd_ctl_number_load(enum quantd_client_datatype type, const void *place, struct quantd_ctl_number *number)
{
    int64_t low;
    uint64_t high, bits = 0;
    size_t size = quantd_client_datatype_bytes(type);
    float single;
    *number = (struct quantd_ctl_number){.kind = QUANTD_CTL_REAL};
    memcpy(&bits, place, size);
    if (type == QUANTD_CLIENT_FP64)
        memcpy(&number->real, place, sizeof number->real);
    else if (type == QUANTD_CLIENT_FP16)
        number->real = half_to_double((uint16_t)bits);
    else if (type == QUANTD_CLIENT_FP32 || type == QUANTD_CLIENT_BF16) {
        uint32_t word = (uint32_t)(type == QUANTD_CLIENT_BF16 ? bits << 16 : bits);
        memcpy(&single, &word, sizeof single);
        number->real = single;
    } else if (integer_limits(type, &low, &high)) {
        number->kind = low < 0 ? QUANTD_CTL_SIGNED : QUANTD_CTL_UNSIGNED;
        number->natural = bits;
        /* the sign bit to the top and back */
        number->whole = (int64_t)(bits << (64 - size * 8)) >> (64 - size * 8);
    } else
        return false;
    return true;
}
