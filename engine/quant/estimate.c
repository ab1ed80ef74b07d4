/* Ranges from a sketch. */
#include "engine/quant/estimate.h"

#include "engine/quant/qparams.h"

#include <math.h>
#include <string.h>

/* ------------------------------------------------------------------ the sketch in rising order */

#define PIECES (2 * (size_t)QD_SKETCH_BINS + 1)

struct piece {
    double from, to; /* values lie evenly between, within the exact bounds */
    uint64_t count;
};

static double inside(double x, const struct qd_sketch *sketch)
{
    double low = x < (double)sketch->min ? (double)sketch->min : x;
    return low > (double)sketch->max ? (double)sketch->max : low;
}

/* Negative bins from the largest magnitude, what is near zero, positive bins. */
static struct piece piece_at(const struct qd_sketch *sketch, size_t i)
{
    struct piece piece = {0, 0, sketch->zeros + sketch->small};
    if (i == QD_SKETCH_BINS)
        return piece;
    bool negative = i < QD_SKETCH_BINS;
    size_t bin = negative ? QD_SKETCH_BINS - 1 - i : i - QD_SKETCH_BINS - 1;
    double near = qd_sketch_edge(sketch, bin), far = qd_sketch_edge(sketch, bin + 1);
    piece.from = inside(negative ? -far : near, sketch);
    piece.to = inside(negative ? -near : far, sketch);
    piece.count = sketch->bins[negative][bin];
    return piece;
}

static uint64_t finite_count(const struct qd_sketch *sketch) { return sketch->elems - sketch->nonfinite; }

/* ------------------------------------------------------------------ percentile */

/* The value that `share` of all lie below; of the magnitudes when `magnitudes`. */
static double quantile(const struct qd_sketch *sketch, double share, bool magnitudes)
{
    double wanted = share * (double)finite_count(sketch), below = 0;
    for (size_t i = magnitudes ? QD_SKETCH_BINS : 0; i < PIECES; i++) {
        struct piece piece = piece_at(sketch, i);
        if (magnitudes && i > QD_SKETCH_BINS) {
            size_t bin = i - QD_SKETCH_BINS - 1;
            piece.count += sketch->bins[1][bin];
            piece.from = qd_sketch_edge(sketch, bin);
            piece.to = qd_sketch_edge(sketch, bin + 1);
        }
        double count = (double)piece.count;
        if (count > 0 && below + count >= wanted) {
            double part = (wanted - below) / count;
            return part > 0 ? piece.from + part * (piece.to - piece.from) : piece.from;
        }
        below += count;
    }
    return (double)sketch->max;
}

static void by_percentile(const struct qd_sketch *sketch, const struct qd_estimate_rules *rules, double *lo, double *hi)
{
    if (rules->symmetric) {
        double t = quantile(sketch, rules->percentile / 100, true);
        *lo = inside(-t, sketch);
        *hi = inside(t, sketch);
        return;
    }
    double cut = (100 - rules->percentile) / 200;
    *lo = quantile(sketch, cut, false);
    *hi = quantile(sketch, 1 - cut, false);
}

/* ------------------------------------------------------------------ entropy */

#define HALF_BINS 1024
#define ALL_BINS  (2 * HALF_BINS + 1)
#define LEVELS    256
#define SMOOTHING 0.0001 /* what an empty bin gets; the others give it */

/* p: the window's counts with all that lies outside at its ends; q: what `levels` levels leave of the window. Both
 * smoothed; infinite when one is empty. */
