#!/bin/bash
# Training steps per second against the released PyTorch code (batches per second on a 2-core CPU, forward,
# backward and optimiser, as its own log prints them; linear at S = 300 is not known).
set -eu
db=$(mktemp -d) && trap 'rm -rf "$db"' EXIT
"$HARNESS" run tests/bench/training_speed.yaml --db "$db/bench.db" --jobs 1 --quiet
"$HARNESS" show tests/bench/training_speed.yaml --db "$db/bench.db" --metric steps_per_second --csv |
awk -F, 'BEGIN { ref["softmax 20"] = 214; ref["softmax 100"] = 11.5; ref["softmax 300"] = 0.9; ref["linear 20"] = 142; ref["linear 100"] = 7.3
                 aim[20] = 30; aim[100] = 50; aim[300] = 100 }
  NR == 1 { for (i = 1; i <= NF; i++) col[$i] = i; printf "%-10s %5s %12s %12s %8s %6s\n", "variant", "S", "steps/s", "PyTorch/s", "ratio", "aim"; next }
  { v = $col["variant"]; s = $col["keys"]; x = $col["steps_per_second"]; r = ref[v " " s]
    if (r) printf "%-10s %5d %12.1f %12.1f %7.0fx %5dx\n", v, s, x, r, x / r, aim[s]
    else printf "%-10s %5d %12.1f %12s\n", v, s, x, "unknown" }'
