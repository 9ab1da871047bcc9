/** All verbs of xl, in the order of xl's own help; those that are not built say so. */
import { CPU_VERBS } from "./cpus.ts";
import { DEVICE_VERBS } from "./devices.ts";
import { DOMAIN_VERBS } from "./domains.ts";
import { LISTING_VERBS } from "./listings.ts";
import { SAVE_VERBS } from "./save.ts";
import type { Verb } from "./verb.ts";

/** Known and not built, with what they are about. */
const NOT_BUILT: Readonly<Record<string, string>> = {
  "pci-attach": "Pass a PCI device through", "pci-detach": "Take a PCI device back", "pci-list": "List PCI devices passed through", "pci-assignable-add": "Make a PCI device assignable", "pci-assignable-remove": "Make it the host's again", "pci-assignable-list": "List assignable PCI devices",
  vncviewer: "Be on a domain's screen", "button-press": "Press an ACPI button of a guest", sharing: "Tell about page sharing", "set-parameters": "Change the hypervisor's parameters",
  "vtpm-attach": "Give a domain a virtual TPM", "vtpm-list": "List virtual TPMs", "vtpm-detach": "Take a virtual TPM away", "vkb-attach": "Give a domain a virtual keyboard", "vkb-list": "List virtual keyboards", "vkb-detach": "Take a virtual keyboard away",
  "vdispl-attach": "Give a domain a virtual display", "vdispl-list": "List virtual displays", "vdispl-detach": "Take a virtual display away", "vsnd-attach": "Give a domain a virtual sound device", "vsnd-list": "List virtual sound devices", "vsnd-detach": "Take a virtual sound device away",
  "cpupool-numa-split": "Make a cpupool of each NUMA node", getenforce: "Tell Flask's mode", setenforce: "Set Flask's mode", loadpolicy: "Load a Flask policy", remus: "Keep a copy of a domain on another host", devd: "Serve devices in a driver domain",
  "psr-hwinfo": "Tell about Platform Shared Resource", "psr-cmt-attach": "Monitor a domain's cache", "psr-cmt-detach": "Stop monitoring a domain's cache", "psr-cmt-show": "Show cache monitoring", "psr-cat-set": "Set a domain's cache masks", "psr-cat-show": "Show cache allocation", "psr-mba-set": "Throttle a domain's memory bandwidth", "psr-mba-show": "Show memory bandwidth allocation",
  "usbctrl-attach": "Give a domain a USB controller", "usbctrl-detach": "Take a USB controller away", "usbdev-attach": "Give a domain a USB device", "usbdev-detach": "Take a USB device away", "usb-list": "List USB controllers and devices", "qemu-monitor-command": "Command a domain's QEMU",
  suspend: "Suspend a guest to its memory", resume: "Let a suspended guest go on",
};
const ORDER = `create config-update list destroy shutdown reboot pci-attach pci-detach pci-list pci-assignable-add pci-assignable-remove pci-assignable-list pause unpause console vncviewer save migrate restore migrate-receive migrate-settle dump-core
  cd-insert cd-eject mem-max mem-set button-press vcpu-list vcpu-pin vcpu-set vm-list info sharing sched-credit sched-credit2 sched-rtds domid domname rename trigger sysrq debug-keys set-parameters dmesg top network-attach network-list
  network-detach channel-list block-attach block-list block-detach vtpm-attach vtpm-list vtpm-detach vkb-attach vkb-list vkb-detach vdispl-attach vdispl-list vdispl-detach vsnd-attach vsnd-list vsnd-detach uptime claims cpupool-create
  cpupool-list cpupool-destroy cpupool-rename cpupool-cpu-add cpupool-cpu-remove cpupool-migrate cpupool-numa-split getenforce setenforce loadpolicy remus devd psr-hwinfo psr-cmt-attach psr-cmt-detach psr-cmt-show psr-cat-set
  psr-cat-show psr-mba-set psr-mba-show usbctrl-attach usbctrl-detach usbdev-attach usbdev-detach usb-list qemu-monitor-command suspend resume`.split(/\s+/);
const BUILT = [...DOMAIN_VERBS, ...LISTING_VERBS, ...DEVICE_VERBS, ...CPU_VERBS, ...SAVE_VERBS];

/** The table. */
export const VERBS: readonly Verb[] = ORDER.map((name) => BUILT.find((v) => v.name === name) ?? { name, help: NOT_BUILT[name]!, args: "" });
/** Beginnings that xl takes for a verb: unique ones. xl.c cmdtable_lookup */
export function findVerb(word: string): Verb | null {
  const exact = VERBS.find((v) => v.name === word), near = VERBS.filter((v) => v.name.startsWith(word));
  return exact ?? (near.length === 1 ? near[0]! : null);
}
