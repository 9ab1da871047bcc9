/** The initramfs of `domus start`: busybox, its applets as links, and an init that leaves its user in a shell. */
import { cpio, type CpioEntry } from "../builder/cpio.ts";

/** Printed by /init before anything else; benchmarks wait for it. */
export const BANNER = "Domus: userspace is up";
/** Grows with every change below, so that a cached initramfs is made anew. */
export const RECIPE = 5;
/** Modules of Debian's kernels: the front ends of disks and networks, and those that shared folders want, each after what it needs. A kernel may have them built in, or not have them at all. */
const FRONT_ENDS = ["xen-blkfront.ko", "xen-netfront.ko"], SHARES = ["netfs.ko", "fscache.ko", "9pnet.ko", "9pnet_xen.ko", "9p.ko"];
/** What to look for in a kernel's package. */
export const MODULES: readonly string[] = [...FRONT_ENDS, ...SHARES];

/** PID 1's first steps; then busybox's init takes over, which answers poweroff, reboot and halt. */
const INIT = `#!/bin/sh
echo "${BANNER}"
export PATH=/sbin:/usr/sbin:/bin:/usr/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
[ -e /bin/ls ] || /bin/busybox --install -s
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
hostname domus
console=$(cat /sys/class/tty/console/active)
echo "\${console##* }::respawn:-/bin/sh" >> /etc/inittab
exec /sbin/init
`;
/** /init adds the console: hvc0 here, ttyS0 elsewhere. The dash makes the shell a login shell; init opens the terminal as its controlling one, so job control works. */
const INITTAB = `::sysinit:/etc/rc
::restart:/sbin/init
::ctrlaltdel:/sbin/reboot
`;
const RC = `#!/bin/sh
echo 3 4 1 3 > /proc/sys/kernel/printk
echo online > /sys/devices/system/memory/auto_online_blocks 2>/dev/null
load() { for module; do [ -e /lib/modules/$module ] && insmod /lib/modules/$module; done; }
load ${FRONT_ENDS.join(" ")}
[ -e /sys/bus/xen/devices/9pfs-0 ] && load ${SHARES.join(" ")}
[ -e /sys/class/net/eth0 ] && udhcpc -i eth0 -s /etc/dhcp -b -q >/dev/null 2>&1
echo
echo "Linux $(uname -r) as a $(cat /sys/hypervisor/type 2>/dev/null || echo bare) guest. poweroff ends it; ^] leaves."
`;
/** What busybox's DHCP client calls with what it was given. */
const DHCP = `#!/bin/sh
case $1 in
  deconfig) ip link set $interface up ;;
  bound|renew)
    ip address replace $ip/$mask dev $interface
    for r in $router; do ip route replace default via $r; break; done
    : > /etc/resolv.conf
    for d in $dns; do echo nameserver $d >> /etc/resolv.conf; done ;;
esac
`;
const PROFILE = `export PATH=/sbin:/usr/sbin:/bin:/usr/bin HOME=/root TERM=\${TERM:-linux} PS1='\\h:\\w\\$ '
cd /root
`;

/**
 * Make the archive.
 * @param busybox a static busybox for the guest's processor
 * @param applets paths of its applets (`busybox --list-full`); without them the guest makes the links itself, which takes it a moment
 * @param modules kernel modules by file name, loaded at the start: the front ends that the kernel has not built in
 */
export function shellInitramfs(busybox: Uint8Array, applets: readonly string[], modules: ReadonlyMap<string, Uint8Array> = new Map()): Uint8Array {
  const text = (s: string) => new TextEncoder().encode(s);
  const folders = new Set(["bin", "dev", "etc", "lib", "lib/modules", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "usr/bin", "usr/sbin", "var"]);
  const links = new Map<string, CpioEntry>();
  for (const path of [...applets, "sbin/init", "bin/sh", "bin/mount", "bin/mkdir", "bin/hostname"]) {
    if (!/^(?:usr\/)?s?bin\/[\w[.+-]+$/.test(path) || path === "bin/busybox") continue;
    links.set(path, { kind: "symlink", path, target: "/bin/busybox" });
  }
  return cpio([
    ...[...folders].map((path): CpioEntry => ({ kind: "dir", path, mode: path === "tmp" ? 0o1777 : 0o755 })),
    { kind: "char", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
    { kind: "char", path: "dev/null", mode: 0o666, major: 1, minor: 3 },
    { kind: "file", path: "bin/busybox", mode: 0o755, bytes: busybox },
    ...links.values(),
    { kind: "file", path: "init", mode: 0o755, bytes: text(INIT) },
    { kind: "file", path: "etc/inittab", mode: 0o644, bytes: text(INITTAB) },
    { kind: "file", path: "etc/rc", mode: 0o755, bytes: text(RC) },
    { kind: "file", path: "etc/dhcp", mode: 0o755, bytes: text(DHCP) },
    ...[...modules].map(([name, bytes]): CpioEntry => ({ kind: "file", path: `lib/modules/${name}`, mode: 0o644, bytes })),
    { kind: "file", path: "etc/profile", mode: 0o644, bytes: text(PROFILE) },
    { kind: "file", path: "etc/passwd", mode: 0o644, bytes: text("root::0:0:root:/root:/bin/sh\n") },
    { kind: "file", path: "etc/group", mode: 0o644, bytes: text("root:x:0:\n") },
  ]);
}
