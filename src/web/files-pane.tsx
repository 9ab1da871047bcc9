/** The files that domains can have: those of the user, kept in this browser, and those beside the page. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { StoredFile } from "../storage/opfs-messages.ts";
import { createDisk, openDisk } from "../storage/open.ts";
import { unzstd } from "../builder/decompress/zstd.ts";
import { type Computer, SAVED_SUFFIX, wordsOf } from "./computer.ts";
import type { ImageEntry } from "./images.ts";
import { announced, consoleTab, open, share, size } from "./ui.ts";

/** Give the user a file. */
export function download(name: string, bytes: Uint8Array<ArrayBuffer>): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes]));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** The panel `Files`. */
export function FilesPane({ computer, isShown }: { readonly computer: Computer; readonly isShown: boolean }) {
  const { shelf } = computer, [files, setFiles] = useState<readonly StoredFile[]>([]), [images, setImages] = useState<readonly ImageEntry[]>([]), [fault, setFault] = useState(""), [doing, setDoing] = useState("");
  const [room, setRoom] = useState<{ usage: number; quota: number } | null>(null), picker = useRef<HTMLInputElement>(null);
  const list = async (): Promise<void> => {
    setFiles(await shelf.files());
    const said = await navigator.storage?.estimate?.().catch(() => null);
    setRoom(said?.quota === undefined ? null : { usage: said.usage ?? 0, quota: said.quota });
  };
  const act = async (what: string, how: () => Promise<unknown>): Promise<void> => {
    setDoing(what);
    setFault("");
    try { await how(); } catch (e) { setFault(wordsOf(e)); announced.value = wordsOf(e); } finally {
      setDoing("");
      await list().catch((e) => setFault(wordsOf(e)));
    }
  };
  useEffect(() => { void shelf.images().then(setImages); }, []);
  useEffect(() => { if (isShown) void list().catch((e) => setFault(wordsOf(e))); }, [isShown]);
  const add = (picked: Iterable<File>): Promise<void> => act("adding", async () => {
    for (const f of picked) await shelf.add(f.name, f, (done) => setDoing(share(f, done)));
  });
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: dropping is a second way beside the button
    <div class="files" onDragOver={(e) => e.preventDefault()} onDrop={(e) => { e.preventDefault(); void add(e.dataTransfer?.files ?? []); }}>
      <div class="tools">
        <button type="button" class="primary" data-first onClick={() => picker.current!.click()}>Add files…</button>
        <input ref={picker} type="file" multiple hidden aria-label="Files to keep in this browser" onChange={(e) => { void add([...(e.currentTarget.files ?? [])]); e.currentTarget.value = ""; }} />
        <span class="dim">or drop them here: kernels, initramfs archives, disk images</span>
        <span class="gap" />
        <span role="status" class="num">{doing}</span>
      </div>
      {fault !== "" && <p class="fault" role="alert">{fault}</p>}
      <section>
        <h2>{shelf.isKept ? "Kept in this browser" : "In this page's memory: this browser keeps no files"}</h2>
        {files.length === 0 ? <p class="dim">No files yet.</p> : (
          <table>
            <thead><tr><th scope="col">Name</th><th scope="col" class="n">Size</th><th scope="col">Changed</th><th scope="col"><span class="hidden">Actions</span></th></tr></thead>
            <tbody>{files.map((f) => (
              <tr key={f.name}><th scope="row" class="mono">{f.name}</th><td class="n">{size(f.sizeBytes)}</td><td class="num">{f.changedMs ? new Date(f.changedMs).toLocaleString() : ""}</td>
                <td class="n">{f.name.endsWith(SAVED_SUFFIX) && <><button type="button" class="primary" aria-label={`Resume ${f.name}`} onClick={() => void act("resuming", async () => { const s = await computer.resume(f.name); open(consoleTab(s)); })}>Resume</button> </>}<button type="button" aria-label={`Download ${f.name}`} onClick={() => void act("reading", async () => download(f.name, await shelf.whole(f.name)))}>Download</button> <button type="button" class="danger" aria-label={`Delete ${f.name}`} onClick={() => void act("deleting", () => shelf.remove(f.name))}>Delete</button></td></tr>
            ))}</tbody>
          </table>
        )}
        {room && <p class="dim num">{size(room.usage)} of {size(room.quota)} that the browser gives this origin are in use.</p>}
      </section>
      <NewDisk computer={computer} files={files} act={act} />
      <section>
        <h2>Beside the page</h2>
        {images.length === 0 ? <p class="dim">This page came without images. Add a kernel and an initramfs of your own above.</p> : <ul class="plain">{images.map((i) => <li key={i.name}>{i.title}: <span class="mono">{i.kernel}</span>, <span class="mono">{i.ramdisk}</span></li>)}</ul>}
      </section>
    </div>
  );
}

const SIZE = /^(\d{1,6}(?:\.\d{1,3})?)\s*([MG])i?B?$/i;
function NewDisk({ computer, files, act }: { readonly computer: Computer; readonly files: readonly StoredFile[]; readonly act: (what: string, how: () => Promise<unknown>) => Promise<void> }) {
  const { store } = computer.shelf, form = useRef<HTMLFormElement>(null), [base, setBase] = useState("");
  const formatOf = (name: string): string => (/\.qcow2$/i.test(name) ? "qcow2" : /\.vhd$/i.test(name) ? "vhd" : "raw");
  const make = (name: string, sizeText: string): Promise<void> => act("making a disk", async () => {
    const [, number, unit] = SIZE.exec(sizeText.trim()) ?? [], backing = base === "" ? null : { path: base, format: formatOf(base) };
    if (!backing && number === undefined) throw new Error(`"${sizeText}" is no size; write 512M or 4G`);
    if (name === "") throw new Error("The disk wants a name");
    let sizeBytes = Math.round(Number(number ?? 0) * (unit?.toUpperCase() === "G" ? 2 ** 30 : 2 ** 20) / 512) * 512;
    if (backing) {
      const disk = await openDisk({ path: base, format: backing.format, store, isReadonly: true, unzstd: (frame, options) => unzstd(frame, options) });
      sizeBytes = Math.max(sizeBytes, disk.sizeBytes);
      await disk.close();
    }
    const file = await store.open(name, "create");
    try { await createDisk(file, { format: "qcow2", sizeBytes, ...(backing ? { backing } : {}) }); } finally { await file.close(); }
    form.current?.reset();
    setBase("");
  });
  return (
    <section>
      <h2>New disk</h2>
      <form ref={form} class="inline" onSubmit={(e) => { e.preventDefault(); const said = new FormData(e.currentTarget); void make(String(said.get("name")).trim(), String(said.get("size") ?? "")); }}>
        <label>Name <input name="name" placeholder="root.qcow2" spellcheck={false} /></label>
        <label>over <select value={base} onChange={(e) => setBase(e.currentTarget.value)}><option value="">nothing: it is empty</option>{files.map((f) => <option key={f.name} value={f.name}>{f.name}</option>)}</select></label>
        <label>Size <input name="size" placeholder={base ? "as its base" : "512M"} size={8} spellcheck={false} /></label>
        <button type="submit">Make it</button>
      </form>
      <p class="dim">A disk over another is written on its own and leaves the other as it is (qcow2). In a configuration: <code>disk = [ "root.qcow2,qcow2,xvda,rw" ]</code></p>
    </section>
  );
}
