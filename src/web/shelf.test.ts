import assert from "node:assert/strict";
import { test } from "node:test";
import { fromFile, intoFile, Shelf } from "./shelf.ts";

const bytes = async (shelf: Shelf, name: string): Promise<number[]> => [...await shelf.whole(name)];
const names = async (shelf: Shelf): Promise<string[]> => (await shelf.files()).map((f) => f.name).sort();

test("a file is replaced when the new one is whole, and stays as it was when that fails", async () => {
  const shelf = new Shelf(new URL("http://page/images/")), broken = { size: 2, slice: () => ({ arrayBuffer: () => Promise.reject(new Error("it cannot be read")) }) } as unknown as Blob;
  await shelf.add("disk", new Blob([new Uint8Array([1, 2, 3])]));
  await assert.rejects(shelf.add("disk", broken), /cannot be read/);
  assert.deepEqual([await names(shelf), await bytes(shelf, "disk")], [["disk"], [1, 2, 3]]);
  await shelf.add("disk", new Blob([new Uint8Array([4])]));
  assert.deepEqual([await names(shelf), await bytes(shelf, "disk")], [["disk"], [4]]);
  const inUse = await shelf.store.open("disk", "write");
  await assert.rejects(shelf.add("disk", new Blob([new Uint8Array([5])])), /open for writing already/);
  await inUse.close();
});

test("a saved state is there whole or not at all, and the one before it stays until then", async () => {
  const shelf = new Shelf(new URL("http://page/images/"));
  const write = async (...pieces: unknown[]): Promise<void> => {
    const writer = (await intoFile(shelf, "a.saved")).getWriter();
    writer.closed.catch(() => {});
    try { for (const p of pieces) await writer.write(p as Uint8Array); await writer.close(); } catch (e) { await writer.abort(e).catch(() => {}); throw e; }
  };
  await write(new Uint8Array([1, 2]), new Uint8Array([3]));
  await assert.rejects(write(new Uint8Array([9]), null));        // what the store refuses
  assert.deepEqual(await names(shelf), ["a.saved"]);
  const read: number[] = [];
  for await (const piece of await fromFile(shelf, "a.saved")) read.push(...piece);
  assert.deepEqual(read, [1, 2, 3]);
});
