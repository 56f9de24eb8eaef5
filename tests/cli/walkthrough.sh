#!/usr/bin/env bash
# From clicks to a nudge that is pushed, reported and rolled back, by commands alone.
#
#     walkthrough.sh STORE CLICKS MODEL FOLDER
#
# STORE is the URL of a store that holds the texts already, CLICKS a CSV of query, node_id and grade.
set -euo pipefail
store=$1 clicks=$2 model=$3 folder=$4
mkdir -p "$folder"
cd "$folder"

echo "--- what was clicked"
nudge-rag pairs inspect "$clicks"
nudge-rag pairs split "$clicks" pairs --fractions 0.7,0.1,0.2
nudge-rag pairs merge pairs/train.jsonl pairs/val.jsonl -o known.jsonl

echo "--- tune"
nudge-rag tune "$store" known.jsonl --model "$model" --model-name "$model" -o nudge --report tuned.html

echo "--- evaluate before anything is written, on pairs that it was not tuned on"
nudge-rag eval "$store" pairs/test.jsonl --model "$model" --nudge nudge --trained-on known.jsonl \
    --fail-under nDCG@10:+0.00 --report before.html

echo "--- push"
nudge-rag push "$store" nudge --dry-run
nudge-rag push "$store" nudge --yes
nudge-rag status "$store"
nudge-rag versions "$store"
nudge-rag eval "$store" pairs/test.jsonl --model "$model" --fail-under nDCG@10:+0.00 --json > live.json
nudge-rag report "$store" nudge -o pushed.html

echo "--- roll back"
nudge-rag rollback "$store" --yes
nudge-rag status "$store" && exit 9 || test $? -eq 1  # the answer is no: nothing is pushed
echo "--- done"
