/** public/platform.h: numbers only; a domU is refused before any argument is read. */
export const XENPF_INTERFACE_VERSION = 0x03000001;
export const XENPF = {
  settime32: 17, add_memtype: 31, del_memtype: 32, read_memtype: 33, microcode_update: 35, platform_quirk: 39, get_cpu_version: 48,
  efi_runtime_call: 49, firmware_info: 50, enter_acpi_sleep: 51, change_freq: 52, getidletime: 53, set_processor_pminfo: 54,
  get_cpuinfo: 55, cpu_online: 56, cpu_offline: 57, cpu_hotadd: 58, mem_hotadd: 59, core_parking: 60, resource_op: 61, settime64: 62,
  get_symbol: 63,
} as const;
