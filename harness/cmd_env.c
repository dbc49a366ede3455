/* cmd_env.c - `harness env [--json]`. */
#include "command.h"
#include "env.h"
#include "plan.h"
#include <stdio.h>
#include <string.h>

/* A name and its value; a map is shown as rows of its own. */
static void print_row(const char *name, const json_t *value)
{
    const char *inner;
    json_t *v;
    if (json_is_object(value)) json_object_foreach((json_t *)value, inner, v) {
        print_row(inner, v);
    }
    else if (json_is_string(value)) printf("%-10s %s\n", name, json_string_value(value));
    else if (json_is_null(value)) printf("%-10s none\n", name);
    else if (!strcmp(name, "memory_bytes")) printf("%-10s %.1f GiB\n", "memory", json_number_value(value) / (1 << 30));
    else printf("%-10s %.15g\n", name, json_number_value(value));
}

/* See command.h. */
int cmd_env(int argc, char **argv)
{
    const hs_command *self = hs_command_find("env");
    int as_json = argc == 2 && !strcmp(argv[1], "--json");
    if (argc == 2 && !strcmp(argv[1], "-h")) return hs_usage(self, NULL);
    if (argc > 1 && !as_json) return hs_usage(self, "only --json is expected");
    json_t *env = hs_env_json();
    const char *name;
    json_t *value;
    if (as_json) {
        json_dumpf(env, stdout, JSON_INDENT(2));
        puts("");
    }
    else json_object_foreach(env, name, value) {
        print_row(name, value);
    }
    json_decref(env);
    return HS_EXIT_OK;
}
