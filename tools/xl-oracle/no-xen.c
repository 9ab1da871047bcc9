/* Preloaded into Debian's xl, so that its dry runs (-n, -N) read configurations where there is no Xen: no handle is ever used. */
#include <stdlib.h>

void *xc_interface_open(void *logger, void *dombuild_logger, unsigned flags) { return calloc(1, 4096); }
int xc_interface_close(void *handle) { return 0; }
int xc_version(void *handle, int cmd, void *arg) { return 0; }
int xc_get_max_cpus(void *handle) { return 4; }
int xc_get_max_nodes(void *handle) { return 1; }
void *xs_open(unsigned long flags) { return calloc(1, 4096); }
void xs_close(void *handle) { }
int libxl_get_physinfo(void *ctx, void *physinfo) { return 0; }
