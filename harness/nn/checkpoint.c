/* checkpoint.c - all that training needs to go on, in one safetensors file.
 *
 * Layout: 8 bytes little-endian length of the header, the header (JSON), the data.  Tensors: every parameter by its
 * name; of a learned one also what its optimiser keeps, "adam.m:NAME" and "adam.v:NAME", or "adafactor.row:NAME" and
 * "adafactor.column:NAME", and, where there is one, "average:NAME"; the caller's bytes as "extra:" (U8).  __metadata__:
 * format, seed, step, forwards and the FNV-1a (64 bit) of the data, all as text.  numpy and PyTorch readers of
 * safetensors read the parameters directly.
 *
 * A file is trusted in nothing: lengths, types, ranges, overlaps and the sum are checked before the first value of a
 * parameter changes. */
#define _GNU_SOURCE                     /* asprintf */
#include "internal.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char FORMAT[] = "harness-checkpoint/2";
enum { MAX_HEADER = 100 << 20 };        /* bytes, as the format's own reader has it */

/* ---- what is in a file ------------------------------------------------------------------------------------------------ */

enum { VALUE, ADAM_M, ADAM_V, ROW, COLUMN, AVERAGE, KINDS };
static const char *const prefixes[KINDS] = { "", "adam.m:", "adam.v:", "adafactor.row:", "adafactor.column:", "average:" };

typedef struct part { char *device; attn_dims dims; size_t bytes; } part;      /* device NULL: there is none */

/* What there is of this kind of a parameter. */
static part part_of(nn_params *p, int kind, const param *q)
{
    char *const blocks[KINDS] = { p->value, p->m, p->v, p->second, p->second, p->average };
    int matrix = q->dims.n > 1 && q->n > 0;
    int64_t columns = q->dims.d[q->dims.n - 1], rows = matrix ? q->n / columns : 0, at = q->offset, n = q->n;
    part x = { .dims = q->dims };
    if (!blocks[kind] || (kind != VALUE && (q->flags & ATTN_FROZEN)) || (kind == ROW && !matrix))
        return x;
    if (kind == ROW || kind == COLUMN) {
        at = q->second + (kind == COLUMN ? rows : 0);
        n = kind == ROW ? rows : matrix ? columns : q->n;
        x.dims = (attn_dims){ 1, { n } };
    }
    x.device = blocks[kind] + (size_t)at * k_dtype_size(p->wide);
    x.bytes = (size_t)n * k_dtype_size(p->wide);
    return x;
}

/* Visits every block that a checkpoint of p holds, in the order of the file. */
typedef int visit_fn(void *ctx, const char *name, const part *);
static int each_block(nn_params *p, visit_fn *visit, void *ctx)
{
    for (int kind = 0; kind < KINDS; kind++)
        for (int i = 0; i < p->count; i++) {
            char name[160];
            part x = part_of(p, kind, &p->list[i]);
            snprintf(name, sizeof name, "%s%s", prefixes[kind], p->list[i].name);
            int rc = x.device ? visit(ctx, name, &x) : 0;
            if (rc)
                return rc;
        }
    return 0;
}

/* The sum of data that tells damage: FNV-1a, 64 bit. */
static uint64_t sum_of(const unsigned char *data, size_t n)
{
    uint64_t h = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < n; i++)
        h = (h ^ data[i]) * UINT64_C(1099511628211);
    return h;
}

static const char *safetensors_dtype(k_dtype t) { return t == K_F64 ? "F64" : "F32"; }

/* ---- saving ------------------------------------------------------------------------------------------------------------- */

typedef struct writer {
    nn_params *params;
    json_t *header;
    unsigned char *data;                /* NULL while sizes are added up */
    size_t size;
} writer;

/* Adds one tensor's entry to the header. */
static int describe(writer *w, const char *name, const char *dtype, attn_dims dims, size_t bytes)
{
    json_t *shape = json_array();
    for (int i = 0; i < dims.n; i++)
        json_array_append_new(shape, json_integer(dims.d[i]));
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape, "data_offsets", (json_int_t)w->size,
                              (json_int_t)(w->size + bytes));
    return entry && json_object_set_new(w->header, name, entry) == 0 ? 0 : NN_ENOMEM;
}

