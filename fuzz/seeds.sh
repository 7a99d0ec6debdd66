#!/usr/bin/env bash
# Fills corpus/<target> from the golden files, so that a run starts from real messages. Run it in this folder.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p corpus/record_batch
# The target's first byte picks what is done with the rest: 0 leaves it as it is, 1 repairs length, magic and CRC.
while read -r _ name hex; do
  { printf '\x00'; xxd -r -p <<<"$hex"; } >"corpus/record_batch/$name"
  { printf '\x01'; xxd -r -p <<<"$hex"; } >"corpus/record_batch/$name-repaired"
done < <(grep '^batch ' ../crates/wire/testdata/batch/golden.txt)

# The files of a JVM Kafka's partitions: whole for their parsers, and as a log that is recovered, with and without damage
# to a derived file.
logs=../crates/log/testdata/kafka-4.3.1
mkdir -p corpus/log_files corpus/segment_recover
seed() { { printf "\\x$(printf %02x "$1")"; cat "$2"; } >"corpus/log_files/$1-$(basename "$(dirname "$2")")-$(basename "$2")"; }
for f in "$logs"/*/*; do
  case $f in
    *.index) seed 0 "$f" ;; *.timeindex) seed 1 "$f" ;; *.txnindex) seed 2 "$f" ;; *.snapshot) seed 3 "$f" ;;
    */leader-epoch-checkpoint) seed 5 "$f" ;; */partition.metadata) seed 6 "$f" ;;
  esac
done
seed 4 "$logs/recovery-point-offset-checkpoint"
seed 7 "$logs/.kafka_cleanshutdown"
for log in "$logs"/*/00000000000000000000.log; do
  size=$(stat -c %s "$log")
  name=$(basename "$(dirname "$log")")
  head=$(printf '\\x%02x\\x%02x' $((size / 256)) $((size % 256)))
  for flags in 00 01 04 02; do { printf "\\x$flags\\x00$head"; cat "$log"; } >"corpus/segment_recover/$name-$flags"; done
  n=0
  for suffix in index timeindex; do
    { printf "\\x${n}0\\x00$head"; cat "$log" "${log%.log}.$suffix"; } >"corpus/segment_recover/$name-$suffix"
    n=$((n + 1))
  done
done
