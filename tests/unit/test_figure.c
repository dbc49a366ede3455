/* test_figure.c - figures: what is collected, fitted and written, and that no text of a user reaches gnuplot as a command. */
#define _GNU_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "fake_plan.h"
#include "figure_internal.h"

typedef struct room {
    char dir[64], why[640];
    hs_store *store;
    hs_plan plan;
} room;

static int setup(void **state)
{
    room *r = calloc(1, sizeof *r);
    char db[96];
    strcpy(r->dir, "/tmp/test_figure.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(db, sizeof db, "%s/store.db", r->dir);
    assert_int_equal(hs_store_open(db, 0, &r->store, r->why, sizeof r->why), 0);
    fake_plan(&r->plan, "fake", 3, 4, 3, 1);    /* 3 series, keys 20 40 60 80, seeds 1 2 3 */
    assert_int_equal(hs_store_plan(r->store, &r->plan), 0);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    room *r = *state;
    char command[192];
    hs_store_close(r->store);
    fake_plan_free(&r->plan);
    snprintf(command, sizeof command, "rm -rf %s", r->dir);
    int rc = system(command);
    free(r);
    return rc;
}

/* Finishes cell i with one value of loss at step 100 and another at step 200. */
static void finish(room *r, size_t i, enum hs_status status, const char *reason, double at100, double at200)
{
    hs_value value[] = { { "loss", "1", 100, at100 }, { "loss", "1", 200, at200 } };
    assert_int_equal(hs_store_finish(r->store, &r->plan.cell[i], &(hs_result){ status, reason, NULL, 1, value, 2 }), 0);
}

/* Finishes every cell: series s at keys k has the loss (s + 1) k, its seeds one below, at and one above. */
static void finish_all(room *r)
{
    for (size_t i = 0; i < r->plan.ncells; i++) {
        double middle = (double)((i / 12 + 1) * (20 + 20 * (i / 3 % 4)));
        finish(r, i, HS_DONE, NULL, 1e3, middle + (double)(i % 3) - 1);
    }
}

static json_t *spec_of(const char *text)
{
    json_t *spec = json_loads(text, 0, NULL);
    assert_non_null(spec);
    return spec;
}

static void collect(room *r, fig *f, const json_t *spec)
{
    if (fig_collect(f, r->store, &r->plan, spec, 1, r->why, sizeof r->why) != 0) fail_msg("%s", r->why);
    fig_measure(f);
}

#define LINE "\"kind\": \"line\", \"x\": \"keys\", \"y\": \"loss\""

static void test_seeds_become_mean_and_band(void **state)
{
    room *r = *state;
    fig f;
    json_t *spec = spec_of("{" LINE "}");
    finish_all(r);
    collect(r, &f, spec);
    assert_int_equal(f.nseries, 3);
    assert_string_equal(f.series[2].name, "DPFP-1");
    assert_int_equal(f.series[2].npoints, 4);
    for (int k = 0; k < 4; k++) {
        fig_point p = f.series[2].point[k];
        assert_true(p.x == 20 + 20 * k && p.n == 3);
        assert_true(fabs(p.y - 3 * p.x) < 1e-12);
        assert_true(fabs(p.high - p.y - 4.302652729749462 / sqrt(3)) < 1e-9);      /* t(.975, 2), deviation 1 */
        assert_true(fabs(p.y - p.low - (p.high - p.y)) < 1e-9);
    }
    assert_int_equal(f.missing + f.dropped + f.nmarks, 0);
    fig_release(&f);
    json_decref(spec);
}

static void test_another_axis_splits_a_series(void **state)
{
    room *r = *state;
    fig f;
    json_t *spec = spec_of("{\"kind\": \"curve\", \"y\": \"loss\"}");
    finish_all(r);
    collect(r, &f, spec);       /* the curves of one label differ in keys: they are not averaged */
    assert_int_equal(f.nseries, 12);
    assert_string_equal(f.series[1].name, "Softmax, keys=40");
    assert_int_equal(f.series[1].npoints, 2);
    assert_true(f.series[1].point[0].x == 100 && f.series[1].point[0].y == 1e3 && f.series[1].point[1].y == 40);
    fig_release(&f);
    json_decref(spec);
    spec = spec_of("{" LINE ", \"series\": \"seed\"}");
    collect(r, &f, spec);       /* a line per seed, and the variants still apart */
    assert_int_equal(f.nseries, 9);
    assert_string_equal(f.series[0].name, "1, Softmax");
    fig_release(&f);
    json_decref(spec);
}

/* The best over an axis, which then splits no series: of the three variants the last has the largest loss, and more of what
 * nobody has described is better. */
static void test_the_best_over_an_axis(void **state)
{
    room *r = *state;
    fig f;
    json_t *spec = spec_of("{" LINE ", \"series\": \"seed\", \"best\": \"variant\"}");
    finish_all(r);
    collect(r, &f, spec);
    assert_int_equal(f.nseries, 3);
    for (int s = 0; s < 3; s++) {
        assert_int_equal(f.series[s].npoints, 4);
        for (int k = 0; k < 4; k++) {
            fig_point p = f.series[s].point[k];
            assert_true(p.x == 20 + 20 * k && p.y == 3 * p.x + s - 1 && p.n == 1);
        }
    }
    fig_release(&f);
    json_decref(spec);
}

static void test_endings_are_marks_and_the_missing_are_counted(void **state)
{
    room *r = *state;
    fig f;
    json_t *spec = spec_of("{" LINE "}");
    finish(r, 0, HS_DONE, NULL, 1, 2);
    finish(r, 1, HS_TIMEOUT, "longer than 5 s", 1, 2);
    finish(r, 2, HS_INTERRUPTED, NULL, 1, 2);
    finish(r, 3, HS_CRASHED, "signal 11", 1, 2);
    finish(r, 4, HS_DONE, NULL, 1, NAN);
    collect(r, &f, spec);
    assert_int_equal(f.cells, 36);
    assert_int_equal(f.missing, 32);
    assert_int_equal(f.nmarks, 2);
    assert_int_equal(f.dropped, 1);
    assert_int_equal(f.mark[0].status, HS_TIMEOUT);
    assert_string_equal(f.mark[0].reason, "longer than 5 s");
    assert_true(f.mark[1].x == 40);
    assert_int_equal(f.series[0].npoints, 1);
    assert_int_equal(f.series[0].point[0].n, 1);
    fig_release(&f);
    json_decref(spec);
}

static void test_what_is_not_positive_leaves_a_logarithmic_axis(void **state)
{
    room *r = *state;
    fig f;
    json_t *spec = spec_of("{" LINE ", \"logy\": true}");
    finish(r, 0, HS_DONE, NULL, 1, 0);
    finish(r, 3, HS_DONE, NULL, 1, -1);
    finish(r, 6, HS_DONE, NULL, 1, INFINITY);
    finish(r, 9, HS_DONE, NULL, 1, 1e-4);
    collect(r, &f, spec);
    assert_int_equal(f.dropped, 3);
    assert_int_equal(f.series[0].npoints, 1);
    assert_true(f.ymin == 1e-4 && f.ymax == 1e-4);
    fig_release(&f);
    json_decref(spec);
}

/* A file's text; the caller frees. */
static char *slurp(const char *path)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = fopen(path, "r");
    if (!f || getdelim(&text, &n, '\0', f) < 0) fail_msg("%s cannot be read", path);
    fclose(f);
    return text;
}

