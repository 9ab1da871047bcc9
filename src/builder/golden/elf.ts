/** Makes small ELF files for tests. */
export type ElfRecipe = {
  bits: 32 | 64;
  machine?: number;
  type?: number;
  entry?: number;
  segments?: readonly { paddr: number; vaddr?: number; bytes: Uint8Array; memsz?: number; flags?: number }[];
  notes?: readonly Uint8Array[];
  noteAlign?: number;
  /** put the notes into a section instead of a segment */
  noteSection?: boolean;
};

/** One note, padded. */
export function note(owner: string, type: number, value: Uint8Array | string, align = 4): Uint8Array {
  const name = new TextEncoder().encode(`${owner}\0`), desc = typeof value === "string" ? new TextEncoder().encode(value) : value;
  const descAt = Math.ceil((12 + name.length) / align) * align, b = new Uint8Array(descAt + Math.ceil(desc.length / align) * align), view = new DataView(b.buffer);
  view.setUint32(0, name.length, true);
  view.setUint32(4, desc.length, true);
  view.setUint32(8, type, true);
  b.set(name, 12);
  b.set(desc, descAt);
  return b;
}

/** The header, the tables, then the contents in order; the file ends with the last byte that matters. */
export function makeElf({ bits, machine = bits === 64 ? 62 : 3, type = 2, entry = 0, segments = [], notes = [], noteAlign = 4, noteSection = false }: ElfRecipe): Uint8Array<ArrayBuffer> {
  const is64 = bits === 64, [ehsize, phsize, shsize] = is64 ? [64, 56, 64] as const : [52, 32, 40] as const;
  const noteBytes = Uint8Array.from(notes.flatMap((n) => [...n])), hasNotes = notes.length > 0;
  const phnum = segments.length + (hasNotes && !noteSection ? 1 : 0), shnum = hasNotes && noteSection ? 1 : 0;
  let end = ehsize + phnum * phsize + shnum * shsize;
  const place = (n: number): number => (end += n) - n;
  const contents = segments.map((s) => ({ at: place(s.bytes.length), bytes: s.bytes })), noteAt = place(noteBytes.length);
  const b = new Uint8Array(end), view = new DataView(b.buffer);
  /** Write consecutive fields; "w" is a word of the class, "h" two bytes, "i" four. */
  const fields = (at: number, ...values: [kind: "w" | "h" | "i", value: number][]): void => {
    for (const [kind, value] of values) {
      if (kind === "w" && is64) view.setBigUint64(at, BigInt(value), true);
      else if (kind === "h") view.setUint16(at, value, true);
      else view.setUint32(at, value, true);
      at += kind === "h" ? 2 : kind === "w" && is64 ? 8 : 4;
    }
  };
  b.set([0x7f, 0x45, 0x4c, 0x46, is64 ? 2 : 1, 1, 1]);
  const shoff = ehsize + phnum * phsize;
  fields(16, ["h", type], ["h", machine], ["i", 1], ["w", entry], ["w", ehsize], ["w", shnum ? shoff : 0], ["i", 0], ["h", ehsize], ["h", phsize], ["h", phnum], ["h", shsize], ["h", shnum]);
  const phdr = (i: number, p_type: number, flags: number, offset: number, vaddr: number, paddr: number, filesz: number, memsz: number, align: number): void => {
    const at = ehsize + i * phsize;
    if (is64) fields(at, ["i", p_type], ["i", flags], ["w", offset], ["w", vaddr], ["w", paddr], ["w", filesz], ["w", memsz], ["w", align]);
    else fields(at, ["i", p_type], ["i", offset], ["i", vaddr], ["i", paddr], ["i", filesz], ["i", memsz], ["i", flags], ["i", align]);
  };
  segments.forEach((s, i) => {
    phdr(i, 1, s.flags ?? 5, contents[i]?.at ?? 0, s.vaddr ?? s.paddr, s.paddr, s.bytes.length, s.memsz ?? s.bytes.length, 4096);
    b.set(s.bytes, contents[i]?.at);
  });
  if (hasNotes && !noteSection) phdr(segments.length, 4, 4, noteAt, 0, 0, noteBytes.length, noteBytes.length, noteAlign);
  if (shnum) fields(shoff, ["i", 0], ["i", 7], ["w", 0], ["w", 0], ["w", noteAt], ["w", noteBytes.length], ["i", 0], ["i", 0], ["w", noteAlign], ["w", 0]);
  b.set(noteBytes, noteAt);
  return b;
}