/* visit_fn: sizes first (no data yet), then entry and bytes. */
static int write_block(void *ctx, const char *name, const part *x)
{
    writer *w = ctx;
    int rc = 0;
    if (w->data) {
        k_download(w->params->dev, w->data + w->size, x->device, x->bytes);
        rc = describe(w, name, safetensors_dtype(w->params->wide), x->dims, x->bytes);
    }
    w->size += x->bytes;
    return rc;
}

/* The header's metadata: text only, as the format wants it. */
static int describe_all(writer *w)
{
    char seed[32], step[32], forwards[32], sum[32];
    snprintf(seed, sizeof seed, "%" PRIu64, w->params->seed);
    snprintf(step, sizeof step, "%" PRId64, w->params->step);
    snprintf(forwards, sizeof forwards, "%" PRIu32, nn_params_forwards(w->params));
    snprintf(sum, sizeof sum, "%016" PRIx64, sum_of(w->data, w->size));
    json_t *meta = json_pack("{s:s, s:s, s:s, s:s, s:s}", "format", FORMAT, "seed", seed, "step", step, "forwards", forwards, "fnv1a", sum);
    return meta && json_object_set_new(w->header, "__metadata__", meta) == 0 ? 0 : NN_ENOMEM;
}

/* All of it or an errno. */
static int write_all(int fd, const void *bytes, size_t n)
{
    for (const char *p = bytes; n;) {
        ssize_t wrote = write(fd, p, n);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return wrote < 0 ? errno : EIO;
        p += wrote;
        n -= (size_t)wrote;
    }
    return 0;
}

/* A rename lasts only when its folder is on the disk. */
static int sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int rc = fd < 0 || fsync(fd) ? errno : 0;
    if (fd >= 0)
        close(fd);
    free(folder);
    return rc;
}

/* path.tmp, flushed, then renamed to path: a reader sees the old file or the new one. */
static int publish(const char *path, const char *header, const unsigned char *data, size_t size, char *why, size_t nwhy)
{
    char *tmp = NULL;
    if (asprintf(&tmp, "%s.tmp", path) < 0)
        tmp = NULL;
    int fd = tmp ? open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
    size_t length = strlen(header);
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++)
        prefix[i] = (unsigned char)(length >> (8 * i));
    int rc = fd < 0 ? errno : write_all(fd, prefix, 8);
    if (!rc)
        rc = write_all(fd, header, length);
    if (!rc)
        rc = write_all(fd, data, size);
    if (!rc && fsync(fd))
        rc = errno;
    if (fd >= 0 && close(fd) && !rc)
        rc = errno;
    if (!rc && rename(tmp, path))
        rc = errno;
    if (!rc)
        rc = sync_folder(path);
    else if (fd >= 0)
        unlink(tmp);
    free(tmp);
    if (rc)
        snprintf(why, nwhy, "%s: cannot save the checkpoint: %s", path, strerror(rc));
    return rc ? ATTN_EINVAL : 0;
}

int nn_checkpoint_save(nn_params *p, const char *path, const void *extra, size_t nextra, char *why, size_t nwhy)
{
    writer w = { .params = p, .header = json_object() };
    each_block(p, write_block, &w);
    size_t total = w.size + nextra;
    w.data = malloc(total ? total : 1);
    w.size = 0;
    char *header = NULL;
    int rc = w.data && w.header ? each_block(p, write_block, &w) : NN_ENOMEM;
    if (!rc && nextra) {
        memcpy(w.data + w.size, extra, nextra);
        rc = describe(&w, "extra:", "U8", (attn_dims){ 1, { (int64_t)nextra } }, nextra);
        w.size = total;
    }
    if (!rc)
        rc = describe_all(&w);
    if (!rc && !(header = json_dumps(w.header, JSON_COMPACT)))
        rc = NN_ENOMEM;
    if (rc)
        snprintf(why, nwhy, "%s: out of host memory for the checkpoint", path);
    else
        rc = publish(path, header, w.data, w.size, why, nwhy);
    free(header);
    free(w.data);
    json_decref(w.header);
    return rc;
}

/* ---- loading ---------------------------------------------------------------------------------------------------------------- */

typedef struct reader {
    nn_params *params;
    unsigned char *file;                /* the whole file */
    size_t size;
    const unsigned char *data;          /* its data part */
    size_t ndata;
    json_t *header;
    size_t entries;                     /* of tensors that were asked for */
    const char *path;
    char *why;
    size_t nwhy;
} reader;