static const char *const hostile[] = {
    "\"; system(\"touch pwned\"); #", "'; system('touch pwned'); #", "`touch pwned`", "$(touch pwned)", "a\nsystem('touch pwned')\n",
    "\\", "\\'; !touch pwned", "@touch", "%s%n%d", "{/Symbol a}^{2}_3", "φ ∇ 漢字 <b>&amp;", "", "\xff\xfe", "<touch pwned",
    "' . system('touch pwned') . '", "a\tb\rc" };
enum { HOSTILE = sizeof hostile / sizeof *hostile };

static void test_no_text_is_a_command(void **state)
{
    room *r = *state;
    char path[256];
    finish_all(r);
    for (int i = 0; i < HOSTILE; i++) {
        for (size_t k = 0; k < r->plan.ncells; k++) r->plan.cell[k].label = k < 12 ? hostile[i] : fake_labels[k / 12];
        json_t *spec = spec_of("{" LINE "}");
        for (int k = 0; k < 4; k++) {
            static const char *const places[] = { "title", "xlabel", "ylabel", "name" };
            json_object_set_new(spec, places[k], json_stringn_nocheck(hostile[i], strlen(hostile[i])));
        }
        json_array_append_new(r->plan.figures, spec);
    }
    free(r->plan.experiment);
    r->plan.experiment = strdup("../'; touch pwned");
    if (hs_figures_draw(r->store, &r->plan, NULL, r->dir, 0) != 0) fail_msg("a figure was not drawn");
    snprintf(path, sizeof path, "find %s . -maxdepth 3 -name pwned | grep -q .", r->dir);
    assert_int_not_equal(system(path), 0);
    snprintf(path, sizeof path, "%s/______touch_pwned", r->dir);
    assert_int_equal(access(path, F_OK), 0);
    if (system("command -v gnuplot >/dev/null") == 0) {
        snprintf(path, sizeof path, "test $(ls %s/______touch_pwned/*.png | wc -l) -ge 10", r->dir);
        assert_int_equal(system(path), 0);
    }
}

