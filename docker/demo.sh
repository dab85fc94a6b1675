#!/usr/bin/env bash
# Tunes a small real model from start to end and leaves the results in ./demo-output. `make demo` builds, then runs this.
#
#   BUILD=build/release docker/demo.sh
#
# Model and data are made once, under build/demo. The server is the demo's own: a free loopback port, its own data
# directory, ended when the demo ends, also by Ctrl-C; no other server on this machine is touched.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BUILD:-build/release}/bin
work=build/demo
output=demo-output
python=$(docker/install-deps.sh --print-venv)/bin/python
server_pid=
address=

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
active_jobs() {
  "$bin/finetune" --server "$address" list --quiet \
    --state validating --state queued --state starting --state running --state pausing --state paused --state cancelling
}

# Workers outlive their server by design, so the job is cancelled before the server is stopped.
finish() {
  local code=$?
  trap '' INT TERM
  [ -n "$server_pid" ] || exit "$code"
  if [ -n "$address" ] && kill -0 "$server_pid" 2>/dev/null; then
    local jobs
    jobs=$(active_jobs 2>/dev/null || true)
    if [ -n "$jobs" ]; then
      say "cancelling the job"
      # shellcheck disable=SC2086  # one id a word
      "$bin/finetune" --server "$address" cancel $jobs || true
      for _ in $(seq 60); do
        [ -n "$(active_jobs 2>/dev/null || true)" ] || break
        sleep 1
      done
    fi
  fi
  say "stopping the server"
  kill -TERM "$server_pid" 2>/dev/null || true
  wait "$server_pid" 2>/dev/null || true
  [ "$code" = 0 ] || printf 'demo: ended with %s; the server'\''s log is %s\n' "$code" "$work/server.log" >&2
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for binary in finetuned finetune finetune-worker; do
  [ -x "$bin/$binary" ] || fail "$bin/$binary is missing; run 'make demo', or set BUILD to the build directory"
done
[ -x "$python" ] || fail "$python is missing; run docker/install-deps.sh"
mkdir -p "$work"
# The server inherits the lock, so it holds as long as a server of an earlier demo lives.
exec 9>"$work/lock"
flock --nonblock 9 || fail "another demo is running in $work; wait for it, or end it"

say "model: SmolLM2-135M-Instruct, as a Hugging Face directory"
"$python" docker/make_demo_model.py --out "$work/models/smollm2-135m"
say "data: definitions of English nouns from WordNet"
"$python" docker/make_demo_data.py --out "$work/datasets/wordnet"
head -n 2 "$work/datasets/wordnet/train.jsonl"

say "starting the server"
rm -rf "$work/server" "$work/server.log"
# A session of its own: Ctrl-C reaches this script and the client, and the server is stopped by finish().
setsid "$bin/finetuned" --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --data-dir "$work/server" \
  --model-root "$work/models" --data-root "$work/datasets" >"$work/server.log" 2>&1 &
server_pid=$!
for _ in $(seq 300); do
  address=$(sed -n 's/.* serves on \([^, ]*\),.*/\1/p' "$work/server.log")
  [ -z "$address" ] || break
  kill -0 "$server_pid" 2>/dev/null || break
  sleep 0.1
done
if [ -z "$address" ]; then
  cat "$work/server.log" >&2
  fail "the server did not start"
fi
metrics=$(sed -n 's/.*, metrics on port \([0-9]*\),.*/\1/p' "$work/server.log")
echo "gRPC on $address, metrics at http://127.0.0.1:$metrics/metrics, log in $work/server.log"
"$bin/finetune" --server "$address" devices
echo "watch it from another terminal: $bin/finetune --server $address list"

say "submitting deploy/examples/demo.yaml: 30 steps of 2,048 tokens, about ten minutes on two CPU cores"
"$bin/finetune" --server "$address" submit deploy/examples/demo.yaml --watch

say "downloading the results to $output"
job=$("$bin/finetune" --server "$address" list --quiet)
rm -rf "$output"
"$bin/finetune" --server "$address" download "$job" --to "$output"

say "done"
du -sh "$output"/*
cat <<TEXT

The job stays in the demo's server. To look at it again, until the next demo:
  $bin/finetuned --data-dir $work/server --model-root $work/models --data-root $work/datasets
  $bin/finetune get $job
TEXT
