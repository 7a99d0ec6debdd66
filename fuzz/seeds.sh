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