static void test_a_literal_holds_no_quote(void **state)
{
    room *r = *state;
    char path[128];
    fig f;
    json_t *spec = spec_of("{" LINE ", \"title\": \"it's\\n`a` \\\\ @x\"}");
    finish_all(r);
    collect(r, &f, spec);
    assert_int_equal(fig_write_script(&f, r->dir, r->why, sizeof r->why), 0);
    assert_int_equal(fig_write_tsv(&f, r->dir), 0);
    snprintf(path, sizeof path, "%s/1.gp", r->dir);
    char *script = slurp(path);
    assert_non_null(strstr(script, "set title 'it’s `a` \\ @x' noenhanced"));
    assert_null(strstr(script, "@NAME@"));
    free(script);
    snprintf(path, sizeof path, "%s/1.tsv", r->dir);
    char *data = slurp(path);
    assert_non_null(strstr(data, "\n20\t60\t"));
    assert_non_null(strstr(data, "\t3\tDPFP-1\n"));
    free(data);
    fig_release(&f);
    json_decref(spec);
}

static void test_published_numbers(void **state)
{
    room *r = *state;
    char path[128], text[256];
    fig f;
    snprintf(path, sizeof path, "%s/p.csv", r->dir);
    FILE *csv = fopen(path, "w");
    fputs("# a paper\nseries,keys,loss,source\nLinear,20,0.5,\"Fig. 1, left\"\nLinear,40,nan,x\n\"New, one\",20,1e-3,x\n", csv);
    fclose(csv);
    snprintf(text, sizeof text, "{" LINE ", \"published\": \"%s\"}", path);
    json_t *spec = spec_of(text);
    finish_all(r);
    collect(r, &f, spec);
    assert_int_equal(fig_published(&f, &r->plan, r->why, sizeof r->why), 0);
    assert_int_equal(f.nseries, 5);
    assert_int_equal(f.ours, 3);
    assert_int_equal(f.series[3].style, 1);         /* as our Linear */
    assert_int_equal(f.series[3].npoints, 1);
    assert_string_equal(f.series[4].name, "New, one");
    assert_int_equal(f.series[4].style, 3);         /* the first that we do not use */
    assert_true(f.series[4].point[0].y == 1e-3);
    fig_release(&f);
    csv = fopen(path, "w");
    fputs("series,keys,bleu\nLinear,20,5\n", csv);
    fclose(csv);
    collect(r, &f, spec);
    assert_int_equal(fig_published(&f, &r->plan, r->why, sizeof r->why), -1);
    assert_non_null(strstr(r->why, "p.csv:1: there is no column 'loss'"));
    fig_release(&f);
    json_decref(spec);
}

