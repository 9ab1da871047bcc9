/** What a Debian image is made of, apart from what makes it somebody's: packages, and the settings of a guest that boots fast and has nothing to fail. */
import { createHash } from "node:crypto";

/** Minimal, and yet a system to work on: services, ssh, network, a kernel with Xen's and virtio's front ends. */
export const PACKAGES: readonly string[] = ["systemd", "systemd-sysv", "systemd-resolved", "udev", "dbus", "kmod", "linux-image-cloud-amd64", "initramfs-tools", "lz4",
  "openssh-server", "sudo", "iproute2", "iputils-ping", "e2fsprogs", "procps", "less", "nano"];
/** The root file system's label, by which /etc/fstab names it: the disk is xvda, vda or sda, with a partition or without. */
export const LABEL = "domus";

/** Nobody reads these in a guest; the licences stay. */
const LEFT_OUT = ["/usr/share/man/*", "/usr/share/info/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/lintian/*"];
/** What a root disk and the first network card may be. Modules that these need come along; udev loads those that there are devices for. */
const MODULES = ["xen-blkfront", "xen-netfront", "virtio_blk", "virtio_net", "virtio_pci", "virtio_mmio", "virtio_scsi", "sd_mod", "ext4"];
/**
 * Started for nothing in a guest: no screen; nobody waits for the network; no LVM to scrub by; no firmware's variables, no TPM; file systems for configuring what is
 * not there; and apt's own downloads would take a guest's time behind its user's back.
 */
const MASKED = ["getty@tty1.service", "systemd-networkd-wait-online.service", "e2scrub_all.timer", "e2scrub_reap.service", "apt-daily.timer", "apt-daily-upgrade.timer",
  "dpkg-db-backup.timer", "systemd-pstore.service", ...["efi_pstore", "drm", "dm_mod", "loop", "fuse", "configfs"].map((m) => `modprobe@${m}.service`),
  ...["sys-kernel-debug", "sys-kernel-tracing", "sys-kernel-config", "sys-fs-fuse-connections"].map((m) => `${m}.mount`)];
/** Loaded for nothing because the processor could: guests in guests, and the kernel's own ciphers, which it loads itself when it comes to use them. */
const NOT_BY_PROCESSOR = ["kvm_intel", "kvm_amd", "aesni_intel", "ghash_clmulni_intel", "sha1_ssse3", "sha256_ssse3", "sha512_ssse3", "crct10dif_pclmul", "crc32_pclmul"];

/** Before the kernel is installed, for its package makes the initrd: a few modules in place of all, and lz4, which unpacks quickest of what kernels take. */
const BEFORE_KERNEL = `set -e
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks" "$1/etc/modprobe.d"
printf 'MODULES=list\\nCOMPRESS=lz4\\n' > "$1/etc/initramfs-tools/conf.d/domus"
cat > "$1/etc/initramfs-tools/hooks/domus" <<'END'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules ${MODULES.join(" ")}
END
chmod 755 "$1/etc/initramfs-tools/hooks/domus"
printf 'blacklist %s\\n' ${NOT_BY_PROCESSOR.join(" ")} > "$1/etc/modprobe.d/domus.conf"
printf 'LABEL=${LABEL} / ext4 errors=remount-ro 0 1\\n' > "$1/etc/fstab"
printf 'do_symlinks = no\\n' > "$1/etc/kernel-img.conf"
`;
/** When all is installed: the network by DHCP, ping for everybody, no sshd besides the one, and nothing left that must be one system's own. */
const AFTER_PACKAGES = `set -e
cat > "$1/etc/systemd/network/80-dhcp.network" <<'END'
[Match]
Name=en* eth*

[Network]
DHCP=yes

[DHCPv4]
ClientIdentifier=mac
END
printf 'net.ipv4.ping_group_range = 0 2147483647\\n' > "$1/etc/sysctl.d/50-ping.conf"
mkdir -p "$1/etc/systemd/system-generators"
ln -s /dev/null "$1/etc/systemd/system-generators/systemd-ssh-generator"
chroot "$1" systemctl enable systemd-networkd.service systemd-resolved.service
chroot "$1" systemctl set-default multi-user.target
chroot "$1" systemctl mask ${MASKED.map((u) => `'${u}'`).join(" ")}
rm -f "$1"/etc/ssh/ssh_host_*_key* "$1/var/lib/dbus/machine-id" "$1/var/lib/systemd/random-seed" "$1"/etc/passwd- "$1"/etc/shadow- "$1"/etc/group- "$1"/etc/gshadow-
rm -rf "$1"/var/log/apt/* "$1/var/log/dpkg.log" "$1/var/log/alternatives.log" "$1/var/log/bootstrap.log" "$1"/var/cache/debconf/*-old "$1/var/cache/ldconfig/aux-cache"
rm -f "$1/etc/machine-id"
: > "$1/etc/machine-id"
`;

