/*
 * Lets Debian's xenstored run without Xen, for oracle.test.ts: preloaded, it stands in for the libraries that ask Xen for pages and events. Domains are
 * the files ring-<domid> in $XENSTORED_RUNDIR, their store pages; a byte into the FIFO "events" there is an event: 'v' tells of domains that came or went.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define VIRQ_PORT 2
#define OTHER_PORT 3

static int events = -1;
static char handle;

static int open_beside(const char *name, int flags)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", getenv("XENSTORED_RUNDIR"), name);
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open"))(path, flags, 0600);
}

/* /proc/xen has dom0's own page and port. */
int open(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (strcmp(path, "/proc/xen/xsd_kva") == 0) return open_beside("ring-0", O_RDWR);
    if (strcmp(path, "/proc/xen/xsd_port") == 0) return open_beside("port", O_RDONLY);
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open"))(path, flags, mode);
}

void *xenevtchn_open(void *logger, unsigned int flags) { events = open_beside("events", O_RDWR | O_NONBLOCK); return events < 0 ? NULL : &handle; }
int xenevtchn_fd(void *xce) { return events; }
int xenevtchn_bind_virq(void *xce, unsigned int virq) { return VIRQ_PORT; }
int xenevtchn_bind_interdomain(void *xce, uint32_t domid, uint32_t port) { return OTHER_PORT + 1 + domid; }
int xenevtchn_unbind(void *xce, uint32_t port) { return 0; }
int xenevtchn_notify(void *xce, uint32_t port) { return 0; }
int xenevtchn_unmask(void *xce, uint32_t port) { return 0; }
int xenevtchn_pending(void *xce)
{
    char c;
    if (read(events, &c, 1) != 1) return -1;
    return c == 'v' ? VIRQ_PORT : OTHER_PORT;
}

void *xengnttab_open(void *logger, unsigned int flags) { return &handle; }
int xengnttab_close(void *xgt) { return 0; }
int xengnttab_set_max_grants(void *xgt, uint32_t nr) { return 0; }
int xengnttab_unmap(void *xgt, void *page, uint32_t nr) { return munmap(page, 4096); }
void *xengnttab_map_grant_ref(void *xgt, uint32_t domid, uint32_t ref, int prot)
{
    char name[32];
    snprintf(name, sizeof(name), "ring-%u", domid);
    int fd = open_beside(name, O_RDWR);
    void *page = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, prot, MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    return page == MAP_FAILED ? NULL : page;
}

void *xc_interface_open(void *logger, void *dombuild_logger, unsigned int flags) { return &handle; }
int xc_interface_close(void *xch) { return 0; }
/* xc_dominfo_t begins with the domid; none of its flags is set. */
int xc_domain_getinfo(void *xch, uint32_t first, unsigned int most, void *info)
{
    char name[32];
    for (uint32_t domid = first; domid < 100; domid++) {
        snprintf(name, sizeof(name), "ring-%u", domid);
        int fd = open_beside(name, O_RDONLY);
        if (fd < 0) continue;
        close(fd);
        memset(info, 0, 16);
        memcpy(info, &domid, sizeof(domid));
        return 1;
    }
    return 0;
}