static double divergence(const uint64_t *window, size_t count, size_t levels, uint64_t left, uint64_t right)
{
    size_t merged = count / levels;
    double p_sum = 0, q_sum = 0, cross = 0, p_log = 0;
    size_t p_zeros = 0, q_zeros = 0;
    uint64_t level_q[1 + LEVELS];
    for (size_t i = 0; i < levels; i++) {
        uint64_t sum = 0, norm = 0;
        for (size_t j = i * merged; j < (i + 1) * merged; j++) {
            bool more = (j == 0 && left) || (j == count - 1 && right);
            norm += window[j] != 0 || more;
            sum += window[j];
        }
        for (size_t j = levels * merged; i == levels - 1 && j < count; j++)
            sum += window[j];
        level_q[i] = norm ? sum / norm : 0; /* theirs divides integers too */
    }
    level_q[levels] = 0; /* what does not fill a level stays empty */
    for (int round = 0; round < 2; round++) {
        double p_fill = (double)p_zeros / (double)(count - p_zeros) * SMOOTHING;
        double q_fill = (double)q_zeros / (double)(count - q_zeros) * SMOOTHING;
        for (size_t j = 0; j < count; j++) {
            uint64_t p = window[j] + (j == 0 ? left : 0) + (j == count - 1 ? right : 0);
            bool filled = merged > 0 && j < levels * merged;
            uint64_t q = filled ? level_q[j / merged] : 0;
            if (round == 0) {
                p_zeros += p == 0;
                q_zeros += q == 0;
                continue;
            }
            double smooth_p = p ? (double)p - p_fill : SMOOTHING, smooth_q = q ? (double)q - q_fill : SMOOTHING;
            p_sum += smooth_p;
            q_sum += smooth_q;
            p_log += smooth_p * log(smooth_p);
            cross += smooth_p * log(smooth_q);
        }
        if (p_zeros == count || q_zeros == count)
            return INFINITY;
    }
    return (p_log - cross) / p_sum - log(p_sum) + log(q_sum);
}

size_t qd_entropy_threshold(const uint64_t *histogram, size_t bins, size_t levels)
{
    size_t middle = bins / 2, best = levels / 2;
    double least = INFINITY;
    for (size_t i = levels / 2; i <= middle; i++) {
        size_t start = middle - i, end = middle + i + 1 < bins ? middle + i + 1 : bins;
        uint64_t left = 0, right = 0;
        for (size_t j = 0; j < start; j++)
            left += histogram[j];
        for (size_t j = end; j < bins; j++)
            right += histogram[j];
        double d = divergence(histogram + start, end - start, levels, left, right);
        if (d < least) {
            least = d;
            best = i;
        }
    }
    return best;
}

/* Spreads each piece evenly over equal bins of -top..top; counts stay whole and their sum exact. */
static void spread(const struct qd_sketch *sketch, double top, uint64_t *histogram)
{
    double width = 2 * top / ALL_BINS;
    memset(histogram, 0, ALL_BINS * sizeof *histogram);
    for (size_t i = 0; i < PIECES; i++) {
        struct piece piece = piece_at(sketch, i);
        double first = (piece.from + top) / width, last = (piece.to + top) / width;
        uint64_t given = 0;
        for (size_t bin = (size_t)first; piece.count > given; bin++) {
            bool ends = bin >= ALL_BINS - 1 || (double)bin + 1 >= last;
            double part = ends ? 1 : ((double)bin + 1 - first) / (last - first);
            uint64_t until = ends ? piece.count : (uint64_t)(part * (double)piece.count + 0.5);
            histogram[bin < ALL_BINS ? bin : ALL_BINS - 1] += until - given;
            given = until;
            if (ends)
                break;
        }
    }
}

static void by_entropy(const struct qd_sketch *sketch, double *lo, double *hi)
{
    uint64_t histogram[ALL_BINS];
    double top = fmax(-(double)sketch->min, (double)sketch->max);
    if (!(top > 0))
        return;
    spread(sketch, top, histogram);
    double i = (double)qd_entropy_threshold(histogram, ALL_BINS, LEVELS), width = 2 * top / ALL_BINS;
    *lo = inside(-(i + 0.5) * width, sketch);
    *hi = inside((i + 0.5) * width, sketch);
}

/* ------------------------------------------------------------------ mean-squared error */

struct grid {
    double step, lo, hi; /* of the values that integers can stand for; zero is one of them */
};