/* Records what is wrong with the file. */
__attribute__((format(printf, 2, 3)))
static int bad(reader *r, const char *format, ...)
{
    char what[200];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    snprintf(r->why, r->nwhy, "%s: %s", r->path, what);
    return ATTN_EINVAL;
}

static void reader_release(reader *r)
{
    json_decref(r->header);
    free(r->file);
}

/* The bytes of a regular file. */
static int slurp(reader *r)
{
    struct stat st;
    int fd = open(r->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        return bad(r, "cannot open the checkpoint: %s", strerror(code));
    }
    if (S_ISREG(st.st_mode) && (r->file = malloc((size_t)st.st_size + 1)))
        while (r->size < (size_t)st.st_size) {
            ssize_t got = read(fd, r->file + r->size, (size_t)st.st_size - r->size);
            if (got < 0 && errno == EINTR)
                continue;
            if (got <= 0)
                break;
            r->size += (size_t)got;
        }
    close(fd);
    if (!r->file || r->size != (size_t)st.st_size)
        return bad(r, "cannot read the checkpoint");
    return 0;
}

/* Header and data apart; whether the header is a JSON object. */
static int split(reader *r)
{
    uint64_t length = 0;
    for (int i = 0; r->size >= 8 && i < 8; i++)
        length |= (uint64_t)r->file[i] << (8 * i);
    if (r->size < 8 || length > MAX_HEADER || length > r->size - 8)
        return bad(r, "not a checkpoint, or cut off: %zu bytes with a header of %" PRIu64, r->size, length);
    json_error_t error;
    r->header = json_loadb((const char *)r->file + 8, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(r->header))
        return bad(r, "the header is not JSON: %s", r->header ? "no object" : error.text);
    r->data = r->file + 8 + length;
    r->ndata = r->size - 8 - (size_t)length;
    return 0;
}

/* The bytes of one tensor, which must have this dtype and shape (shape NULL: any number of bytes). */
static int find(reader *r, const char *name, const char *dtype, const attn_dims *dims, const unsigned char **out, size_t *bytes)
{
    json_t *entry = json_object_get(r->header, name), *shape, *offsets;
    const char *type;
    json_int_t begin, end;
    if (!entry)
        return bad(r, "there is no tensor %s", name);
    if (json_unpack(entry, "{s:s, s:o, s:o}", "dtype", &type, "shape", &shape, "data_offsets", &offsets) ||
        json_array_size(offsets) != 2 || json_unpack(offsets, "[I, I]", &begin, &end) || !json_is_array(shape))
        return bad(r, "the entry of %s is malformed", name);
    if (begin < 0 || end < begin || (uint64_t)end > r->ndata)
        return bad(r, "%s lies at %lld..%lld of %zu bytes", name, (long long)begin, (long long)end, r->ndata);
    int same = strcmp(type, dtype) == 0;
    if (dims) {
        same = same && json_array_size(shape) == (size_t)dims->n;
        for (int i = 0; same && i < dims->n; i++)
            same = json_is_integer(json_array_get(shape, (size_t)i)) && json_integer_value(json_array_get(shape, (size_t)i)) == dims->d[i];
    }
    if (!same)
        return bad(r, "%s has another type or shape than the model's", name);
    *out = r->data + begin;
    *bytes = (size_t)(end - begin);
    r->entries++;
    return 0;
}

typedef struct span { size_t begin, end; } span;

