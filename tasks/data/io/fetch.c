/* fetch.c - one URL into one file, by libcurl; goes on where an earlier attempt ended. */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "internal.h"

enum { CONNECT_SECONDS = 30, STALL_SECONDS = 60, REDIRECTS = 10 };

typedef struct transfer { const data_fetch *f; int64_t had; } transfer;

static int on_progress(void *ctx, curl_off_t of, curl_off_t at, curl_off_t up_of, curl_off_t up_at)
{
    const transfer *t = ctx;
    (void)up_of; (void)up_at;
    if (t->f->progress) t->f->progress(t->f->ctx, t->had + at, of ? t->had + of : t->f->bytes);
    return 0;
}

static int64_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_size : 0;
}

/* One transfer that begins at byte `from`. */
static CURLcode transfer_from(const data_fetch *f, int64_t from, char *error)
{
    transfer t = { f, from };
    CURL *c = curl_easy_init();
    FILE *out = fopen(f->path, from ? "ab" : "wb");
    CURLcode rc = c && out ? CURLE_OK : CURLE_WRITE_ERROR;
    if (rc == CURLE_OK) {
        curl_easy_setopt(c, CURLOPT_URL, f->url);
        curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
        curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
        curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
        curl_easy_setopt(c, CURLOPT_MAXREDIRS, (long)REDIRECTS);
        curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
        curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
        curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)STALL_SECONDS);
        curl_easy_setopt(c, CURLOPT_USERAGENT, "harness");
        curl_easy_setopt(c, CURLOPT_ERRORBUFFER, error);
        curl_easy_setopt(c, CURLOPT_WRITEDATA, out);
        curl_easy_setopt(c, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)from);
        curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
        curl_easy_setopt(c, CURLOPT_XFERINFODATA, &t);
        rc = curl_easy_perform(c);
    }
    long status = 0;
    if (c) curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
    if (out && fclose(out) != 0 && rc == CURLE_OK) rc = CURLE_WRITE_ERROR;
    curl_easy_cleanup(c);
    return rc == CURLE_HTTP_RETURNED_ERROR && status == 416 ? CURLE_RANGE_ERROR : rc;
}

/* A server that gives no ranges, or has no more bytes than there are here, is asked for the whole file. */
int io_fetch(const data_fetch *f, char *why, size_t nwhy)
{
    char error[CURL_ERROR_SIZE] = "";
    const int64_t had = size_of(f->path);
    if (f->bytes && had == f->bytes) return 0;
    CURLcode rc = transfer_from(f, f->bytes && had > f->bytes ? 0 : had, error);
    if (rc == CURLE_RANGE_ERROR && had > 0) rc = transfer_from(f, 0, error);
    if (rc == CURLE_OK) return 0;
    snprintf(why, nwhy, "%s: %s; what arrived is kept, the same command goes on", f->url, *error ? error : curl_easy_strerror(rc));
    return -1;
}
