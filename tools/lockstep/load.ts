/** Random work for a shell in busybox: what reaches much of a kernel and of its programs, by seed. Each line ends by itself, within some ten million instructions. */
import { Random } from "../oracle/values.ts";

type Make = (r: Random) => string;
const size = (r: Random): number => 1000 + r.below(200_000), some = (r: Random, n: number): number => 1 + r.below(n);
const WORK: readonly Make[] = [
  (r) => `head -c ${size(r)} /bin/busybox | gzip -${some(r, 9)} | gunzip | sha256sum`,
  (r) => `head -c ${size(r)} /dev/urandom | ${r.pick(["md5sum", "sha1sum", "sha512sum", "cksum", "wc"])} | wc -c`,
  (r) => `head -c ${size(r)} /bin/busybox | bzip2 | bunzip2 | md5sum`,
  (r) => `seq ${some(r, 3000)} | sort -r | uniq | tail -n 3`,
  (r) => `awk 'BEGIN { for (i = 1; i < ${some(r, 3000)}; i++) { s += sin(i) * exp(-i / 500) / sqrt(i); t = t substr(i, 1, 1) } print s, length(t), atan2(s, i), log(i) }'`,
  (r) => `echo 'scale=${some(r, 60)}; sqrt(2); e(${some(r, 9)}); a(1)*4; ${some(r, 99)}^${some(r, 99)}' | bc -l | tail -c 60`,
  (r) => `i=0; while [ $i -lt ${some(r, 25)} ]; do /bin/busybox true; i=$((i+1)); done; echo $i`,
  (r) => `i=0; while [ $i -lt ${some(r, 20)} ]; do ( exit $i ) & i=$((i+1)); done; wait; echo $i`,
  (r) => `seq ${some(r, 60)} | xargs -n 3 -P ${some(r, 4)} echo | wc`,
  (r) => `dd if=/dev/zero of=/tmp/x bs=${some(r, 9000)} count=${some(r, 60)} 2>&1 | tail -n 1 | cut -d, -f1; md5sum /tmp/x; rm /tmp/x`,
  (r) => `dd if=/bin/busybox bs=${some(r, 500)} skip=${some(r, 100)} count=${some(r, 200)} 2>/dev/null | od -x | md5sum`,
  (r) => `mkdir -p /tmp/d; (cd /tmp/d && seq ${some(r, 80)} | xargs touch && ls -l | wc -l); find /tmp/d | wc -l; rm -r /tmp/d`,
  () => "mkdir -p /tmp/m; mount -t tmpfs none /tmp/m && cp /bin/busybox /tmp/m && cmp /bin/busybox /tmp/m/busybox; umount /tmp/m; echo $?",
  () => "tar c /etc /proc/cpuinfo 2>/dev/null | tar t | wc -l",
  (r) => `cat ${r.pick(["/proc/meminfo", "/proc/interrupts", "/proc/stat", "/proc/self/maps", "/proc/vmstat", "/proc/slabinfo", "/proc/modules", "/proc/zoneinfo"])} | wc -l`,
  (r) => `find /sys${r.pick(["/kernel", "/class", "/bus", "/module"])} -maxdepth ${some(r, 3)} 2>/dev/null | wc -l`,
  (r) => `sh -c 'kill -${r.pick(["SEGV", "FPE", "TERM", "ILL", "USR1"])} $$'; echo $?`,
  (r) => `sleep 0.0${some(r, 99)}; date +%s | wc -c`,
  (r) => `ip link set lo up; ping -c ${some(r, 3)} -s ${some(r, 9000)} -i 0.01 127.0.0.1 | tail -n 2 | head -n 1`,
  (r) => `ip link set lo up; (echo ok; head -c ${size(r)} /bin/busybox) | nc -l -p ${2000 + r.below(999)} -w 1 > /dev/null & sleep 0.05; ps | wc -l; kill $! 2>/dev/null; wait`,
  () => "echo 3 > /proc/sys/vm/drop_caches; free | wc -l",
  (r) => `echo ${"abcdefgh".repeat(some(r, 30))} | sed 's/a\\(b*\\)c/\\1x/g; y/bdf/BDF/' | tr a-h 1-8 | rev | md5sum`,
  (r) => `grep -c ${r.pick(["a", "GNU", "[0-9]*\\.[0-9]", "^.*sh$"])} /bin/busybox`,
  (r) => `factor ${some(r, 1e9)} ${some(r, 1e9)}; expr ${some(r, 1e6)} \\* ${some(r, 1e6)} % 977`,
  (r) => `mkfifo /tmp/f; (head -c ${size(r)} /bin/busybox > /tmp/f &); ${r.pick(["md5sum", "wc", "tail -c 9"])} < /tmp/f | wc -c; rm /tmp/f`,
  (r) => `[ -e /sys/devices/system/cpu/cpu1/online ] && for x in 0 1; do echo $x > /sys/devices/system/cpu/cpu1/online; done; nproc; taskset ${some(r, 1)} true; echo $?`,
  (r) => `hexdump -C /bin/busybox | head -n ${some(r, 2000)} | sha256sum`,
  (r) => `diff /etc/passwd /proc/self/status | wc -l; strings -n ${3 + r.below(9)} /bin/busybox | head -n ${some(r, 500)} | sort | md5sum`,
];
/** Lines without end. */
export function* randomLoad(seed: number): Generator<string, never> {
  for (const r = new Random(seed);;) yield r.pick(WORK)(r);
}
