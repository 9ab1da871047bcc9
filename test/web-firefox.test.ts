/** The page in Firefox: that it finds what it needs there, and a guest runs. test/web.test.ts has the rest. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { buildPage } from "../tools/web/build.ts";
import { servePage } from "../tools/web/serve.ts";
import { Firefox } from "./firefox.ts";
import { images } from "./guest.ts";

test("in Firefox Debian's kernel comes up, and files are kept", async (t) => {
  images();
  const folder = mkdtempSync(join(tmpdir(), "domus-web-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  await buildPage(folder);
  await using server = await servePage({ folder });
  await using firefox = await Firefox.start();
  await firefox.goto(`${server.url}?pcpus=1&memory=256`);
  assert.equal(await firefox.evaluate(`new Promise((done) => { const look = () => "domus" in globalThis || document.querySelector("[role=alert]") ? done(document.querySelector("[role=alert]")?.innerText ?? "ready") : setTimeout(look, 50); look(); })`), "ready");
  assert.equal(await firefox.evaluate("domus.files.add('kept.txt', new Blob(['kept'])).then(() => domus.files.whole('kept.txt')).then((b) => new TextDecoder().decode(b))"), "kept");
  await firefox.evaluate(`domus.create('name = "debian"\\ntype = "pvh"\\nkernel = "vmlinuz-cloud"\\nramdisk = "initramfs-cloud.cpio"\\nextra = "console=hvc0"\\nmemory = 128').then(() => 1)`);
  assert.match(String(await firefox.evaluate("domus.expect('debian', '', /Memory: .* available/, 200000)")), /Linux version 6\./);
  assert.deepEqual(firefox.errors, []);
});
