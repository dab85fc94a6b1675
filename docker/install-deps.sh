#!/usr/bin/env bash
# The one list of dependencies. Debian 12 and Ubuntu 24.04; needs root for apt. Idempotent: a second run takes under a second.
#
#   docker/install-deps.sh                install what is missing
#   docker/install-deps.sh --slow         also the peers that compile for minutes (tests of the label reference-slow)
#   docker/install-deps.sh --print-venv   print the virtual environment's path and do nothing
#
# Debian packages bring gRPC, protobuf, SQLite and friends; a Python virtual environment brings LibTorch, Arrow and
# nvcc as wheels (headers and shared libraries inside) and the reference stack that tests compare against.
# FINETUNED_VENV overrides where the environment lives; by default it is shared between checkouts and its name carries
# a hash of the requirement files, so a changed list makes a new one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
requirements=("$here/requirements-build.txt" "$here/requirements-reference.txt")
nodeps=$here/requirements-nodeps.txt
hash=$(cat "${requirements[@]}" "$nodeps" | sha256sum | cut -c1-12)
venv=${FINETUNED_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/finetuned/venv-$hash}
case "${1:-}" in
  "" | --slow) ;;
  --print-venv) echo "$venv"; exit 0 ;;
  *) echo "install-deps: unknown option '$1'; allowed: --slow, --print-venv" >&2; exit 2 ;;
esac

packages=(
  ca-certificates git make cmake ninja-build ccache pkg-config g++ python3 python3-venv
  libgrpc++-dev libgrpc-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libprotoc-dev libabsl-dev
  libre2-dev libc-ares-dev
  libsqlite3-dev sqlite3 libspdlog-dev prometheus-cpp-dev libgtest-dev libgmock-dev libbenchmark-dev
  nlohmann-json3-dev libsimdjson-dev libyaml-cpp-dev libcli11-dev libonig-dev libicu-dev
  libssl-dev zlib1g-dev libzstd-dev
  wordnet-base prometheus
)

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  [ "$(id -u)" = 0 ] || { echo "install-deps: these Debian packages are missing and need root to install: ${missing[*]}" >&2; exit 1; }
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # prometheus is only run by tests; its package must not start a service here.
  apt-get install -y --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" | grep -E '^(Get|Setting up|Unpacking)' >&2 || true
  for package in "${missing[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
      { echo "install-deps: Debian package $package could not be installed; run 'apt-get install $package' to see why" >&2; exit 1; }
  done
fi

if [ ! -f "$venv/.complete" ]; then
  say "creating $venv (LibTorch, nvcc, Arrow: about 5 GB, a few minutes)"
  mkdir -p "$(dirname "$venv")"
  exec 9>"$venv.lock"; flock 9
  if [ ! -f "$venv/.complete" ]; then
    python3 -m venv "$venv"
    arguments=(); for file in "${requirements[@]}"; do arguments+=(-r "$file"); done
    "$venv/bin/pip" install --disable-pip-version-check --progress-bar off "${arguments[@]}" >&2
    "$venv/bin/pip" install --disable-pip-version-check --progress-bar off --no-deps -r "$nodeps" >&2
    touch "$venv/.complete"
  fi
fi

if [ "${1:-}" = --slow ]; then
  say "compiling the slow peers (about 7 minutes on two cores; nothing to do where they are there)"
  "$venv/bin/pip" install --disable-pip-version-check --progress-bar off --no-deps -r "$here/requirements-slow.txt" >&2
fi
