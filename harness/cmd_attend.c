/* cmd_attend.c - `harness attend`: what the heads of a kept model look at, as .npy and as a picture; with --similarity, how alike
 * amino acids are to them. */
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "attention_map.h"
#include "command.h"
#include "heatmap.h"
#include "kept.h"
#include "npy.h"
#include "plan.h"
#include "similarity.h"
#include "text.h"

enum { ALL = -1, USUAL_LENGTH = 256, MOST_WORDS = 40, MOST_POINTS = 1200 };
typedef struct request {
    hs_kept_args kept;
    const char *text, *split, *out;
    long layer, head, from, length, sequences;      /* ALL: every one; length 0: as usual */
    enum hs_map_by by;
    int similarity;
} request;

typedef struct attend {
    request r;
    hs_kept kept;
    hs_text text;
    const data_split *split;            /* NULL with --text */
    int32_t *token;                     /* [T] */
    int64_t T;
    nn_graph *graph;
    double *map;                        /* [layers,heads,T,T] of those that were asked for */
    int64_t layers, heads, first_layer, first_head;
    char why[2400];
} attend;

/* A sentence and the exit code. */
__attribute__((format(printf, 3, 4)))
static int fail(attend *a, int code, const char *form, ...)
{
    va_list args;
    va_start(args, form);
    vsnprintf(a->why, sizeof a->why, form, args);
    va_end(args);
    return code;
}

/* ---- the command line ------------------------------------------------------------------------------------------------- */

static int take_whole(const char *text, long least, long *out)
{
    char *end;
    *out = strtol(text, &end, 10);
    return end != text && !*end && *out >= least;
}

static int take_option(request *r, int o, const char *arg)
{
    switch (o) {
    case 'l': return take_whole(arg, 0, &r->layer);
    case 'H': return take_whole(arg, 0, &r->head);
    case 'f': return take_whole(arg, 0, &r->from);
    case 'n': return take_whole(arg, 1, &r->length);
    case 'q': return take_whole(arg, 1, &r->sequences);
    case 't': r->text = arg; return 1;
    case 's': r->split = arg; return 1;
    case 'o': r->out = arg; return 1;
    case 'S': return r->similarity = 1;
    case 'b':
        r->by = !strcmp(arg, "map") ? HS_MAP_OWN : !strcmp(arg, "values") ? HS_MAP_VALUES : HS_MAP_ANY;
        return r->by != HS_MAP_ANY;
    default: return hs_kept_option(&r->kept, o, arg) > 0;
    }
}

/* An exit code when the command ends here, else -1. */
static int parse(request *r, int argc, char **argv)
{
    static const struct option longs[] = {
        HS_KEPT_OPTIONS, { "layer", 1, NULL, 'l' }, { "head", 1, NULL, 'H' }, { "text", 1, NULL, 't' }, { "split", 1, NULL, 's' },
        { "from", 1, NULL, 'f' }, { "length", 1, NULL, 'n' }, { "by", 1, NULL, 'b' }, { "out", 1, NULL, 'o' },
        { "similarity", 0, NULL, 'S' }, { "sequences", 1, NULL, 'q' }, { "help", 0, NULL, 'h' }, { 0 } };
    const hs_command *me = hs_command_find("attend");
    char complaint[200];
    *r = (request){ .layer = ALL, .head = ALL, .sequences = 100, .out = "attention" };
    optind = 0, opterr = 0;
    for (int o, at = 0; (o = getopt_long(argc, argv, "h", longs, &at)) != -1;) {
        if (o == 'h') return hs_usage(me, NULL);
        if (o != '?' && take_option(r, o, optarg)) continue;
        if (o == '?') snprintf(complaint, sizeof complaint, "%s is unknown or lacks its value", argv[optind - 1]);
        else snprintf(complaint, sizeof complaint, "--%s does not take '%.100s'", longs[at].name, optarg);
        return hs_usage(me, complaint);
    }
    if (argc - optind != 1) return hs_usage(me, argc == optind ? "which model? an experiment, a key or a file" : "one model at a time");
    r->kept.model = argv[optind];
    return -1;
}

/* ---- what is read ------------------------------------------------------------------------------------------------------- */

