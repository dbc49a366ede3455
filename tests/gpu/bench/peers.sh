#!/bin/bash
# mixers.c beside PyTorch on the same GPU, one after the other; without PyTorch, the floors alone.
set -u
cd "$(dirname "$0")" || exit 1
mixers=${MIXERS:-../../../${B:-build}/tests/gpu/bench/mixers}
python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null || { echo "no PyTorch with a GPU: no peers"; exit 0; }
ours=$("$mixers") || exit 1
peers=$(python3 peers.py) || exit 1
join -a 1 -o 0,1.2,1.3,2.2,1.4,1.5,2.3 -e - <(tail -n +2 <<<"$ours" | sort) <(sort <<<"$peers") | awk '
  function ratio(peer, ours) { return peer == "-" ? "-" : sprintf("%.2f", peer / ours) }
  BEGIN { printf "%-20s %9s %9s %9s %6s   %9s %9s %9s %6s\n", "mixer", "forward", "floor", "peer", "ratio", "both", "floor", "peer", "ratio" }
  { printf "%-20s %9.3f %9.3f %9s %6s   %9.3f %9.3f %9s %6s\n", $1, $2, $3, $4, ratio($4, $2), $5, $6, $7, ratio($7, $5) }'
