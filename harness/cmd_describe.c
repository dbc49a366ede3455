/* cmd_describe.c - `harness describe [--fd N] FILE.so`: loads one plug-in and says what it holds, as one line of
 * JSON: {"variants":[..],"tasks":[..]} or {"refused":"sentence"}.  A child of the catalog runs it. */
#include "command.h"
#include "plan.h"
#include "plugin.h"
#include "protocol.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Ends without running the plug-in's destructors: they may do what they like, and the answer is out. */
int cmd_describe(int argc, char **argv)
{
    const hs_command *self = hs_command_find("describe");
    int fd = STDOUT_FILENO;
    hs_plugin plugin;
    char why[PATH_MAX + 512];
    if (argc == 2 && !strcmp(argv[1], "-h")) return hs_usage(self, NULL);
    if (argc == 4 && !strcmp(argv[1], "--fd")) fd = atoi(argv[2]);
    else if (argc != 2) return hs_usage(self, "one file is expected");
    int refused = hs_plugin_open(argv[argc - 1], &plugin, why, sizeof why);
    json_t *said = refused ? json_pack("{s:o}", "refused", hs_json_text(why)) : hs_plugin_describe(&plugin);
    int written = hs_line_write(fd, said);
    _exit(refused ? HS_EXIT_PLUGIN : written ? HS_EXIT_FAILED : HS_EXIT_OK);
}