static int open_model(attend *a)
{
    int rc = hs_kept_open(&a->kept, &a->r.kept, a->why, sizeof a->why);
    if (rc) return rc;
    if (*a->kept.note) fprintf(stderr, "harness attend: note: %s\n", a->kept.note);
    const task_model *m = &a->kept.model;
    const char *name = a->r.split ? a->r.split : *m->test_split ? m->test_split : "valid";
    hs_text_init(&a->text, m->data);
    if (a->r.text) return HS_EXIT_OK;
    a->split = data_find_split(m->data, name);
    return a->split ? HS_EXIT_OK : fail(a, HS_EXIT_USAGE, "%s has no split '%s'", m->data->name, name);
}

/* The tokens of the text, or those of the split from --from on, of its first document if not told otherwise. */
static int read_tokens(attend *a)
{
    const int64_t context = a->kept.model.context;
    char why[300];
    if (a->r.text) {
        if (!(a->token = hs_text_tokens(&a->text, a->r.text, &a->T, why, sizeof why))) return fail(a, HS_EXIT_USAGE, "--text: %s", why);
        if (a->r.length && a->r.length < a->T) a->T = a->r.length;
    } else {
        int64_t left = a->split->n - a->r.from;
        int64_t first = a->r.from == 0 && a->split->ndocs ? (int64_t)a->split->end[0] : left;
        a->T = a->r.length ? a->r.length : first < USUAL_LENGTH ? first : USUAL_LENGTH;
        if (!a->r.length && a->T > context) a->T = context;
        if (a->T > left) return fail(a, HS_EXIT_USAGE, "split %s has %lld tokens from %ld on", a->split->name, (long long)left, a->r.from);
        if (!(a->token = malloc((size_t)a->T * sizeof *a->token))) return fail(a, HS_EXIT_FAILED, "out of memory");
        data_copy(a->split, a->r.from, a->T, a->token);
    }
    if (a->T < 1) return fail(a, HS_EXIT_USAGE, "there is nothing to look at: the text is empty");
    if (a->kept.model.whole) {          /* such a model reads token 0 first, and the last one never */
        memmove(a->token + 1, a->token, (size_t)(a->T - 1) * sizeof *a->token);
        a->token[0] = 0;
    }
    return a->T <= context ? HS_EXIT_OK : fail(a, HS_EXIT_USAGE, "%lld tokens are more than the model's context of %lld", (long long)a->T, (long long)context);
}

/* The model over T tokens, looked at. */
static int look(attend *a, const int32_t *token, int64_t T)
{
    nn_id tokens, scores;
    char why[300] = "out of memory";
    nn_graph_free(a->graph);
    if ((a->graph = hs_kept_graph(&a->kept, 1, T, 0, &tokens, &scores))) nn_watch(a->graph);
    if (!a->graph || nn_graph_compile(a->graph, why, sizeof why)) return fail(a, HS_EXIT_FAILED, "%s", why);
    k_upload(a->kept.dev, nn_data(a->graph, tokens), token, (size_t)T * sizeof *token);
    return nn_forward(a->graph) || k_sync(a->kept.dev) ? fail(a, HS_EXIT_FAILED, "the model failed") : HS_EXIT_OK;
}

/* ---- maps ----------------------------------------------------------------------------------------------------------------- */

/* Which layers and heads are asked for. */
static int choose(attend *a)
{
    const int64_t calls = nn_seen_count(a->graph);
    if (a->r.layer >= calls) return fail(a, HS_EXIT_USAGE, "the model has layers 0..%lld", (long long)calls - 1);
    a->first_layer = a->r.layer == ALL ? 0 : a->r.layer;
    a->layers = a->r.layer == ALL ? calls : 1;
    const int64_t heads = attn_out_heads(&nn_see(a->graph, (int)a->first_layer).spec->shape);
    for (int64_t l = 0; l < a->layers; l++)
        if (attn_out_heads(&nn_see(a->graph, (int)(a->first_layer + l)).spec->shape) != heads)
            return fail(a, HS_EXIT_USAGE, "layers have unlike numbers of heads: choose one with --layer");
    if (a->r.head >= heads) return fail(a, HS_EXIT_USAGE, "a layer has heads 0..%lld", (long long)heads - 1);
    a->first_head = a->r.head == ALL ? 0 : a->r.head;
    a->heads = a->r.head == ALL ? heads : 1;
    return HS_EXIT_OK;
}

/* The largest distance of a row's sum from one. */
static double off_one(const double *map, int64_t rows, int64_t T)
{
    double most = 0;
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0;
        for (int64_t j = 0; j < T; j++) sum += map[i * T + j];
        most = fmax(most, fabs(sum - 1));
    }
    return most;
}

