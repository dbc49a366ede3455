#!/bin/bash
# Assembles carry/lib: the shared libraries that the programs of a build need and that a bare Debian or Ubuntu with a GPU
# lacks.  Copy the checkout with its build folder and carry/ there and set LD_LIBRARY_PATH=carry/lib.
#
#   tools/carry.sh [FOLDER]     FOLDER: where to (carry/lib).  Environment: B (build folder).
#
# What is taken is what the loader finds here: installed packages, or unpacked ones through LD_LIBRARY_PATH.  What comes with
# every system (glibc, gcc's runtime) or with CUDA is left out.
set -eu
cd "$(dirname "$0")/.."
B=${B:-build} to=${1:-carry/lib} most=$((60 << 20))
[ -e "$B/harness" ] || { echo "carry: there is no $B/harness: call make first" >&2; exit 1; }
common='^(linux-vdso|ld-linux.*|libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|libharness.*|libcuda.*|libcublas.*|libnv.*)\.so'

programs=("$B/harness")                 # not what fetches and unpacks data sets: prepared ones are carried
for p in "$B"/*.so; do [ "${p##*/}" = libharness-data.so ] || programs+=("$p"); done
for p in "$B"/tests/*/*; do [ -f "$p" ] && [ -x "$p" ] && programs+=("$p"); done
found=$(ldd "${programs[@]}" 2>/dev/null | awk '$2 == "=>" { print $1, $3 }' | sort -u)
rm -rf "$to" && mkdir -p "$to"
while read -r name path; do
  [[ $name =~ $common ]] && continue
  [ "$path" = not ] && { echo "carry: $name is not found here" >&2; exit 1; }
  cp -L "$path" "$to/$name"
  chmod u+w "$to/$name"
  strip --strip-unneeded "$to/$name"
done <<<"$found"
bytes=$(cat "$to"/* | wc -c)
printf '%s: %d libraries, %.1f MiB\n' "$to" "$(ls "$to" | wc -l)" "$(awk "BEGIN { print $bytes / 1048576 }")"
(( bytes < most )) || { echo "carry: more than $((most >> 20)) MiB" >&2; exit 1; }
