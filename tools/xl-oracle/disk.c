/*
 * Asks Xen's own libraries what a disk specification means: libxlu parses it, libxl numbers its vdev.
 * Input: records that end with a NUL; a record is one or more specifications of one disk, 0x01 between them.
 * Output: a JSON object a line and record. "error" is libxlu's first message, or null.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <libxlutil.h>

/* Not in the headers; the static library has it. libxl_device.c */
int libxl__device_disk_dev_number(const char *virtpath, int *disk, int *partition);

static void string(const char *key, const char *s) {
    printf("\"%s\":", key);
    if (!s) { printf("null,"); return; }
    putchar('"');
    for (; *s; s++)
        if (*s == '"' || *s == '\\' || (unsigned char)*s < 32 || *s == 127) printf("\\u%04x", (unsigned char)*s); else putchar(*s);
    printf("\",");
}
static void number(const char *key, long n) { printf("\"%s\":%ld,", key, n); }
/* A libxl_defbool: -1 where it was not set. */
static void flag(const char *key, libxl_defbool b) { number(key, libxl_defbool_is_default(b) ? -1 : libxl_defbool_val(b)); }

static void record(char *text) {
    const char *specs[16];
    int n = 0;
    for (char *s = strtok(text, "\x01"); n < 16 && (s || !n); s = strtok(NULL, "\x01")) specs[n++] = s ? s : "";
    char *said = NULL;
    size_t length = 0;
    FILE *report = open_memstream(&said, &length);
    XLU_Config *config = xlu_cfg_init(report, "oracle");
    libxl_device_disk disk;
    libxl_device_disk_init(&disk);
    int failed = xlu_disk_parse(config, n, specs, &disk);
    fclose(report);
    strtok(said, "\n");
    putchar('{');
    string("error", failed ? said : NULL);
    string("target", disk.pdev_path);
    string("vdev", disk.vdev);
    string("script", disk.script);
    string("backend", disk.backend_domname);
    string("coloHost", disk.colo_host);
    string("coloExport", disk.colo_export);
    string("activeDisk", disk.active_disk);
    string("hiddenDisk", disk.hidden_disk);
    number("coloPort", disk.colo_port);
    number("format", disk.format);
    number("backendtype", disk.backend);
    number("specification", disk.specification);
    number("isCdrom", disk.is_cdrom);
    number("isWritable", disk.readwrite);
    number("directIoSafe", disk.direct_io_safe);
    flag("discard", disk.discard_enable);
    flag("trusted", disk.trusted);
    flag("colo", disk.colo_enable);
    printf("\"device\":%d}\n", disk.vdev ? libxl__device_disk_dev_number(disk.vdev, NULL, NULL) : -1);
    free(said);
}

int main(void) {
    char *text = NULL;
    size_t room = 0;
    while (getdelim(&text, &room, 0, stdin) > 0) record(text);
    return 0;
}