/* The maps of the layers that are asked for; the heads of one layer lie in `whole` first. */
static int read_maps(attend *a)
{
    const int64_t T = a->T, each = T * T, all = attn_out_heads(&nn_see(a->graph, (int)a->first_layer).spec->shape);
    double *whole = malloc((size_t)(all * each) * sizeof *whole);
    a->map = malloc((size_t)(a->layers * a->heads * each) * sizeof *a->map);
    int rc = whole && a->map ? HS_EXIT_OK : fail(a, HS_EXIT_FAILED, "out of memory for maps of %lld tokens", (long long)T);
    for (int64_t l = 0; !rc && l < a->layers; l++) {
        nn_seen seen = nn_see(a->graph, (int)(a->first_layer + l));
        enum hs_map_by by = a->r.by;
        if (hs_attention_map(a->kept.dev, seen, &by, whole, a->why, sizeof a->why)) { rc = HS_EXIT_FAILED; break; }
        memcpy(a->map + l * a->heads * each, whole + a->first_head * each, (size_t)(a->heads * each) * sizeof *whole);
        printf("layer %lld: %s, by %s", (long long)(a->first_layer + l), seen.spec->variant->name, by == HS_MAP_OWN ? "its own map" : "one-hot values");
        if (hs_attention_sums_to_one(seen)) printf("; rows sum to 1 within %.1g", off_one(whole, all * T, T));
        printf("\n");
    }
    free(whole);
    return rc;
}

/* A matrix or more of them as DIR/NAME.npy. */
static int write_npy(attend *a, const char *name, const double *x, int ndim, const int64_t *shape)
{
    char path[4096], text[200];
    hs_npy npy = { .type = HS_NPY_F64, .ndim = ndim, .n = 1, .data = (void *)x };
    for (int i = 0; i < ndim; i++) npy.n *= npy.shape[i] = shape[i];
    snprintf(path, sizeof path, "%s/%s.npy", a->r.out, name);
    if (hs_npy_write(path, &npy, a->why, sizeof a->why)) return HS_EXIT_FAILED;
    printf("%s %s\n", path, hs_npy_shape_text(ndim, npy.shape, text, sizeof text));
    return HS_EXIT_OK;
}

/* Draws, and says so. */
static int draw(attend *a, const hs_heatmap *m, const char *name)
{
    int drawn;
    if (hs_heatmap_draw(m, a->r.out, name, &drawn, a->why, sizeof a->why)) return HS_EXIT_FAILED;
    printf("%s/%s.%s\n", a->r.out, name, drawn ? "pdf, .png, .svg" : "gp and .tsv (there is no gnuplot to draw them)");
    return HS_EXIT_OK;
}

/* One map, its rows and columns named by the tokens where they are few. */
static int draw_one(attend *a)
{
    hs_tic tic[MOST_WORDS];
    char title[200];
    double low = 0, high = 0;
    int64_t n = a->T <= MOST_WORDS ? a->T : 0;
    for (int64_t i = 0; i < a->T * a->T; i++) low = fmin(low, a->map[i]), high = fmax(high, a->map[i]);
    for (int64_t i = 0; i < n; i++) {
        char word[64];
        hs_text_word(&a->text, a->token[i], word);
        tic[i].at = (double)i;
        snprintf(tic[i].text, sizeof tic[i].text, "%.20s", word);
    }
    snprintf(title, sizeof title, "Layer %lld, head %lld: %.100s", (long long)a->first_layer, (long long)a->first_head, a->kept.found.label);
    return draw(a, &(hs_heatmap){ title, "is read", "reads", "attention", a->T, a->T, a->map, low, high, tic, tic, NULL, (size_t)n, (size_t)n, 0 }, "attention");
}

/* One map into the grid at row r, column c of panels: shrunk, and its largest weight 1. */
static double put_panel(const double *map, int64_t T, int64_t by, double *grid, int64_t width, int64_t row, int64_t column)
{
    const int64_t side = (T + by - 1) / by;
    double most = 0, low = 0, *small = malloc((size_t)(side * side) * sizeof *small);
    if (!small) return 0;
    hs_heatmap_shrink(map, T, T, by, small);
    for (int64_t i = 0; i < side * side; i++) most = fmax(most, fabs(small[i]));
    for (int64_t i = 0; i < side * side; i++) {
        double x = most > 0 ? small[i] / most : 0;
        grid[(row + i / side) * width + column + i % side] = x;
        low = fmin(low, x);
    }
    free(small);
    return low;
}

