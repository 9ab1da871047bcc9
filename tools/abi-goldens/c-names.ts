/**
 * How our names are spelled in Xen's headers. The rule: a struct in PascalCase is C's snake_case tag with fields of the same
 * names; a table X has members X_key; a lone constant has its own name. This table states the exceptions, a module of src/abi a row.
 */
export type ModuleNames = {
  /** header under the include directory's xen/ */
  header: string;
  /** struct name to C type, where the rule does not give it */
  types?: Record<string, string>;
  /** struct name to its size in C, where ours is only the part before a flexible array */
  sizes?: Record<string, string>;
  /** "Struct.field" to the member's path, where a union stands in the way */
  fields?: Record<string, string>;
  /** table name to its members' prefix, or member by member ("TABLE.key") to a C expression; lone names too */
  constants?: Record<string, string>;
  /** what the header does not have: our own helpers, and values it gives in comments only */
  ours?: readonly string[];
};

export const MODULES: Readonly<Record<string, ModuleNames>> = {
  "xen": {
    header: "xen.h",
    types: { StartInfoConsoleDom0: "struct start_info" },
    fields: {
      "StartInfo.console_mfn": "console.domU.mfn", "StartInfo.console_evtchn": "console.domU.evtchn",
      "StartInfoConsoleDom0.info_off": "console.dom0.info_off", "StartInfoConsoleDom0.info_size": "console.dom0.info_size",
    },
    constants: { HYPERVISOR: "__HYPERVISOR_" },
    ours: ["XEN_ULONG_BITS", "XEN_PAGE_SIZE", "XEN_PAGE_SHIFT"],
  },
  "arch-x86/xen": { header: "arch-x86/xen.h", ours: ["XEN_EMULATE_PREFIX"] },
  "arch-x86/cpuid": {
    header: "arch-x86/cpuid.h",
    ours: ["XEN_CPUID_LEAF", "XEN_HYPERCALL_MSR", "XEN_HYPERCALL_MSR_VIRIDIAN", "HYPERCALL_STUB_BYTES"],
  },
  "event_channel": {
    header: "event_channel.h",
    types: {
      EvtchnStatusUnbound: "struct evtchn_status", EvtchnStatusInterdomain: "struct evtchn_status",
      EvtchnStatusPirq: "struct evtchn_status", EvtchnStatusVirq: "struct evtchn_status",
    },
    fields: {
      "EvtchnStatusUnbound.dom": "u.unbound.dom", "EvtchnStatusInterdomain.dom": "u.interdomain.dom",
      "EvtchnStatusInterdomain.port": "u.interdomain.port", "EvtchnStatusPirq.pirq": "u.pirq", "EvtchnStatusVirq.virq": "u.virq",
    },
    constants: {
      "EVENT_WORD.PENDING": "(int)(1U << EVTCHN_FIFO_PENDING)", "EVENT_WORD.MASKED": "1 << EVTCHN_FIFO_MASKED",
      "EVENT_WORD.LINKED": "1 << EVTCHN_FIFO_LINKED", "EVENT_WORD.BUSY": "1 << EVTCHN_FIFO_BUSY", "EVENT_WORD.LINK_MASK": "EVTCHN_FIFO_LINK_MASK",
    },
  },
  "grant_table": {
    header: "grant_table.h",
    types: { GrantEntryV2FullPage: "union grant_entry_v2", GnttabCopyPtrGmfn: "struct gnttab_copy_ptr" },
    fields: {
      "GrantEntryV2FullPage.flags": "full_page.hdr.flags", "GrantEntryV2FullPage.domid": "full_page.hdr.domid",
      "GrantEntryV2FullPage.pad0": "full_page.pad0", "GrantEntryV2FullPage.frame": "full_page.frame",
      "GnttabCopyPtr.ref": "u.ref", "GnttabCopyPtrGmfn.gmfn": "u.gmfn", "GnttabCacheFlush.dev_bus_addr": "a.dev_bus_addr",
    },
  },
  "sched": { header: "sched.h" },
  "vcpu": { header: "vcpu.h" },
  "memory": { header: "memory.h", fields: { "XenAddToPhysmapBatch.foreign_domid": "u.foreign_domid" }, ours: ["MEMOP_EXTENT_SHIFT"] },
  "hvm/e820": { header: "hvm/e820.h", ours: ["E820", "E820Entry"] },
  "hvm/hvm_op": { header: "hvm/hvm_op.h" },
  "hvm/params": { header: "hvm/params.h" },
  "hvm/save": {
    header: "hvm/save.h",
    sizes: { HvmMsr: "offsetof(struct hvm_msr, msr)" },
    types: { HvmOneMsr: "__typeof__(((struct hvm_msr *)0)->msr[0])" },
    fields: { "HvmHwCpuXsave.fpu_sse": "save_area.fpu_sse", "HvmHwCpuXsave.xsave_hdr": "save_area.xsave_hdr" },
    constants: { "HVM_SAVE_CODE": "HVM_SAVE_CODE_", ...Object.fromEntries(["END", "HEADER", "CPU", "PIC", "IOAPIC", "LAPIC", "LAPIC_REGS", "PCI_IRQ", "ISA_IRQ", "PCI_LINK", "PIT", "RTC", "HPET", "PMTIMER", "MTRR", "VIRIDIAN_DOMAIN", "VIRIDIAN_VCPU", "VMCE_VCPU", "TSC_ADJUST"].map((t) => [`HVM_SAVE_CODE.${t}`, `(int)HVM_SAVE_CODE(${t})`])), "HVM_SAVE_CODE.CPU_XSAVE": "CPU_XSAVE_CODE", "HVM_SAVE_CODE.CPU_MSR": "CPU_MSR_CODE" },
  },
  "features": { header: "features.h" },
  "version": {
    header: "version.h",
    constants: { XEN_COMMANDLINE_LEN: "sizeof(xen_commandline_t)", XEN_GUEST_HANDLE_LEN: "sizeof(xen_domain_handle_t)" },
  },
  "physdev": { header: "physdev.h" },
  "platform": { header: "platform.h" },
  "callback": { header: "callback.h" },
  "nmi": { header: "nmi.h" },
  "errno": { header: "errno.h", ours: ["EINTR", "ERESTART"] },
  "io/ring": { header: "io/ring.h", types: { SRING: "struct probe_sring" }, sizes: { SRING: "offsetof(struct probe_sring, ring)" }, ours: ["ringSize"] },
  "io/xs_wire": { header: "io/xs_wire.h", ours: ["XSD_ERRORS"] },
  "io/console": { header: "io/console.h" },
  "io/xenbus": { header: "io/xenbus.h", constants: { XenbusState: "XenbusState" } },
  "io/blkif": { header: "io/blkif.h", constants: { BLKIF_SLOT_BYTES: "sizeof(union blkif_sring_entry)" } },
  "io/9pfs": { header: "io/9pfs.h", types: { Xen9pfsDataIntf: "struct xen_9pfs_data_intf" }, ours: ["flexRingBytes"] },
  "io/netif": {
    header: "io/netif.h",
    types: { NetifExtraInfoMcast: "struct netif_extra_info", NetifExtraInfoHash: "struct netif_extra_info" },
    fields: {
      "NetifExtraInfo.gso_size": "u.gso.size", "NetifExtraInfo.gso_type": "u.gso.type", "NetifExtraInfo.gso_pad": "u.gso.pad",
      "NetifExtraInfo.gso_features": "u.gso.features", "NetifExtraInfoMcast.addr": "u.mcast.addr",
      "NetifExtraInfoHash.hash_type": "u.hash.type", "NetifExtraInfoHash.algorithm": "u.hash.algorithm", "NetifExtraInfoHash.value": "u.hash.value",
    },
    constants: { NETIF_TX_SLOT_BYTES: "sizeof(union netif_tx_sring_entry)", NETIF_RX_SLOT_BYTES: "sizeof(union netif_rx_sring_entry)" },
  },
  "start_info": { header: "arch-x86/hvm/start_info.h" },
  "elfnote": { header: "elfnote.h" },
  "io/protocols": { header: "io/protocols.h" },
};
/** Modules of src/abi that follow another law than Xen's headers. */
export const NOT_FROM_XEN: readonly string[] = [];
