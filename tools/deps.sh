#!/bin/bash
# Installs what the build and the tests need and this machine lacks.  Prints what and why; on a system
# without apt-get prints the list and fails.
set -u
need=(
  "gcc|gcc|the C compiler"
  "pkg-config|pkg-config|finds the libraries"
  "yaml-0.1|libyaml-dev|experiment files"
  "sqlite3|libsqlite3-dev|the store"
  "jansson|libjansson-dev|JSON between runner and workers"
  "libmd|libmd-dev|SHA-256 keys of cells"
  "openblas|libopenblas-dev|matrix products on the CPU"
  "libpcre2-8|libpcre2-dev|the tokenisers of BLEU"
  "unistring|libunistring-dev|UTF-8 and case"
  "g++|g++|the door to sentencepiece, which is C++"
  "sentencepiece|libsentencepiece-dev|subword units"
  "libarchive|libarchive-dev|compressed data sets"
  "libcurl|libcurl4-gnutls-dev|fetching data sets"
  "cmocka|libcmocka-dev|unit tests"
  "gnuplot|gnuplot-nox|figures (.pdf .png .svg)"
  "sqlite3-shell|sqlite3|SQL on the store from the command line"
)
have() {
  case $1 in
    gcc) command -v "${CC:-gcc}" >/dev/null 2>&1 && echo '#include <stdio.h>' | "${CC:-gcc}" -fsyntax-only -xc - 2>/dev/null ;;
    pkg-config|gnuplot|g++) command -v "$1" >/dev/null 2>&1 ;;
    unistring) echo '#include <unistr.h>' | "${CC:-gcc}" -fsyntax-only -xc - 2>/dev/null ;;
    sqlite3-shell) command -v sqlite3 >/dev/null 2>&1 ;;
    *) command -v pkg-config >/dev/null 2>&1 && pkg-config --exists "$1" 2>/dev/null ;;
  esac
}
missing=()
for row in "${need[@]}"; do
  IFS='|' read -r probe package why <<<"$row"
  have "$probe" && continue
  [ "${#missing[@]}" -eq 0 ] && echo "missing:" >&2
  printf '  %-16s %s\n' "$package" "$why" >&2
  missing+=("$package")
  [ "$package" = gcc ] && missing+=(libc6-dev)
done
[ "${#missing[@]}" -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null 2>&1; then
  echo "this system has no apt-get: install the packages above by its own means (names are Debian's), then call make again" >&2
  exit 1
fi
sudo=""
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null 2>&1 || { echo "not root and no sudo: run as root: apt-get install ${missing[*]}" >&2; exit 1; }
  sudo=sudo
fi
echo "installing with apt-get: ${missing[*]}" >&2
$sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || {
  echo "apt-get failed: install by hand and call make again: ${missing[*]}" >&2; exit 1; }