/* All maps as panels, layers below one another, heads side by side. */
static int draw_grid(attend *a)
{
    const int64_t most = a->layers > a->heads ? a->layers : a->heads, by = (a->T * most + MOST_POINTS - 1) / MOST_POINTS;
    const int64_t side = (a->T + by - 1) / by, step = side + side / 24 + 1, width = a->heads * step - (step - side), height = a->layers * step - (step - side);
    double *grid = malloc((size_t)(width * height) * sizeof *grid), low = 0;
    hs_tic *x = calloc((size_t)a->heads, sizeof *x), *y = calloc((size_t)a->layers, sizeof *y);
    int rc = grid && x && y ? HS_EXIT_OK : fail(a, HS_EXIT_FAILED, "out of memory for the picture");
    for (int64_t i = 0; !rc && i < width * height; i++) grid[i] = NAN;
    for (int64_t l = 0; !rc && l < a->layers; l++)
        for (int64_t h = 0; h < a->heads; h++) {
            low = fmin(low, put_panel(a->map + (l * a->heads + h) * a->T * a->T, a->T, by, grid, width, l * step, h * step));
            x[h].at = (double)(h * step) + 0.5 * (double)(side - 1), y[l].at = (double)(l * step) + 0.5 * (double)(side - 1);
            snprintf(x[h].text, sizeof x[h].text, "%lld", (long long)(a->first_head + h));
            snprintf(y[l].text, sizeof y[l].text, "%lld", (long long)(a->first_layer + l));
        }
    if (!rc) rc = draw(a, &(hs_heatmap){ a->kept.found.label, "head", "layer", "attention / largest of the head", height, width, grid, low, 1, x, y,
                                         NULL, (size_t)a->heads, (size_t)a->layers, 0 }, "attention");
    free(grid);
    free(x);
    free(y);
    return rc;
}

/* The tokens, a line each, beside the maps. */
static int write_tokens(attend *a)
{
    char path[4096], word[64];
    snprintf(path, sizeof path, "%s/tokens.txt", a->r.out);
    FILE *f = fopen(path, "w");
    for (int64_t i = 0; f && i < a->T; i++) {
        hs_text_word(&a->text, a->token[i], word);
        fprintf(f, "%s\n", word);
    }
    return f && fclose(f) == 0 ? HS_EXIT_OK : fail(a, HS_EXIT_FAILED, "%s cannot be written", path);
}

static int attend_maps(attend *a)
{
    int rc = read_tokens(a);
    if (!rc) rc = look(a, a->token, a->T);
    if (!rc) rc = choose(a);
    if (!rc) rc = read_maps(a);
    if (rc) return rc;
    int64_t shape[4], n = 0;
    if (a->r.layer == ALL) shape[n++] = a->layers;
    if (a->r.head == ALL) shape[n++] = a->heads;
    shape[n++] = a->T, shape[n++] = a->T;
    rc = a->layers * a->heads == 1 ? draw_one(a) : draw_grid(a);
    if (!rc) rc = write_npy(a, "attention", a->map, (int)n, shape);
    return rc ? rc : write_tokens(a);
}

/* ---- similarity ------------------------------------------------------------------------------------------------------------- */

/* The kind of each token: 0..19 an amino acid, 20 anything else; -1 when the data set has not all of them. */
static int name_kinds(const data_tokens *data, signed char *kind)
{
    for (int64_t i = 0; i < data->nvocab; i++) kind[i] = HS_AMINO;
    for (int i = 0; i < HS_AMINO; i++) {
        int64_t id = data_id(data, &HS_AMINO_ACIDS[i], 1);
        if (id < 0) return -1;
        kind[id] = (signed char)i;
    }
    return 0;
}

/* Heads of all layers. */
static int64_t count_heads(const nn_graph *g)
{
    int64_t n = 0;
    for (int c = 0; c < nn_seen_count(g); c++) n += attn_out_heads(&nn_see(g, c).spec->shape);
    return n;
}

