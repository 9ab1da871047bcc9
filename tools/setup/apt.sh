#!/usr/bin/env bash
# Installs the packages of apt-packages.txt that are not there yet. Says so and goes on where there is no apt.
set -euo pipefail
list="$(dirname "$0")/apt-packages.txt"
missing=()
while read -r name; do
  case "$name" in ""|\#*) continue ;; esac
  dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
done < "$list"
[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
  echo "setup: no apt-get here; the tests want: ${missing[*]}" >&2
  exit 0
fi
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo"
echo "setup: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
$sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
