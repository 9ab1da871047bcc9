/** Entry of the worker that does a page's file operations: synchronous access handles are to be had in workers only. File System standard, "FileSystemSyncAccessHandle". */
import type { DiskFault } from "./disk.ts";
import type { FromOpfs, OpfsResult, StoredFile, ToOpfs } from "./opfs-messages.ts";

type Handle = { read(into: Uint8Array, at: { at: number }): number; write(from: Uint8Array, at: { at: number }): number; truncate(bytes: number): void; getSize(): number; flush(): void; close(): void };
type Folder = FileSystemDirectoryHandle & { values(): AsyncIterable<FileSystemHandle> };
const FOLDER = "domus";
const FAULTS: Readonly<Record<string, readonly [DiskFault, string]>> = {
  NotFoundError: ["missing", "there is no such file in this browser"], NoModificationAllowedError: ["busy", "it is in use: a domain of this tab or another has it open"],
  QuotaExceededError: ["nospace", "the browser gives this page no more room; delete files or free some space on its disk"], TypeMismatchError: ["unsupported", "it is a folder"],
};

const handles = new Map<number, { readonly name: string; readonly handle: Handle }>();
let nextFile = 1;
const folder = async (): Promise<Folder> => (await navigator.storage.getDirectory()).getDirectoryHandle(FOLDER, { create: true }) as Promise<Folder>;
const find = (file: number): Handle => {
  const found = handles.get(file);
  if (!found) throw new DOMException("closed", "InvalidStateError");
  return found.handle;
};

async function mustBeFree(dir: Folder, name: string): Promise<void> {
  if (await dir.getFileHandle(name).then(() => true, () => false)) throw Object.assign(new Error("exists"), { fault: "exists" });
}
async function openFile(name: string, mode: "read" | "write" | "create"): Promise<OpfsResult> {
  const dir = await folder();
  if (mode === "create") await mustBeFree(dir, name);
  const file = await dir.getFileHandle(name, { create: mode === "create" }) as FileSystemFileHandle & { createSyncAccessHandle(o: { mode: string }): Promise<Handle> };
  const handle = await file.createSyncAccessHandle({ mode: mode === "read" ? "read-only" : "readwrite" });
  handles.set(nextFile, { name, handle });
  return { file: nextFile++, sizeBytes: handle.getSize() };
}
async function list(): Promise<OpfsResult> {
  const files: StoredFile[] = [];
  for await (const entry of (await folder()).values()) {
    if (entry.kind !== "file") continue;
    const file = await (entry as FileSystemFileHandle).getFile();
    files.push({ name: entry.name, sizeBytes: file.size, changedMs: file.lastModified });
  }
  return { files: files.sort((a, b) => (a.name < b.name ? -1 : 1)) };
}

async function serve(m: ToOpfs): Promise<OpfsResult> {
  switch (m.op) {
    case "open": return openFile(m.name, m.mode);
    case "read": {
      const bytes = new Uint8Array(m.lengthBytes);
      find(m.file).read(bytes, { at: m.at });      // short at the end: the rest stays zero
      return { bytes };
    }
    case "write": {
      for (let done = 0; done < m.bytes.length;) {
        const n = find(m.file).write(m.bytes.subarray(done), { at: m.at + done });
        if (n === 0) throw new DOMException("full", "QuotaExceededError");
        done += n;
      }
      return {};
    }
    case "truncate": find(m.file).truncate(m.sizeBytes); return {};
    case "flush": find(m.file).flush(); return {};
    case "close":
      handles.get(m.file)?.handle.close();
      handles.delete(m.file);
      return {};
    case "list": return list();
    case "rename": {
      const dir = await folder();
      await mustBeFree(dir, m.to);
      await (await dir.getFileHandle(m.name) as FileSystemFileHandle & { move(to: string): Promise<void> }).move(m.to);
      return {};
    }
    case "remove": await (await folder()).removeEntry(m.name); return {};
    default: return m satisfies never;
  }
}

const say = (answer: FromOpfs, transfer: Transferable[] = []): void => (globalThis as unknown as { postMessage(m: FromOpfs, t: Transferable[]): void }).postMessage(answer, transfer);
globalThis.onmessage = (event: MessageEvent<ToOpfs>) => {
  const m = event.data, name = "name" in m ? m.name : "file" in m ? handles.get(m.file)?.name ?? "a closed file" : "the browser's files";
  serve(m).then((result) => say({ id: m.id, result }, result.bytes ? [result.bytes.buffer] : []), (e: Error & { fault?: DiskFault }) => {
    const [fault, why] = e.fault === "exists" ? ["exists", "it exists already"] as const : FAULTS[e.name] ?? ["io", e.message] as const;
    say({ id: m.id, fault, message: `${name}: ${why}` });
  });
};