static int by_begin(const void *a, const void *b)
{
    const span *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* The tensors must cover the data without gap and overlap, as the format demands. */
static int check_cover(reader *r)
{
    size_t n = 0, at = 0, count = json_object_size(r->header);
    span *spans = calloc(count + 1, sizeof *spans);
    if (!spans)
        return bad(r, "out of host memory");
    const char *name;
    json_t *entry;
    int rc = 0;
    json_object_foreach(r->header, name, entry) {
        json_int_t begin = -1, end = -1;
        if (strcmp(name, "__metadata__") == 0)
            continue;
        if (json_unpack(entry, "{s:[I, I]}", "data_offsets", &begin, &end) || begin < 0 || end < begin || (uint64_t)end > r->ndata)
            rc = bad(r, "the entry of %.100s is malformed", name);
        spans[n++] = (span){ (size_t)begin, (size_t)end };
    }
    qsort(spans, n, sizeof *spans, by_begin);
    for (size_t i = 0; !rc && i < n; at = spans[i++].end)
        if (spans[i].begin != at)
            rc = bad(r, "its tensors %s each other at byte %zu", spans[i].begin < at ? "overlap" : "do not touch", at);
    if (!rc && at != r->ndata)
        rc = bad(r, "its tensors end at byte %zu of %zu", at, r->ndata);
    free(spans);
    return rc;
}

/* A decimal number from the metadata. */
static int number(reader *r, const char *key, uint64_t *out)
{
    const char *text = json_string_value(json_object_get(json_object_get(r->header, "__metadata__"), key));
    char *end = NULL;
    errno = 0;
    if (text && *text >= '0' && *text <= '9')
        *out = strtoull(text, &end, 10);
    return end && *end == '\0' && errno == 0 ? 0 : bad(r, "its metadata lack a valid %s", key);
}

/* Format, sum, cover: whether this is a checkpoint and whole. */
static int check_whole(reader *r)
{
    json_t *meta = json_object_get(r->header, "__metadata__");
    const char *format = json_string_value(json_object_get(meta, "format"));
    const char *sum = json_string_value(json_object_get(meta, "fnv1a"));
    char want[32];
    if (!format || strcmp(format, FORMAT))
        return bad(r, "its format is not %s", FORMAT);
    int rc = check_cover(r);
    if (rc)
        return rc;
    snprintf(want, sizeof want, "%016" PRIx64, sum_of(r->data, r->ndata));
    return sum && strcmp(sum, want) == 0 ? 0 : bad(r, "the data are damaged: their sum is not that of the header");
}

/* visit_fn: whether the file holds this block as the model has it. */
static int check_block(void *ctx, const char *name, const part *x)
{
    reader *r = ctx;
    const unsigned char *from;
    size_t found = 0;
    int rc = find(r, name, safetensors_dtype(r->params->wide), &x->dims, &from, &found);
    return rc ? rc : found == x->bytes ? 0 : bad(r, "%s has %zu bytes, not %zu", name, found, x->bytes);
}

/* visit_fn: brings a block, checked before, to the device. */
static int read_block(void *ctx, const char *name, const part *x)
{
    reader *r = ctx;
    const unsigned char *from = NULL;
    size_t found;
    int rc = find(r, name, safetensors_dtype(r->params->wide), &x->dims, &from, &found);
    if (!rc)
        k_upload(r->params->dev, x->device, from, x->bytes);
    return rc;
}

/* Room for the moments that the file has, where params have none yet. */
static int take_moments(reader *r)
{
    const char *name;
    json_t *entry;
    int adam = 0, adafactor = 0;
    json_object_foreach(r->header, name, entry) {
        adam |= strncmp(name, prefixes[ADAM_M], strlen(prefixes[ADAM_M])) == 0;
        adafactor |= strncmp(name, prefixes[COLUMN], strlen(prefixes[COLUMN])) == 0;
    }
    int which = adafactor ? NN_MOMENTS_FACTORED : NN_MOMENTS_ADAM;
    return (adam || adafactor) && !r->params->moments ? nn_params_take_moments(r->params, which, r->why, r->nwhy) : 0;
}

/* Opens and checks all that does not depend on the model. */
static int reader_init(reader *r, nn_params *p, const char *path, char *why, size_t nwhy)
{
    *r = (reader){ .params = p, .path = path, .why = why, .nwhy = nwhy };
    int rc = slurp(r);
    if (!rc)
        rc = split(r);
    if (!rc)
        rc = check_whole(r);
    return rc;
}

/* The caller's bytes in the file; none is a length of 0. */
static int find_extra(reader *r, const unsigned char **bytes, size_t *n)
{
    *bytes = NULL;
    *n = 0;
    return json_object_get(r->header, "extra:") ? find(r, "extra:", "U8", NULL, bytes, n) : 0;
}

int64_t nn_checkpoint_extra(const char *path, char *why, size_t nwhy)
{
    reader r;
    const unsigned char *bytes;
    size_t n = 0;
    int rc = reader_init(&r, NULL, path, why, nwhy);
    if (!rc)
        rc = find_extra(&r, &bytes, &n);
    reader_release(&r);
    return rc ? -1 : (int64_t)n;
}

int nn_checkpoint_load(nn_params *p, const char *path, void *extra, size_t nextra, char *why, size_t nwhy)
{
    reader r;
    const unsigned char *bytes = NULL;
    size_t n = 0;
    uint64_t seed = 0, step = 0, forwards = 0;
    int rc = reader_init(&r, p, path, why, nwhy);
    if (!rc && !(rc = number(&r, "seed", &seed)) && !(rc = number(&r, "step", &step)))
        rc = number(&r, "forwards", &forwards);
    if (!rc && seed != p->seed)
        rc = bad(&r, "it was written with seed %" PRIu64 ", not %" PRIu64, seed, p->seed);
    if (!rc && (step > INT64_MAX || forwards > UINT32_MAX))
        rc = bad(&r, "its step is out of range");
    if (!rc)
        rc = take_moments(&r);
    if (!rc)
        rc = each_block(p, check_block, &r);
    if (!rc)
        rc = find_extra(&r, &bytes, &n);
    if (!rc && n != nextra)
        rc = bad(&r, "it holds %zu bytes of the caller's, not %zu", n, nextra);
    if (!rc && r.entries + 1 != json_object_size(r.header))
        rc = bad(&r, "it holds tensors that the model does not have");
    if (!rc)
        rc = each_block(p, read_block, &r);
    if (!rc) {
        nn_params_round(p);
        p->step = (int64_t)step;
        nn_params_set_forwards(p, (uint32_t)forwards);
        if (n)
            memcpy(extra, bytes, n);
    }
    reader_release(&r);
    return rc;
}

/* ---- the values alone --------------------------------------------------------------------------------------------------- */

/* Parameter i in the file, checked: its name there, the average where there is one, and what it is read into. */
static int find_value(reader *r, int i, char *name, size_t n, part *x)
{
    const param *q = &r->params->list[i];
    *x = part_of(r->params, VALUE, q);
    snprintf(name, n, "%s%s", prefixes[AVERAGE], q->name);
    if (!json_object_get(r->header, name))
        snprintf(name, n, "%s", q->name);
    return x->device ? check_block(r, name, x) : 0;
}

int nn_checkpoint_values(nn_params *p, const char *path, char *why, size_t nwhy)
{
    reader r;
    char name[160];
    part x;
    int rc = reader_init(&r, p, path, why, nwhy);
    for (int apply = 0; !rc && apply < 2; apply++)      /* all is checked before anything changes */
        for (int i = 0; !rc && i < p->count; i++) {
            rc = find_value(&r, i, name, sizeof name, &x);
            if (!rc && apply && x.device)
                rc = read_block(&r, name, &x);
        }
    if (!rc)
        nn_params_round(p);
    reader_release(&r);
    return rc;
}

/* Adds a name to a list of n characters; what does not fit becomes "...". */
static void add_name(char *list, size_t n, const char *name)
{
    size_t used = strlen(list);
    if (used + strlen(name) + sizeof ", ..." < n)
        snprintf(list + used, n - used, "%s%s", used ? ", " : "", name);
    else if (used < 3 || strcmp(list + used - 3, "..."))
        snprintf(list + used, n - used, ", ...");
}

int nn_params_import(nn_params *p, const char *path, nn_imported *out, char *why, size_t nwhy)
{
    reader r;
    char name[160], unlike[300];
    part x;
    int rc = reader_init(&r, p, path, why, nwhy);
    *out = (nn_imported){ 0 };
    r.why = unlike, r.nwhy = sizeof unlike;             /* what another model lacks is no fault */
    for (int i = 0; !rc && i < p->count; i++) {
        int taken = find_value(&r, i, name, sizeof name, &x) == 0 && x.device && read_block(&r, name, &x) == 0;
        out->taken += taken;
        out->drawn += !taken;
        add_name(taken ? out->taken_names : out->drawn_names, sizeof out->taken_names, p->list[i].name);
    }
    r.why = why, r.nwhy = nwhy;
    if (!rc && !out->taken)
        rc = bad(&r, "no parameter of this model is in it under its name and with its shape");
    if (!rc)
        nn_params_round(p);
    reader_release(&r);
    return rc;
}
