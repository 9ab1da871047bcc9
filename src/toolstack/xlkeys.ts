/**
 * The names that xl.cfg(5) knows (Xen 4.17), and those that xl reads without documenting, with what Domus makes of them.
 */

/** Obeyed now. */
const BUILT = "name type kernel ramdisk cmdline root extra memory maxmem vcpus maxvcpus pool cpus cpus_soft cpu_weight cap period budget extratime on_poweroff on_reboot on_crash uuid disk vif channel p9";

/** Known, and ignored with a warning until they are built; by the manual's sections. */
const NOT_YET = {
  "Selecting Guest Type": "builder",
  "CPU Scheduling": "slice latency",
  "Guest Virtual NUMA Configuration": "vnuma",
  "Event Actions": "on_watchdog on_soft_reset",
  "Non direct Kernel Boot": "firmware firmware_override pvshim pvshim_path pvshim_cmdline pvshim_extra",
  "Other Options": "seclabel init_seclabel max_grant_frames max_maptrack_frames max_grant_version nomigrate driver_domain device_tree passthrough "
    + "xend_suspend_evtchn_compat vmtrace_buf_kb vpmu xenstore_quota",
  Devices: "vif2 vtpm pvcalls vfb rdm usbctrl usbdev pci pci_permissive pci_msitranslate pci_seize pci_power_mgmt gfx_passthru "
    + "rdm_mem_boundary dtdev ioports iomem irqs max_event_channels vdispl dm_restrict device_model_user vsnd vkb virtio tee",
  "Paravirtualised (PV) Guest Specific Options": "bootloader bootloader_args e820_host",
  "Boot Device": "boot",
  "Emulated disk controller type": "hdtype",
  Paging: "hap oos shadow_memory",
  "Processor and Platform Features": "bios bios_path_override pae acpi acpi_s3 acpi_s4 acpi_laptop_slate apic nx hpet altp2m altp2mhvm nestedhvm cpuid "
    + "acpi_firmware smbios_firmware ms_vm_genid smbios",
  "Guest Virtual Time Controls": "tsc_mode localtime rtc_timeoffset vpt_align timer_mode",
  "Memory layout": "mmio_hole",
  "Support for Paravirtualisation of HVM Guests": "xen_platform_pci viridian",
  "Emulated VGA Graphics Device": "videoram stdvga vga vnc vnclisten vncdisplay vncunused vncpasswd vncviewer keymap sdl display xauthority opengl nographic",
  "Spice Graphics Support": "spice spicehost spiceport spicetls_port spicedisable_ticketing spicepasswd spiceagent_mouse spicevdagent "
    + "spice_clipboard_sharing spiceusbredirection spice_image_compression spice_streaming_video",
  "Miscellaneous Emulated Hardware": "serial soundhw vkb_device usb usbversion usbdevice vendor_device",
  "Device-Model Options": "device_model device_model_version device_model_override stubdomain_kernel stubdomain_cmdline stubdomain_ramdisk stubdomain_memory "
    + "device_model_stubdomain_override device_model_stubdomain_seclabel device_model_args device_model_args_pv device_model_args_hvm",
  "Architecture Specific options": "gic_version vuart mca_caps msr_relaxed",
} as const;

/** Every known name: `built`, or the section of xl.cfg(5) that describes it. */
export const XL_KEYS: ReadonlyMap<string, "built" | keyof typeof NOT_YET> = new Map([
  ...BUILT.split(" ").map((name) => [name, "built"] as const),
  ...(Object.keys(NOT_YET) as (keyof typeof NOT_YET)[]).flatMap((section) => NOT_YET[section].split(" ").map((name) => [name, section] as const)),
]);

/** Insertions, deletions, replacements and swaps of neighbours between two words. */
export function editDistance(a: string, b: string): number {
  let before: number[] = [], last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min(row[j - 1]! + 1, last[j]! + 1, last[j - 1]! + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, before[j - 2]! + 1);
      row.push(best);
    }
    before = last;
    last = row;
  }
  return last[b.length]!;
}

/** The known word that a user most likely meant, or null where none is near. Equal distances: the one that shares the longer beginning. */
export function nearest(word: string, known: Iterable<string>): string | null {
  const wanted = word.toLowerCase().slice(0, 64), limit = Math.max(1, Math.floor(wanted.length / 3));
  const shared = (a: string): number => { let n = 0; while (n < a.length && a[n] === wanted[n]) n++; return n; };
  let best: { name: string; distance: number } | null = null;
  for (const name of known) {
    if (Math.abs(name.length - wanted.length) > limit) continue;
    const distance = editDistance(wanted, name);
    if (distance <= limit && (!best || distance < best.distance || (distance === best.distance && shared(name) > shared(best.name)))) best = { name, distance };
  }
  return best?.name ?? null;
}