/* Adds the sequences of the split, cut to the context, one by one. */
static int add_sequences(attend *a, const signed char *kind, hs_similarity *s, int64_t *n)
{
    const int64_t context = a->kept.model.context;
    signed char *row = malloc((size_t)context);
    int rc = row && (a->token = malloc((size_t)context * sizeof *a->token)) ? HS_EXIT_OK : fail(a, HS_EXIT_FAILED, "out of memory");
    for (*n = 0; !rc && *n < a->r.sequences && *n < a->split->ndocs; ++*n) {
        int64_t begin = data_doc_begin(a->split, *n), T = (int64_t)a->split->end[*n] - begin;
        if (T > context) T = context;
        data_copy(a->split, begin, T, a->token);
        for (int64_t t = 0; t < T; t++) s->residues += (row[t] = kind[a->token[t]]) < HS_AMINO;
        rc = look(a, a->token, T);
        if (!rc && !s->mass && hs_similarity_init(s, count_heads(a->graph))) rc = fail(a, HS_EXIT_FAILED, "out of memory");
        for (int64_t c = 0, feature = 0; !rc && c < nn_seen_count(a->graph); c++) {
            nn_seen seen = nn_see(a->graph, (int)c);
            if (hs_similarity_add(s, a->kept.dev, seen, row, feature, a->why, sizeof a->why)) rc = HS_EXIT_FAILED;
            feature += attn_out_heads(&seen.spec->shape);
        }
    }
    free(row);
    return rc;
}

/* Ours at the left, BLOSUM62 at the right. */
static int draw_likeness(attend *a, const hs_likeness *l)
{
    enum { GAP = 2, WIDTH = 2 * HS_AMINO + GAP };
    double both[HS_AMINO * WIDTH];
    char title[200];
    const hs_tic top[] = { { 0.5 * (HS_AMINO - 1), "by attention" }, { HS_AMINO + GAP + 0.5 * (HS_AMINO - 1), "BLOSUM62, normalised" } };
    hs_tic x[2 * HS_AMINO], y[HS_AMINO];
    for (int i = 0; i < HS_AMINO; i++) {
        for (int j = 0; j < WIDTH; j++)
            both[i * WIDTH + j] = j < HS_AMINO ? l->of[i][j] : j < HS_AMINO + GAP ? NAN : hs_blosum62_normalised(i, j - HS_AMINO - GAP);
        y[i] = (hs_tic){ i, { HS_AMINO_ACIDS[i] } };
        x[i] = y[i];
        x[HS_AMINO + i] = (hs_tic){ HS_AMINO + GAP + i, { HS_AMINO_ACIDS[i] } };
    }
    snprintf(title, sizeof title, "Similarity of amino acids: %.100s", a->kept.found.label);
    return draw(a, &(hs_heatmap){ title, "amino acid", "amino acid", "similarity", HS_AMINO, WIDTH, both, -1, 1,
                                  x, y, top, 2 * HS_AMINO, HS_AMINO, 2 }, "similarity");
}

static int attend_similarity(attend *a)
{
    signed char *kind = malloc((size_t)a->kept.model.data->nvocab);
    hs_similarity s = { 0 };
    hs_likeness l;
    int64_t n = 0;
    int rc = !kind ? fail(a, HS_EXIT_FAILED, "out of memory") : !a->split ? fail(a, HS_EXIT_USAGE, "--similarity is of sequences of a split, not of a text")
           : name_kinds(a->kept.model.data, kind) ? fail(a, HS_EXIT_USAGE, "--similarity is of proteins: %s has not all amino acids", a->kept.model.data->name)
           : add_sequences(a, kind, &s, &n);
    if (!rc) {
        hs_similarity_likeness(&s, &l);
        rc = draw_likeness(a, &l);
        if (!rc) rc = write_npy(a, "similarity", &l.of[0][0], 2, (int64_t[]){ HS_AMINO, HS_AMINO });
        if (!rc)
            printf("%s: %lld sequences with %lld amino acids, %lld of %lld heads\nwith BLOSUM62, 190 pairs: Pearson %.3f, Spearman %.3f\n", a->kept.found.label,
                   (long long)n, (long long)s.residues, (long long)l.heads, (long long)s.features, l.pearson, l.spearman);
    }
    hs_similarity_release(&s);
    free(kind);
    return rc;
}

int cmd_attend(int argc, char **argv)
{
    attend a = { 0 };
    int rc = parse(&a.r, argc, argv);
    if (rc >= 0) return rc;
    rc = open_model(&a);
    if (!rc) rc = a.r.similarity ? attend_similarity(&a) : attend_maps(&a);
    if (rc) fprintf(stderr, "harness attend: %s\n", a.why);
    nn_graph_free(a.graph);
    hs_kept_close(&a.kept);
    free(a.token);
    free(a.map);
    return rc;
}
