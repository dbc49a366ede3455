/* progress.c - see progress.h. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "progress.h"

enum { LINE = 512, ROWS_MAX = 64 };
static const double redraw_seconds = 0.1, plain_seconds = 10;

void hs_format_seconds(double s, char *out, size_t n)
{
    if (!(s >= 0)) snprintf(out, n, "?");
    else if (s < 9.95) snprintf(out, n, "%.1fs", s);
    else if (s < 59.5) snprintf(out, n, "%.0fs", s);
    else if (s < 3600) snprintf(out, n, "%dm%02ds", (int)(s + 0.5) / 60, (int)(s + 0.5) % 60);
    else if (s < 360000) snprintf(out, n, "%dh%02dm", (int)(s / 3600), (int)(s / 60) % 60);
    else snprintf(out, n, "%.0fd", s / 86400);
}

double hs_sweep_left(const hs_sweep *s)
{
    size_t left = s->total - s->had - s->ended;
    if (left == 0) return 0;
    if (s->ended == 0) return -1;
    int at_once = (size_t)s->jobs < left ? s->jobs : (int)left;
    return s->busy / (double)s->ended * (double)left / (at_once > 0 ? at_once : 1);
}

/* Cuts UTF-8 text to width columns, one per code point, an ellipsis last.  Never inside a code point. */
static void cut(char *text, size_t width)
{
    size_t columns = 0;
    char *last = text;                  /* where the ellipsis would stand */
    if (width == 0) return;
    for (char *c = text; *c; c++) {
        if ((*c & 0xC0) == 0x80) continue;
        if (columns + 1 == width) last = c;
        if (columns++ == width) { strcpy(last, "~"); return; }
    }
}

void hs_axes_text(const json_t *axes, char *out, size_t n)
{
    const char *name;
    json_t *value;
    size_t used = 0;
    out[0] = 0;
    json_object_foreach((json_t *)axes, name, value) {
        if (!strcmp(name, "variant")) continue;         /* the label says it */
        char *text = json_is_string(value) ? strdup(json_string_value(value)) : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
        if (text && used < n) used += (size_t)snprintf(out + used, n - used, "%s%s=%s", used ? " " : "", name, text);
        free(text);
    }
}

void hs_row_text(const hs_row *r, size_t width, char *out, size_t n)
{
    char elapsed[16], step[48] = "", last[64] = "";
    hs_format_seconds(r->elapsed, elapsed, sizeof elapsed);
    if (r->of > 0) snprintf(step, sizeof step, "  %lld/%lld", (long long)r->step, (long long)r->of);
    if (r->what[0]) snprintf(last, sizeof last, "  %s %.4g", r->what, r->value);
    snprintf(out, n, "  %s  %s%s%s  %s", r->label, r->axes, step, last, elapsed);
    cut(out, width);
}

void hs_sweep_text(const hs_sweep *s, size_t width, char *out, size_t n)
{
    char left[16] = "", best[160] = "", failed[48] = "";
    double seconds = hs_sweep_left(s);
    hs_format_seconds(seconds, left, sizeof left);
    if (s->failed) snprintf(failed, sizeof failed, ", %zu failed", s->failed);
    if (s->best_metric) snprintf(best, sizeof best, ", best %s %.4g (%s)", s->best_metric, s->best_value, s->best_label);
    snprintf(out, n, "%zu/%zu cells%s%s%s%s", s->had + s->ended, s->total, failed, seconds < 0 ? "" : ", about ",
             seconds < 0 ? "" : left, seconds < 0 ? "" : " left");
    strncat(out, best, n - strlen(out) - 1);
    cut(out, width);
}

void hs_progress_resized(hs_progress *p)
{
    struct winsize w = {0};
    p->width = p->terminal && ioctl(p->fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

void hs_progress_init(hs_progress *p, int fd, int quiet, enum hs_color color)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    *p = (hs_progress){.fd = fd, .quiet = quiet, .last = -1e9};
    p->terminal = isatty(fd) && !(term && !strcmp(term, "dumb"));
    p->color = color == HS_COLOR_ALWAYS || (color == HS_COLOR_AUTO && p->terminal && !(no && *no));
    hs_progress_resized(p);
}

/* Whole lines in one write, so that redrawing does not flicker; a closed stderr is nobody's loss. */
static void put(const hs_progress *p, const char *text)
{
    size_t n = strlen(text);
    while (n > 0) {
        ssize_t w = write(p->fd, text, n);
        if (w <= 0) return;
        text += w, n -= (size_t)w;
    }
}

/* The escape that goes back to the first redrawn line and wipes from there. */
static void rewind_text(const hs_progress *p, char *out, size_t n)
{
    out[0] = 0;
    if (p->drawn) snprintf(out, n, "\r\033[%zuA\033[J", p->drawn);
}

void hs_progress_clear(hs_progress *p)
{
    char back[32];
    rewind_text(p, back, sizeof back);
    if (p->terminal) put(p, back);
    p->drawn = 0;
}

void hs_progress_draw(hs_progress *p, const hs_row *row, size_t nrows, const hs_sweep *s)
{
    char line[LINE], text[(ROWS_MAX + 2) * (LINE + 16)];
    if (p->quiet || s->elapsed - p->last < (p->terminal ? redraw_seconds : plain_seconds)) return;
    int first = p->last < 0;
    p->last = s->elapsed;
    if (!p->terminal) {                 /* not at second 0: nothing has happened yet */
        hs_sweep_text(s, 0, line, sizeof line - 1);
        if (!first) put(p, strcat(line, "\n"));
        return;
    }
    rewind_text(p, text, sizeof text);
    size_t used = strlen(text);
    if (nrows > ROWS_MAX) nrows = ROWS_MAX;
    for (size_t i = 0; i < nrows; i++) {
        hs_row_text(&row[i], p->width - 1, line, sizeof line);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s\n", line);
    }
    hs_sweep_text(s, p->width - 1, line, sizeof line);
    snprintf(text + used, sizeof text - used, "%s%s%s\n", p->color ? "\033[1m" : "", line, p->color ? "\033[0m" : "");
    put(p, text);
    p->drawn = nrows + 1;
}

void hs_progress_say(hs_progress *p, const char *form, ...)
{
    char text[2 * LINE];
    va_list args;
    va_start(args, form);
    vsnprintf(text, sizeof text - 1, form, args);
    va_end(args);
    hs_progress_clear(p);
    put(p, strcat(text, "\n"));
    if (p->terminal) p->last = -1e9;    /* the lines come back with the next drawing */
}

void hs_progress_ended(hs_progress *p, const hs_cell *c, const hs_result *r, const hs_sweep *s)
{
    char axes[LINE], seconds[16];
    int done = r->status == HS_DONE, bad = r->status == HS_CRASHED || r->status == HS_WRONG || r->status == HS_TIMEOUT;
    if (p->quiet || (done && p->terminal)) return;
    hs_axes_text(c->axes, axes, sizeof axes);
    hs_format_seconds(r->seconds, seconds, sizeof seconds);
    const char *paint = !p->color ? "" : bad ? "\033[31m" : done ? "\033[32m" : "\033[33m";
    hs_progress_say(p, "[%zu/%zu] %s %s: %s%s%s in %s%s%s", s->had + s->ended, s->total, c->label, axes, paint,
                    hs_status_names[r->status], p->color ? "\033[0m" : "", seconds, r->reason ? ": " : "", r->reason ? r->reason : "");
}
