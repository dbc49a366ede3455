/* main.c - finds the command and hands over. */
#include "../kernels/kernels.h"
#include "command.h"
#include "env.h"
#include "plan.h"
#include <stdio.h>
#include <string.h>

/* k_blas_init may start the program anew with another kernel set, so nothing comes before it. */
int main(int argc, char **argv)
{
    k_blas_init(argv);
    const char *name = argc > 1 ? argv[1] : "";
    const hs_command *command = hs_command_find(name);
    if (command) return command->run(argc - 1, argv + 1);
    if (!strcmp(name, "--version")) return printf("%s\n", hs_version()) > 0 ? HS_EXIT_OK : HS_EXIT_FAILED;
    if (!strcmp(name, "-h") || !strcmp(name, "--help") || !strcmp(name, "help")) return hs_help();
    if (*name) return hs_unknown_command(name);
    hs_help();
    return HS_EXIT_USAGE;
}
