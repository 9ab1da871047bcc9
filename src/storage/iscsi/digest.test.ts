/** MD5 by RFC 1321's test suite and by Node's, CRC32C by RFC 7143's examples, CHAP's response. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { random, randomBytes } from "../fixture.ts";
import { crc32c } from "./crc32c.ts";
import { chapResponse } from "./login.ts";
import { md5 } from "./md5.ts";

const hex = (b: Uint8Array): string => Buffer.from(b).toString("hex"), text = (s: string): Uint8Array => new TextEncoder().encode(s);

test("MD5 gives the digests of RFC 1321, appendix A.5, and Node's for all lengths around a block", () => {
  const suite = { "": "d41d8cd98f00b204e9800998ecf8427e", a: "0cc175b9c0f1b6a831c399e269772661", abc: "900150983cd24fb0d6963f7d28e17f72", "message digest": "f96b697d7cb7938d525a2f31aaf161d0" };
  for (const [message, digest] of Object.entries(suite)) assert.equal(hex(md5(text(message))), digest);
  for (let n = 0; n < 200; n++) {
    const bytes = randomBytes(random(n), n);
    assert.equal(hex(md5(bytes)), createHash("md5").update(bytes).digest("hex"));
  }
});

test("CRC32C gives the digests of RFC 7143, appendix A, also in two parts", () => {
  const ascending = Uint8Array.from({ length: 32 }, (_, i) => i);
  const suite: [Uint8Array, number][] = [[new Uint8Array(32), 0x8a9136aa], [new Uint8Array(32).fill(255), 0x62a8ab43], [ascending, 0x46dd794e], [ascending.slice().reverse(), 0x113fdb5c], [text("123456789"), 0xe3069283]];
  for (const [bytes, crc] of suite) {
    assert.equal(crc32c(bytes), crc);
    for (const cut of [0, 1, 3, 5]) assert.equal(crc32c(bytes.subarray(cut), crc32c(bytes.subarray(0, cut))), crc);
  }
});

test("a CHAP response is the MD5 of identifier, secret and challenge", () => {
  const challenge = randomBytes(random(1), 16);
  assert.equal(hex(chapResponse(7, "secret", challenge)), createHash("md5").update(Buffer.concat([Buffer.of(7), Buffer.from("secret"), challenge])).digest("hex"));
});
