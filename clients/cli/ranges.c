/*
 * `quantctl ranges`: the learned ranges as a table with a picture of each, once or redrawn live; or as the daemon's own
 * JSON or CSV. The picture of a tensor has its own scale: from the smallest to the largest value seen since the last
 * reset.
 */
#include "clients/cli/quantctl.h"

#include <inttypes.h>
#include <langinfo.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { MIN_BAR = 10, MAX_BAR = 60, NUMBERS_WIDTH = 53, MIN_NAME = 6, MAX_NAME = 32 };

/* What the terminal can show. */
struct look {
    int columns, rows; /* rows 0: no end */
    bool unicode, color, live;
};

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

static struct look look_around(bool watch)
{
    struct winsize size = {0};
    bool terminal = isatty(STDOUT_FILENO);
    const char *columns = getenv("COLUMNS");
    struct look look = {
        .columns = 100, .unicode = strcmp(nl_langinfo(CODESET), "UTF-8") == 0, .live = watch && terminal};
    look.color = terminal && !getenv("NO_COLOR");
    if (terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        look.columns = size.ws_col;
        look.rows = size.ws_row;
    } else if (columns && atoi(columns) > 0)
        look.columns = atoi(columns);
    return look;
}

/* ------------------------------------------------------------------ one picture */

enum cell { CELL_NONE, CELL_OBSERVED, CELL_LEARNED, CELL_ZERO };

static int place(double value, double low, double high, int width)
{
    double at = floor((value - low) / (high - low) * width);
    return at < 0 ? 0 : at > width - 1 ? width - 1 : (int)at;
}

/* Which cells the learned range takes, which the observed one, where zero is. */
static void draw_cells(const struct quantd_client_range *range, enum cell *cells, int width)
{
    double low = fmin(0, fmin(range->ema_min, range->observed_min));
    double high = fmax(0, fmax(range->ema_max, range->observed_max));
    for (int i = 0; i < width; i++)
        cells[i] = CELL_NONE;
    if (range->observations == 0 || !(high > low) || !isfinite(high - low))
        return;
    for (int i = place(range->observed_min, low, high, width); i <= place(range->observed_max, low, high, width); i++)
        cells[i] = CELL_OBSERVED;
    for (int i = place(range->ema_min, low, high, width); i <= place(range->ema_max, low, high, width); i++)
        cells[i] = CELL_LEARNED;
    cells[place(0, low, high, width)] = CELL_ZERO;
}

static void print_bar(const struct quantd_client_range *range, const struct look *look, int width)
{
    static const char *const plain[] = {" ", "-", "=", "|"}, *const fine[] = {" ", "─", "█", "┃"};
    enum cell cells[MAX_BAR];
    draw_cells(range, cells, width);
    for (int i = 0; i < width; i++) {
        const char *sign = (look->unicode ? fine : plain)[cells[i]];
        if (look->color && cells[i] == CELL_LEARNED)
            printf("\x1b[36m%s\x1b[0m", sign);
        else
            printf("%s", sign);
    }
}

/* ------------------------------------------------------------------ the table */

static void end_line(const struct look *look) { printf("%s\n", look->live ? "\x1b[K" : ""); }

static void print_row(const struct quantd_client_range *range, const struct look *look, int name_width, int bar_width)
{
    uint64_t clipped = range->clipped_low + range->clipped_high;
    quantd_ctl_print_column(stdout, range->name, name_width);
    printf(" ");
    print_bar(range, look, bar_width);
    printf(" %9.4g %9.4g %10.4g %4" PRId64 " %7" PRIu64 " ", range->ema_min, range->ema_max, range->scale,
           range->zero_point, range->observations);
    printf("%s%7.3g%%%s", look->color && clipped ? "\x1b[33m" : "", range->clipped_ratio * 100,
           look->color && clipped ? "\x1b[0m" : "");
    end_line(look);
}

static void print_table(const struct quantd_client_ranges *ranges, const struct look *look)
{
    int name_width = MIN_NAME;
    size_t shown = ranges->count, room = look->rows > 5 ? (size_t)look->rows - 5 : 1;
    for (size_t i = 0; i < ranges->count; i++)
        if (quantd_ctl_columns(ranges->ranges[i].name) > name_width)
            name_width = quantd_ctl_columns(ranges->ranges[i].name);
    name_width = name_width > MAX_NAME ? MAX_NAME : name_width;
    int bar_width = look->columns - name_width - NUMBERS_WIDTH - 1;
    bar_width = bar_width < MIN_BAR ? MIN_BAR : bar_width > MAX_BAR ? MAX_BAR : bar_width;
    quantd_ctl_print(stdout, ranges->model);
    printf(": epoch %" PRIu64 ", %" PRIu64 " requests, mode ", ranges->epoch, ranges->requests);
    quantd_ctl_print(stdout, ranges->mode);
    printf(", averaging constant %g%s", ranges->averaging_constant, ranges->frozen ? ", frozen" : "");
    end_line(look);
    printf("%-*s %-*s %9s %9s %10s %4s %7s %8s", name_width, "tensor", bar_width, "range", "min", "max", "scale",
           "zero", "seen", "clipped");
    end_line(look);
    if (look->live && shown > room)
        shown = room;
    for (size_t i = 0; i < shown; i++)
        print_row(&ranges->ranges[i], look, name_width, bar_width);
    if (shown < ranges->count) {
        printf("... %zu more, the window is too low", ranges->count - shown);
        end_line(look);
    }
    printf("%s", look->unicode ? "█ learned   ─ seen beyond it   ┃ zero" : "= learned   - seen beyond it   | zero");
    end_line(look);
}

static int print_once(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    struct quantd_client_error error;
    struct quantd_client_ranges *ranges = NULL;
    if (arguments->json || arguments->csv)
        return quantd_ctl_print_path(client, arguments->model, arguments->csv ? "/ranges?format=csv" : "/ranges");
    struct look look = look_around(arguments->watch);
    if (look.live)
        printf("\x1b[H");
    if (quantd_client_ranges(client, arguments->model, &ranges, &error) != QUANTD_CLIENT_OK) {
        if (!look.live || error.status == QUANTD_CLIENT_REFUSED)
            return quantd_ctl_failed(&error);
        quantd_ctl_print(stdout, error.text); /* it may come back */
        end_line(&look);
    } else
        print_table(ranges, &look);
    if (look.live)
        printf("\x1b[J");
    quantd_client_ranges_destroy(&ranges);
    return QUANTD_CTL_OK;
}

/* Interrupted by Ctrl-C, as it should be. */
static void wait_seconds(double seconds)
{
    struct timespec left = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - floor(seconds)) * 1e9)};
    nanosleep(&left, NULL);
}

int quantd_ctl_ranges(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    int status = QUANTD_CTL_OK;
    if (!arguments->watch)
        return print_once(client, arguments);
    bool live = !arguments->json && !arguments->csv && isatty(STDOUT_FILENO);
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (live)
        printf("\x1b[?1049h\x1b[?25l"); /* the other screen, no cursor */
    for (uint64_t frame = 1; !stopped && status == QUANTD_CTL_OK; frame++) {
        status = print_once(client, arguments);
        if (fflush(stdout) != 0 || (arguments->frames && frame >= arguments->frames))
            break;
        if (!stopped && status == QUANTD_CTL_OK)
            wait_seconds(arguments->watch_seconds);
        if (!live && !arguments->json && !arguments->csv)
            putchar('\n');
    }
    if (live)
        printf("\x1b[?25h\x1b[?1049l");
    return status;
}