static struct grid grid_of(const struct qd_estimate_rules *rules, double lo, double hi)
{
    if (rules->bits == 8) {
        struct qd_qparams qp = qd_qparams_from_range(lo, hi, rules->symmetric);
        return (struct grid){(double)qp.scale, qd_qparams_lo(&qp), qd_qparams_hi(&qp)};
    }
    lo = lo < 0 ? lo : 0;
    hi = hi > 0 ? hi : 0;
    double levels = 65535;
    if (rules->symmetric) {
        hi = fmax(-lo, hi);
        lo = -hi;
        levels = 65534;
    }
    double step = hi > lo ? (hi - lo) / levels : 1, below = rint(lo / step);
    return (struct grid){step, below * step, (below + levels) * step};
}

/* The integral from 0 to x of the squared distance to the nearest grid value. */
static double integral(double x, const struct grid *grid)
{
    if (x > grid->hi || x < grid->lo) {
        double end = x > grid->hi ? grid->hi : grid->lo, over = x - end;
        return end / grid->step * (grid->step * grid->step * grid->step / 12) + over * over * over / 3;
    }
    double cells = rint(x / grid->step), rest = x - cells * grid->step;
    return cells * (grid->step * grid->step * grid->step / 12) + rest * rest * rest / 3;
}

static double squared_error(double x, const struct grid *grid)
{
    double nearest = fmin(fmax(rint(x / grid->step) * grid->step, grid->lo), grid->hi);
    return (x - nearest) * (x - nearest);
}

double qd_estimate_error(const struct qd_sketch *sketch, const struct qd_estimate_rules *rules, double lo, double hi)
{
    struct grid grid = grid_of(rules, lo, hi);
    double sum = 0, edge = qd_sketch_edge(sketch, 0);
    sum += (double)sketch->small * (integral(edge, &grid) / (edge > 0 ? edge : 1));
    for (size_t i = 0; i < PIECES; i++) {
        if (i == QD_SKETCH_BINS)
            continue;
        struct piece piece = piece_at(sketch, i);
        if (piece.count == 0)
            continue;
        double width = piece.to - piece.from;
        sum += (double)piece.count * (width > 0 ? (integral(piece.to, &grid) - integral(piece.from, &grid)) / width
                                                : squared_error(piece.from, &grid));
    }
    return sum / (double)finite_count(sketch);
}

#define TRIES  32 /* steps of a search along one bound */
#define ROUNDS 3

/* Moves the bounds inwards by turns, each to the best of equal steps between `near` and its present place. */
static void by_error(const struct qd_sketch *sketch, const struct qd_estimate_rules *rules, double *lo, double *hi)
{
    double full[2] = {fmin(*lo, 0), fmax(*hi, 0)}, best[2] = {full[0], full[1]};
    double least = qd_estimate_error(sketch, rules, best[0], best[1]), reach = 1;
    for (int round = 0; round < ROUNDS; round++, reach /= 8)
        for (int side = 0; side < 2; side++) {
            double middle = best[side];
            for (int i = round ? -TRIES / 2 : 1 - TRIES; i <= (round ? TRIES / 2 : 0); i++) {
                double bound[2] = {best[0], best[1]};
                bound[side] = middle + full[side] * reach * i / TRIES;
                if (rules->symmetric)
                    bound[!side] = -bound[side];
                bool within = side ? bound[1] > 0 && bound[1] <= full[1] : bound[0] < 0 && bound[0] >= full[0];
                double error = within ? qd_estimate_error(sketch, rules, bound[0], bound[1]) : INFINITY;
                if (error < least) {
                    least = error;
                    memcpy(best, bound, sizeof best);
                }
            }
        }
    *lo = inside(best[0], sketch);
    *hi = inside(best[1], sketch);
}

/* ------------------------------------------------------------------ all of them */

bool qd_estimate(const struct qd_sketch *sketch, const struct qd_estimate_rules *rules, double *lo, double *hi)
{
    if (!(sketch->min <= sketch->max))
        return false;
    *lo = (double)sketch->min;
    *hi = (double)sketch->max;
    if (rules->method == QD_METHOD_PERCENTILE)
        by_percentile(sketch, rules, lo, hi);
    else if (rules->method == QD_METHOD_ENTROPY && rules->bits == 8) /* 16 bits have more levels than bins */
        by_entropy(sketch, lo, hi);
    else if (rules->method == QD_METHOD_MSE)
        by_error(sketch, rules, lo, hi);
    return true;
}