static void test_a_figure_is_checked(void **state)
{
    const struct { const char *spec, *words; } bad[] = {
        { "{\"kind\": \"pie\", \"y\": \"loss\"}", "line, curve, scaling or pareto, not 'pie'" },
        { "{\"kind\": \"line\", \"y\": \"loss\"}", "needs x" },
        { "{\"kind\": \"curve\"}", "needs y" },
        { "{" LINE ", \"logz\": true}", "no 'logz'; did you mean 'logx'?" },
        { "{" LINE ", \"logy\": \"yes\"}", "'logy' of a figure should be true or false" },
        { "{" LINE ", \"ymax\": \"1\"}", "should be a number" },
        { "{\"kind\": \"pareto\", \"y\": \"loss\"}", "needs x, the metric of the cost" },
        { "{" LINE ", \"baseline\": \"Softmax\"}", "'baseline' belongs to figures of kind scaling" },
        { "{\"kind\": \"scaling\", \"y\": \"s\", \"bars\": \"quartiles\"}", "quantiles or interval, not 'quartiles'" },
        { "{\"kind\": \"scaling\", \"y\": \"s\", \"reference\": [1, \"two\"]}", "a list of slopes" },
        { "{" LINE ", \"fit\": true}", "'fit' belongs to figures of kind scaling" },
        { "{\"kind\": \"curve\", \"y\": \"loss\", \"best\": \"lr\"}", "'best' belongs to figures of kind line" },
        { "{" LINE ", \"where\": \"phase\"}", "'where' of a figure should be a map" } };
    room *r = *state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *spec = spec_of(bad[i].spec);
        assert_int_equal(hs_figure_check(spec, r->why, sizeof r->why), -1);
        if (!strstr(r->why, bad[i].words)) fail_msg("\"%s\" should say \"%s\"", r->why, bad[i].words);
        json_decref(spec);
    }
    json_t *good = spec_of("{" LINE ", \"series\": \"variant\", \"logx\": false, \"ymax\": 1, \"title\": \"t\"}");
    assert_int_equal(hs_figure_check(good, r->why, sizeof r->why), 0);
    json_decref(good);
}

/* ---- scaling ----------------------------------------------------------------------------------------------------- */
enum { LENGTHS = 14, PHASES = 2, MOST_SERIES = 20 };
static const char *const phases[PHASES] = { "forward", "backward" };
static const char *const kinds[MOST_SERIES] = {
    "softmax", "linear elu1", "fwp delta", "window 256", "sparse strided", "LSH 4 hashes", "FAVOR+ 256", "retention", "GLA",
    "gated DeltaNet", "Mamba-2", "relative", "identity", "LSTM", "convolution", "DPFP-3", "block 64", "sparse fixed",
    "hedgehog", "cosformer" };

static double slope_of(int series) { return series % 3 == 0 && series != 12 ? 2 : 1; }
static double factor_of(int series) { return series < 6 ? 1 + series % 5 : pow(0.75, series - 10); }

/* The seconds of a series: a launch of 10 us and a power law beyond it; those of slope 1 cross softmax, series 0, at 1500
 * times their factor. */
static double seconds_of(int series, int length, int phase)
{
    double slope = slope_of(series), per_token = 2e-9 * factor_of(series) * (slope > 1 ? 1.0 / 1500 : 1);
    return 1e-5 + (1 + phase) * per_token * pow(length, slope) * (1 + 0.01 * ((series * 7 + length) % 5 - 2));
}

