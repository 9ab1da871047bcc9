#!/bin/sh
# Packs plain.ts's bytes with the real tools (xz 5.4, zstd 1.5, bzip2 1.0, lz4 1.9, lzop 1.04, gzip 1.12); run once in this folder.
set -e
node -e 'import("./plain.ts").then((p) => ["small", "large"].forEach((n) => fs.writeFileSync(n, p[n]())))'
touch -d @1 small large
gzip -9 -c small > small.gz; gzip -1 -n -c large > large.gz
{ head -c 1000 small | gzip -9 -n; tail -c +1001 small | gzip -1 -n; } > small.members.gz
bzip2 -9 -c small > small.bz2; bzip2 -1 -c large > large.bz2
xz -c small > small.crc64.xz
xz -c --check=crc32 --x86 --lzma2=dict=64KiB small > small.x86.xz
xz -c --check=sha256 --delta=dist=3 --lzma2=lc=0,lp=2,pb=0 small > small.sha256.xz
xz -c --check=none -0 --block-size=50000 large > large.blocks.xz
xz -c --format=lzma -9 small > small.lzma
lz4 -l -9 -q -c small > small.lz4; lz4 -l -1 -q -c large > large.lz4
lzop -c -1 small > small.lzo; lzop -c -9 -C large > large.lzo
zstd -q -c -1 small > small.fast.zst; zstd -q -c -19 --no-check small > small.zst; zstd -q -c -19 large > large.zst; zstd -q -c -1 large > large.fast.zst
{ head -c 1000 small | zstd -q -c; tail -c +1001 small | zstd -q -c --no-content-size; } > small.frames.zst
rm small large
