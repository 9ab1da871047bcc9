/** public/io/protocols.h: whose struct layout a front end's rings have. */
export const XEN_IO_PROTO_ABI = { X86_32: "x86_32-abi", X86_64: "x86_64-abi", ARM: "arm-abi", NATIVE: "x86_64-abi" } as const;