/* Series x lengths 2^7 to 2^20 x phases, as the task scaling has them. */
static void scaling_plan(hs_plan *plan, int nseries)
{
    memset(plan, 0, sizeof *plan);
    plan->file = strdup("experiments/scaling.yaml");
    plan->experiment = strdup("scaling");
    plan->about = strdup("made by code");
    plan->ncells = (size_t)(nseries * LENGTHS * PHASES);
    plan->cell = calloc(plan->ncells, sizeof *plan->cell);
    plan->text = json_object();
    plan->figures = json_array();
    for (int i = 0; i < (int)plan->ncells; i++) {
        hs_cell *c = &plan->cell[i];
        int series = i / (LENGTHS * PHASES), length = 128 << i / PHASES % LENGTHS;
        const char *phase = phases[i % PHASES];
        fake_key(c->key, i, 1);
        fake_key(c->ident, i, 0);
        c->label = kinds[series];
        c->axes = json_pack("{s:s, s:i, s:s, s:i}", "phase", phase, "length", length, "variant", c->label, "seed", 1);
        c->doc = json_pack("{s:{s:s, s:{s:s, s:i}}, s:{s:s, s:{}}, s:{}, s:i, s:s, s:s}", "task", "name", "scaling", "options",
                           "phase", phase, "length", length, "variant", "name", series ? "linear" : "softmax", "options", "train",
                           "seed", 1, "device", "cpu", "dtype", "f32");
    }
}

/* Replaces the room's plan by one of scaling and finishes its cells; softmax runs out of memory, and one is refused. */
static void scale(room *r, int nseries)
{
    fake_plan_free(&r->plan);
    scaling_plan(&r->plan, nseries);
    assert_int_equal(hs_store_plan(r->store, &r->plan), 0);
    for (int i = 0; i < (int)r->plan.ncells; i++) {
        int series = i / (LENGTHS * PHASES), step = i / PHASES % LENGTHS;
        double s = seconds_of(series, 128 << step, i % PHASES);
        const hs_value value[] = { { "seconds", "s", 0, s }, { "seconds_p20", "s", 0, 0.9 * s }, { "seconds_p80", "s", 0, 1.2 * s },
                                   { "seconds_low", "s", 0, 0.98 * s }, { "seconds_high", "s", 0, 1.02 * s }, { "error", "1", 0, 1 / s } };
        hs_result done = { HS_DONE, NULL, NULL, 1, value, sizeof value / sizeof *value };
        hs_result oom = { HS_OOM, "17.2 GB asked, 3.1 GB free", NULL, 1, NULL, 0 };
        hs_result refused = { HS_REFUSED, "lengths above 65536 need 64-bit offsets", NULL, 1, NULL, 0 };
        hs_result slow = { HS_TIMEOUT, "longer than 60 s", NULL, 1, NULL, 0 };
        int ends = series % 3 == 0 && series != 12 && step > 9 + series % 4;
        const hs_result *result = ends ? &oom : series == 5 && step > 9 ? &refused : series == 13 && step > 10 ? &slow : &done;
        assert_int_equal(hs_store_finish(r->store, &r->plan.cell[i], result), 0);
    }
}

#define SCALING "\"kind\": \"scaling\", \"y\": \"seconds\", \"baseline\": \"softmax\""

static void test_slopes_and_crossings(void **state)
{
    room *r = *state;
    fig f;
    json_t *spec = spec_of("{" SCALING ", \"where\": {\"phase\": \"forward\"}}");
    scale(r, 6);
    collect(r, &f, spec);
    fig_fit(&f);
    assert_int_equal(f.cells, 6 * LENGTHS);
    assert_int_equal(f.nseries, 6);
    assert_int_equal(f.baseline, 0);
    for (size_t i = 0; i < 6; i++) {
        const hs_power *p = &f.series[i].fit;
        double truth = slope_of((int)i);
        assert_true(p->kept >= 3 && (fabs(p->slope.mean - truth) < 0.05 || (p->slope.low < truth && truth < p->slope.high)));
        for (size_t k = 0; k < f.series[i].npoints; k++)
            assert_int_equal(f.series[i].point[k].role, k < p->first ? FIG_BEFORE_TAIL : FIG_PLAIN);
    }
    const fig_series *linear = &f.series[1];    /* 4e-9 T = 2e-9 T^2 / 1500 at 3000, launches cancel */
    assert_int_equal(linear->crossing.kind, HS_CROSS_AT);
    assert_true(fabs(linear->crossing.at / 3000 - 1) < 0.03);
    assert_true(linear->crossing.low < 3000 && 3000 < linear->crossing.high && linear->crossing.high < 1.2 * linear->crossing.low);
    assert_int_equal(f.series[3].crossing.kind, HS_CROSS_NEVER);       /* four times the baseline */
    assert_int_equal(f.series[0].compared, 0);
    fig_point p = linear->point[5];
    assert_true(fabs(p.low / p.y - 0.9) < 1e-12 && fabs(p.high / p.y - 1.2) < 1e-12);
    assert_int_equal(f.nmarks, 4 + 1 + 4);      /* softmax, window, LSH */
    fig_release(&f);
    json_decref(spec);
}

