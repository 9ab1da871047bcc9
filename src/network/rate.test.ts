import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { UserError } from "../base/errors.ts";
import { ManualClock } from "./clock.ts";
import { parseRate, TokenBucket } from "./rate.ts";

test("the manual's example gives 20,000 bytes each 20,000 us", () => {
  assert.deepEqual(parseRate("1MB/s@20ms"), { bytesPerInterval: 20_000, intervalUs: 20_000 });
});

const PROGRAM = `#include <stdio.h>
#include <libxl.h>
#include <libxlutil.h>
#include <errno.h>
int main(int c, char **v) {
  XLU_Config *cfg = xlu_cfg_init(stderr, "test");
  for (int i = 1; i < c; i++) {
    libxl_device_nic n; libxl_device_nic_init(&n); errno = 0;
    int r = xlu_vif_parse_rate(cfg, v[i], &n);
    printf("%d %llu %u\\n", r, (unsigned long long)n.rate_bytes_per_interval, n.rate_interval_usecs);
  }
}`;
test("libxl reads every rate as we do, or refuses it as we do", () => {
  const rates = ["10Mb/s", "10Mb/s@20ms", "1MB/s@20ms", "1KB/s@50", "0B/s", "1GB/s", "10GB/s@10s", "1mb/s", "1MB/s@0ms", "1MB/s@10m", "1MB/s@10u", "1MB/s@5000s", "MB/s",
    "1MB/s@", "1MB/s@20ms@3", "4294967295B/s@1s", "4294967296B/s@1s", "20B/s", "1MB/s@4294s", "1MB/s@4295s", "10000000000GB/s", "18446744073709551615B/s@1us", "1MB/s ",
    "1MB/s@ms", "500GB/s@100s", "1MB/s@1ms1", "100Kb/s@1s", "foo", "", "1MB", "-1B/s", "1MB/s\n", "1MB/s@20ms\n", "19b/s", "7b/s", "1B/s@1us"];
  const dir = mkdtempSync(join(tmpdir(), "domus-rate-"));
  try {
    writeFileSync(join(dir, "rate.c"), PROGRAM);
    const cc = spawnSync("gcc", ["-o", join(dir, "rate"), join(dir, "rate.c"), "-lxlutil", "-lxenlight"], { encoding: "utf8" });
    assert.equal(cc.status, 0, cc.stderr);
    const said = spawnSync(join(dir, "rate"), rates, { encoding: "utf8" }).stdout.trim().split("\n");
    rates.forEach((text, i) => {
      const [error, bytesPerInterval, intervalUs] = said[i]!.split(" ").map(Number);
      if (error || bytesPerInterval === 0) assert.throws(() => parseRate(text), UserError, text);
      else assert.deepEqual(parseRate(text), { bytesPerInterval, intervalUs }, text);
    });
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test("numbers that libxl reads as octal are refused", () => {
  for (const text of ["010MB/s", "1MB/s@010ms"]) assert.throws(() => parseRate(text), UserError);
});

test("a bucket lets through its rate over time and its burst at once", () => {
  const clock = new ManualClock(), bucket = new TokenBucket({ bytesPerInterval: 20_000, intervalUs: 20_000 }, clock);
  let sent = 0;
  const sendAll = () => { while (bucket.take(1514)) sent += 1514; };
  sendAll();
  assert.equal(sent, Math.floor((128 << 10) / 1514) * 1514);
  for (let i = 0; i < 500; i++) { clock.advance(20); sendAll(); }
  assert.ok(Math.abs(sent - (128 << 10) - 10_000_000) < 1514, `${sent} bytes in 10 s`);
  clock.advance(3_600_000);
  sent = 0;
  sendAll();
  assert.ok(sent <= 128 << 10, "an hour of silence is no more than one burst");
});
test("a bucket says when there will be credit, and there is then", () => {
  const clock = new ManualClock(), bucket = new TokenBucket({ bytesPerInterval: 1000, intervalUs: 50_000 }, clock);
  while (bucket.take(1000));
  clock.advance(7);
  const waitMs = bucket.waitMs(65_000);
  clock.advance(waitMs - 1);
  assert.equal(bucket.has(65_000), false);
  clock.advance(1);
  assert.equal(bucket.take(65_000), true);
});
test("a frame longer than the burst goes when the bucket is full, and is paid for afterwards", () => {
  const clock = new ManualClock(), bucket = new TokenBucket({ bytesPerInterval: 1000, intervalUs: 1000 }, clock);
  assert.equal(bucket.take(1 << 20), true);
  assert.equal(bucket.waitMs(1), Math.ceil(((1 << 20) - (128 << 10) + 1) / 1000));
});
