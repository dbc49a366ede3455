/* env.c - this machine and this build. */
#include "env.h"
#include "../kernels/kernels.h"
#include "attn.h"
#include "gpu.h"
#include "protocol.h"
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifndef HS_GIT
#define HS_GIT "unknown"
#endif
#ifndef HS_CFLAGS
#define HS_CFLAGS "unknown"
#endif
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

/* See env.h. */
const char *hs_version(void)
{
    return "harness " HS_GIT " (ABI " TEXT(ATTN_ABI_MAJOR) ")";
}

/* The first line of a file without its newline, cleaned; null when there is none. */
static json_t *line_json(const char *path)
{
    char line[256] = "";
    FILE *f = fopen(path, "r");
    if (!f) return json_null();
    if (!fgets(line, sizeof line, f)) *line = 0;
    fclose(f);
    line[strcspn(line, "\n")] = 0;
    return *line ? hs_json_text(line) : json_null();
}

/* The value of `KEY: value` or `KEY=value` in a file of such lines, quotes taken off; null when there is none. */
static json_t *field_json(const char *path, const char *key)
{
    char line[512], *value = NULL;
    size_t n = strlen(key);
    FILE *f = fopen(path, "r");
    if (!f) return json_null();
    while (!value && fgets(line, sizeof line, f))
        if (!strncmp(line, key, n) && line[n] && strchr(" \t:=", line[n])) value = line + n + strspn(line + n, " \t:=\"");
    fclose(f);
    if (!value) return json_null();
    value[strcspn(value, "\"\n")] = 0;
    return hs_json_text(value);
}

/* The first line that a command prints; null when it cannot be run.  Fixed commands only. */
static json_t *command_json(const char *command)
{
    char line[256] = "";
    FILE *f = popen(command, "r");
    if (!f) return json_null();
    if (!fgets(line, sizeof line, f)) *line = 0;
    int status = pclose(f);
    line[strcspn(line, "\n")] = 0;
    return status || !*line ? json_null() : hs_json_text(line);
}

/* Caches of the first core, "L1d 32K, L1i 32K, L2 512K, L3 16384K"; null when the kernel does not tell. */
static json_t *caches_json(void)
{
    char out[256] = "", path[128];
    for (int i = 0; i < 8; i++) {
        const char *const leaf[] = { "level", "type", "size" };
        json_t *field[3];
        for (int j = 0; j < 3; j++) {
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", i, leaf[j]);
            field[j] = line_json(path);
        }
        const char *level = json_string_value(field[0]), *type = json_string_value(field[1]), *size = json_string_value(field[2]);
        size_t used = strlen(out);
        if (level && type && size)
            snprintf(out + used, sizeof out - used, "%sL%s%s %s", used ? ", " : "", level,
                     *type == 'D' ? "d" : *type == 'I' ? "i" : "", size);
        for (int j = 0; j < 3; j++) json_decref(field[j]);
    }
    return *out ? json_string(out) : json_null();
}

/* The GPU as CUDA, the driver and its limits tell; a sentence on a machine without one. */
static json_t *gpu_json(void)
{
    const char *text;
    if (!hs_gpu_ask(&text)) return hs_json_text(text);
    return json_pack("{s:o, s:o, s:o}", "gpu", hs_json_text(text), "driver", line_json("/proc/driver/nvidia/version"),
                     "limits", command_json("nvidia-smi --query-gpu=power.limit,clocks.max.sm,clocks.max.memory,ecc.mode.current,mig.mode.current"
                                            " --format=csv,noheader 2>/dev/null"));
}

/* See env.h. */
json_t *hs_env_json(void)
{
    char host[256] = "";
    struct utsname os = { 0 };
    double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    gethostname(host, sizeof host - 1);
    uname(&os);
    return json_pack("{s:o, s:o, s:i, s:o, s:I, s:o, s:o, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:s, s:o, s:s}",
        "host", hs_json_text(host), "cpu", hs_json_text(k_cpu_describe()),
        "cores", (int)sysconf(_SC_NPROCESSORS_ONLN), "caches", caches_json(), "memory_bytes", (json_int_t)memory,
        "governor", line_json("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "blas", hs_json_text(k_blas_describe()), "compiler", COMPILER, "flags", HS_CFLAGS, "git", HS_GIT,
        "system", field_json("/etc/os-release", "PRETTY_NAME"), "kernel", hs_json_text(os.release),
        "gpu", gpu_json(), "gnuplot", command_json("gnuplot --version 2>/dev/null"), "sqlite", sqlite3_libversion(),
        "threads", getenv("OMP_NUM_THREADS") ? hs_json_text(getenv("OMP_NUM_THREADS")) : json_null(),
        "version", hs_version());
}
