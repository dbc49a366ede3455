/* archive.c - compressed files and archives, by libarchive. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "io.h"
#include "internal.h"

enum { BLOCK = 1 << 16 };

static void say(struct archive *a, char *why, size_t nwhy)
{
    const char *text = archive_error_string(a);
    snprintf(why, nwhy, "%s", text ? text : "it cannot be unpacked");
}

void *io_open(const char *path, char *why, size_t nwhy)
{
    struct archive *a = archive_read_new();
    struct archive_entry *entry;
    if (!a) return NULL;
    archive_read_support_filter_gzip(a);
    archive_read_support_filter_xz(a);
    archive_read_support_filter_zstd(a);
    archive_read_support_format_raw(a);
    archive_read_support_format_empty(a);
    if (archive_read_open_filename(a, path, BLOCK) == ARCHIVE_OK) {
        const int rc = archive_read_next_header(a, &entry);
        if (rc == ARCHIVE_OK && archive_filter_count(a) > 1) return a;
        if (rc == ARCHIVE_OK || rc == ARCHIVE_EOF) snprintf(why, nwhy, "it is not compressed as its name says, or it is empty");
        else say(a, why, nwhy);
    } else say(a, why, nwhy);
    archive_read_free(a);
    return NULL;
}

ssize_t io_read(void *stream, void *to, size_t n, char *why, size_t nwhy)
{
    const la_ssize_t got = archive_read_data(stream, to, n);
    if (got >= 0) return got;
    say(stream, why, nwhy);
    return -1;
}

void io_close(void *stream) { archive_read_free(stream); }

/* Whether a name stays inside the folder that it is unpacked into: 0, or why not. */
static const char *name_fault(const char *name)
{
    if (!name || !*name) return "an entry has no name";
    if (*name == '/') return "an entry has an absolute name";
    for (const char *p = name; p; p = strchr(p, '/') ? strchr(p, '/') + 1 : NULL)
        if (!strncmp(p, "..", 2) && (p[2] == '/' || !p[2])) return "an entry leaves its folder";
    return NULL;
}

/* Whether the entry may be unpacked. */
static const char *entry_fault(struct archive_entry *e)
{
    const char *fault = name_fault(archive_entry_pathname(e));
    if (fault) return fault;
    if (archive_entry_hardlink(e) || archive_entry_symlink(e)) return "an entry is a link";
    if (archive_entry_filetype(e) != AE_IFREG && archive_entry_filetype(e) != AE_IFDIR) return "an entry is neither a file nor a folder";
    return NULL;
}

/* The data of the entry at hand into `to`; *left is how many bytes may still come. */
static int copy_entry(struct archive *from, struct archive *to, int64_t *left, char *why, size_t nwhy)
{
    const void *block;
    size_t n;
    la_int64_t at;
    int rc;
    while ((rc = archive_read_data_block(from, &block, &n, &at)) == ARCHIVE_OK) {
        if ((*left -= (int64_t)n) < 0) {
            snprintf(why, nwhy, "it unpacks to more than it should");
            return -1;
        }
        if (archive_write_data_block(to, block, n, at) < ARCHIVE_OK) {
            say(to, why, nwhy);
            return -1;
        }
    }
    if (rc != ARCHIVE_EOF) say(from, why, nwhy);
    return rc == ARCHIVE_EOF ? 0 : -1;
}

/* One entry into the folder. */
static int unpack_entry(struct archive *from, struct archive *to, struct archive_entry *e, const char *folder, int64_t *left, char *why, size_t nwhy)
{
    char path[4096];
    const char *name = archive_entry_pathname(e), *fault = entry_fault(e);
    if (!fault && (size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path) fault = "an entry's name is too long";
    if (fault) {
        snprintf(why, nwhy, "%s: %s", fault, name ? name : "");
        return -1;
    }
    archive_entry_set_pathname(e, path);
    archive_entry_set_perm(e, archive_entry_filetype(e) == AE_IFDIR ? 0755 : 0644);
    if (archive_write_header(to, e) < ARCHIVE_OK) {
        say(to, why, nwhy);
        return -1;
    }
    if (archive_entry_filetype(e) == AE_IFREG && copy_entry(from, to, left, why, nwhy) != 0) return -1;
    if (archive_write_finish_entry(to) >= ARCHIVE_OK) return 0;
    say(to, why, nwhy);
    return -1;
}

int io_unpack(const char *archive, const char *folder, int64_t most, char *why, size_t nwhy)
{
    struct archive *from = archive_read_new(), *to = archive_write_disk_new();
    struct archive_entry *e;
    int rc = from && to ? 0 : -1, next = ARCHIVE_EOF, entries = 0;
    if (rc == 0) {
        archive_read_support_filter_all(from);
        archive_read_support_format_tar(from);
        archive_read_support_format_zip(from);
        archive_write_disk_set_options(to, ARCHIVE_EXTRACT_SECURE_NODOTDOT | ARCHIVE_EXTRACT_SECURE_SYMLINKS);
        if (archive_read_open_filename(from, archive, BLOCK) != ARCHIVE_OK) rc = -1;
    }
    while (rc == 0 && (next = archive_read_next_header(from, &e)) == ARCHIVE_OK) {
        rc = unpack_entry(from, to, e, folder, &most, why, nwhy);
        entries++;
        if (rc != 0) goto out;
    }
    if (rc == 0 && next == ARCHIVE_EOF && entries > 0) goto out;
    rc = -1;
    if (from && next == ARCHIVE_EOF && entries == 0 && !archive_error_string(from)) snprintf(why, nwhy, "it is not an archive, or it is empty");
    else if (from) say(from, why, nwhy);
out:
    archive_read_free(from);
    archive_write_free(to);
    return rc;
}