/** What decides a base system's content, as far as it can be known before the archive is asked. */
export type Base = { readonly suite: string; /** a deb822 file */ readonly sources: string; readonly packages: readonly string[]; /** seconds since 1970: files are not younger */ readonly sourceDateEpoch?: string };

/** The arguments of mmdebstrap that make a base system. `aptOptions` say how to reach the archive, and are no part of what is made. */
export function mmdebstrapArgs(base: Base, mode: string, aptOptions: readonly string[], sourcesPath: string, tarPath: string): string[] {
  return [`--mode=${mode}`, "--variant=minbase", "--format=tar", "--architectures=amd64", "--verbose", `--include=${base.packages.join(",")}`,
    ...LEFT_OUT.map((p) => `--dpkgopt=path-exclude=${p}`), "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    ...aptOptions.map((o) => `--aptopt=${o}`), `--essential-hook=${BEFORE_KERNEL}`,
    `--customize-hook=${AFTER_PACKAGES}`, ...(aptOptions.length ? ['--customize-hook=rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"'] : []), base.suite, tarPath, sourcesPath];
}

const sha256 = (value: unknown): string => createHash("sha256").update(JSON.stringify(value)).digest("hex").slice(0, 32);

/** Names what a base system is made from: with the same key it need not be made again. A change of the recipe changes it. */
export const baseKey = (base: Base): string =>
  sha256([mmdebstrapArgs({ ...base, packages: [...new Set(base.packages)].sort() }, "", [], "", ""), base.sources, base.sourceDateEpoch ?? ""]);

/** What makes an image of a base system, apart from what is drawn by lot. */
export type ImageChoice = {
  readonly base: string; readonly sizeBytes: number; readonly partition: boolean; readonly hostname: string; readonly user: string; readonly password: string | null;
  /** public keys in authorized_keys' form; null: a pair made for the image */ readonly keys: string | null; readonly autologin: boolean;
};
/** Names an image by what it is made from. */
export const imageKey = (c: ImageChoice): string => sha256([c.base, c.sizeBytes, c.partition, c.hostname, c.user, c.password, c.keys, c.autologin]);

/** What mmdebstrap is doing, read from what it and apt and dpkg print. */
export class BaseProgress {
  #phase = "begin"; #nr = 0;
  readonly #installed = new Set<string>();
  /** Package names that dpkg has set up. */
  get nrPackages(): number { return this.#installed.size; }
  /** @returns words for the user when there is something new to say */
  line(text: string): string | null {
    const [, verb, name] = /^(Get|Unpacking|Setting up)(?::\d+)? (\S+)/.exec(text) ?? [];
    if (!verb) return text.startsWith("I: running apt-get update") ? this.#enter("asking the archive") : null;
    if (verb === "Get" && !/\.deb| \S+ amd64 | \S+ all /.test(text)) return null;
    if (verb === "Setting up") this.#installed.add(name!.replace(/:.*/, ""));
    return this.#enter({ Get: "fetching", Unpacking: "unpacking", "Setting up": "setting up" }[verb as "Get"]);
  }
  #enter(phase: string): string {
    if (phase !== this.#phase) this.#nr = 0;
    this.#phase = phase;
    return this.#nr++ === 0 ? phase : `${phase}, ${this.#nr} packages`;
  }
}