/* Lines of a file that hold a text. */
static int lines_with(const char *dir, const char *name, const char *words)
{
    char path[256];
    int n = 0;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    char *text = slurp(path), *rest = text, *line;
    while ((line = strsep(&rest, "\n"))) n += strstr(line, words) != NULL;
    free(text);
    return n;
}

static void test_scaling_files(void **state)
{
    room *r = *state;
    char path[192];
    int crossings = 0;
    scale(r, MOST_SERIES);
    json_array_append_new(r->plan.figures, spec_of("{" SCALING ", \"each\": \"phase\", \"name\": \"time\", \"title\": \"Attention alone\", "
                                                   "\"ylabel\": \"median time (s)\", \"xlabel\": \"length T\"}"));
    json_array_append_new(r->plan.figures, spec_of("{\"kind\": \"pareto\", \"x\": \"seconds\", \"y\": \"error\", \"name\": \"front\", "
                                                   "\"where\": {\"length\": 4096, \"phase\": [\"forward\"]}, \"logx\": true}"));
    assert_int_equal(hs_figures_draw(r->store, &r->plan, NULL, r->dir, 0), 0);
    snprintf(path, sizeof path, "%s/scaling", r->dir);
    for (int i = 0; i < MOST_SERIES; i++) crossings += slope_of(i) == 1 && 1500 * factor_of(i) > 128;
    assert_int_equal(lines_with(path, "time-forward-slopes.csv", ",crosses,"), crossings);
    assert_int_equal(lines_with(path, "time-backward-slopes.md", "oom from"), 6);
    assert_int_equal(lines_with(path, "time-backward-slopes.md", "is the baseline"), 1);
    assert_true(lines_with(path, "time-forward-slopes.tex", "\\\\") == MOST_SERIES + 1);
    assert_in_range(lines_with(path, "time-forward.gp", "T^{"), MOST_SERIES - 2, MOST_SERIES);
    assert_int_equal(lines_with(path, "time-forward.gp", "'slope 2'"), 1);
    assert_true(lines_with(path, "front.tsv", "identity") == 1);
    if (system("command -v gnuplot >/dev/null") == 0) {
        snprintf(path, sizeof path, "cd %s/scaling && test -s time-forward.png -a -s time-backward.svg -a -s front.pdf", r->dir);
        assert_int_equal(system(path), 0);
    }
    if (getenv("KEEP_FIGURES")) {       /* a folder that is made, to look at them */
        snprintf(path, sizeof path, "cp -r %s/scaling %s", r->dir, getenv("KEEP_FIGURES"));
        assert_int_equal(system(path), 0);
    }
}

/* A narrowed plan draws beside the experiment's figures, each narrowing in a folder of its own. */
static void test_a_narrowed_plan_has_its_own_folder(void **state)
{
    room *r = *state;
    char command[256];
    const char *const only[] = { "variant=softmax" }, *const set[] = { "task.keys=20,60" };
    finish_all(r);
    json_array_append_new(r->plan.figures, spec_of("{" LINE "}"));
    assert_int_equal(hs_figures_draw(r->store, &r->plan, NULL, r->dir, 0), 0);
    r->plan.ncells /= 3;
    assert_int_equal(hs_figures_draw(r->store, &r->plan, &(hs_plan_args){ .only = only, .nonly = 1 }, r->dir, 0), 0);
    assert_int_equal(hs_figures_draw(r->store, &r->plan, &(hs_plan_args){ .only = only, .nonly = 1, .set = set, .nset = 1 }, r->dir, 0), 0);
    r->plan.ncells *= 3;
    snprintf(command, sizeof command, "cd %s/fake && test $(ls -d */ | wc -l) = 2 && grep -q DPFP 1.tsv && "
             "ls only-variant_softmax-*/1.tsv set-task_keys_20_60-only-variant_softmax-*/1.tsv >/dev/null && ! grep -q DPFP */1.tsv", r->dir);
    assert_int_equal(system(command), 0);
}

/* What `where` and `baseline` say is held against the cells before anything runs. */
static void test_a_figure_is_checked_against_the_cells(void **state)
{
    const struct { const char *spec, *words; } bad[] = {
        { "{" SCALING ", \"where\": {\"phase\": \"forwards\"}}", "no cell of this sweep" },
        { "{" SCALING ", \"where\": {\"phase\": \"forwards\"}, \"each\": \"length\"}", "`where` and `each`" },
        { "{\"kind\": \"scaling\", \"y\": \"seconds\", \"each\": \"phase\", \"baseline\": \"softmx\"}", "did you mean 'softmax'?" } };
    room *r = *state;
    scale(r, 3);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *spec = spec_of(bad[i].spec);
        assert_int_equal(hs_figure_check_plan(&r->plan, spec, r->why, sizeof r->why), -1);
        if (!strstr(r->why, bad[i].words)) fail_msg("\"%s\" should say \"%s\"", r->why, bad[i].words);
        json_decref(spec);
    }
    json_t *good = spec_of("{" SCALING ", \"where\": {\"length\": [128, 256], \"variant\": \"softmax\", \"dtype\": \"f32\"}, \"each\": \"phase\"}");
    assert_int_equal(hs_figure_check_plan(&r->plan, good, r->why, sizeof r->why), 0);
    json_decref(good);
}

/* ---- the front --------------------------------------------------------------------------------------------------- */
/* Seeds become one point with intervals both ways; the front is what no other point beats in both. */
static void test_the_front(void **state)
{
    static const double cost[] = { 1, 2, 2, 3, 4 }, quality[] = { 1, 3, 2, 2.5, 5 };
    room *r = *state;
    fig f;
    json_t *spec = spec_of("{\"kind\": \"pareto\", \"x\": \"cost\", \"y\": \"quality\", \"where\": {\"keys\": [20, 40, 60]}}");
    for (size_t i = 0; i < r->plan.ncells; i++) {
        size_t point = (i / 12 * 3 + i / 3 % 4) % 5;
        const hs_value value[] = { { "cost", "s", 0, cost[point] + 0.01 * (double)(i % 3) }, { "quality", "1", 0, quality[point] } };
        assert_int_equal(hs_store_finish(r->store, &r->plan.cell[i], &(hs_result){ HS_DONE, NULL, NULL, 1, value, 2 }), 0);
    }
    collect(r, &f, spec);
    fig_fit(&f);
    assert_int_equal(f.nseries, 3);
    for (size_t i = 0; i < 9; i++) {
        const fig_point *p = &f.series[i / 3].point[i % 3];
        assert_int_equal(p->n, 3);
        size_t point = i % 5;
        assert_true(fabs(p->x - cost[point] - 0.01) < 1e-12 && p->y == quality[point] && p->low == p->high);
        assert_true(fabs(p->xhigh - p->x - 4.302652729749462 * 0.01 / sqrt(3)) < 1e-9);
        assert_int_equal(p->role, point == 0 || point == 1 || point == 4 ? FIG_ON_FRONT : FIG_PLAIN);
    }
    fig_release(&f);
    json_decref(spec);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_seeds_become_mean_and_band), TEST(test_another_axis_splits_a_series),
        TEST(test_the_best_over_an_axis), TEST(test_endings_are_marks_and_the_missing_are_counted),
        TEST(test_what_is_not_positive_leaves_a_logarithmic_axis),
        TEST(test_no_text_is_a_command), TEST(test_a_literal_holds_no_quote), TEST(test_published_numbers),
        TEST(test_a_figure_is_checked), TEST(test_slopes_and_crossings), TEST(test_scaling_files),
        TEST(test_a_narrowed_plan_has_its_own_folder), TEST(test_a_figure_is_checked_against_the_cells), TEST(test_the_front),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
