#!/bin/bash
# The tasks of classification: listops, text, retrieval.  Toys of each on data made here are trained and told; one is killed in the middle and
# resumed to the bit; what cannot be is refused with its reason.
set -u
HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
export XDG_CACHE_HOME=$tmp/cache OMP_NUM_THREADS=1

check() { local name=$1; shift; if "$@"; then echo "ok - $name"; else echo "not ok - $name"; sed 's/^/# /' err; fi; }
value() { sqlite3 "$1" "SELECT printf('%.6f', value) FROM v_metrics WHERE metric = '$2' ORDER BY step DESC LIMIT 1"; }
rows() { sqlite3 "$1" "SELECT metric, step, hex(value), printf('%!.17g', value) FROM v_metrics WHERE metric NOT LIKE '%second%' ORDER BY 1, 2"; }
holds() { awk "BEGIN { exit !($1) }"; }
experiment() {                          # experiment NAME TASK-OPTIONS VARIANT TRAIN-OPTIONS
  cat >"$1.yaml" <<YAML
experiment: $1
task: {name: $2}
model: {layers: 1, d_model: 32, heads: 2, d_ff: 32, init: 0.2, dropout: 0, embedding_dropout: 0.1, ffn_dropout: 0}
variants: [$3]
train: {batch: 16, lr: 3.0e-3, warmup: 20, schedule: constant, weight_decay: 0, $4}
seeds: [1]
device: cpu
YAML
}
run() { "$HARNESS" run "$1.yaml" --db "$1.db" --quiet "${@:2}" >out 2>err; }
refused() {                             # refused NAME EXPERIMENT SENTENCE PATH=VALUE...
  local name=$1 file=$2.yaml sentence=$3; shift 3; rm -f no.db*
  "$HARNESS" run "$file" "${@/#/--set=}" --db no.db >out 2>err; check "$name" grep -q "$sentence" out err
}

# ---- listops: nothing to prepare -------------------------------------------------------------------------------------------
rules='depth: 3, arguments: 3, min_length: 3, max_length: 14'
experiment listops "listops, length: 16, $rules, train_size: 500, valid_size: 100, test_size: 200" softmax 'max_steps: 500, eval_every: 50, checkpoint_every: 50'
run listops; check "listops ends well" test $? = 0
check "and is better than its commonest class, which is told" holds "$(value listops.db test_accuracy) > 1.5 * $(value listops.db test_majority)"
check "with an interval" holds "$(value listops.db test_accuracy_low) < $(value listops.db test_accuracy) && $(value listops.db test_accuracy) < $(value listops.db test_accuracy_high)"
check "and the sizes of all splits" test "$(value listops.db train_examples) $(value listops.db valid_examples) $(value listops.db test_examples)" = "500.000000 100.000000 200.000000"
check "the accuracy has a curve" test "$(sqlite3 listops.db "SELECT count(*) FROM v_metrics WHERE metric = 'valid_accuracy'")" = 10
rows listops.db >calm.txt
cp listops.yaml rough.yaml
"$HARNESS" run rough.yaml --db rough.db --quiet >out 2>err & run=$!
for ((i = 0; i < 900; i++)); do [ -n "$(ls checkpoints/*.ckpt 2>/dev/null)" ] && break; sleep 0.01; done
kill -9 $run; wait $run 2>/dev/null
check "it is killed in the middle" test -n "$(ls checkpoints)" -a -z "$(value rough.db test_accuracy)"
run rough; rows rough.db >rough.txt
check "and resumed has the numbers of the undisturbed run, to the bit" cmp -s calm.txt rough.txt
refused "lengths that no expression has" listops 'max_length must be more than min_length' task.max_length=4
refused "and lengths that hardly one has" listops 'none has a length between' task.min_length=17 task.max_length=30 task.length=30
experiment causal "listops, length: 16, $rules, valid_size: 20, test_size: 20" 'fwp: {}' 'max_steps: 2, eval_every: 2'
refused "a variant that is causal is no encoder" causal 'refused' seeds=1
run causal --set task.mode=causal; check "but may read from left to right" test -n "$(value causal.db test_accuracy)"
experiment hashed "listops, length: 16, $rules, valid_size: 20, test_size: 20" 'lsh: {chunk_len: 4}' 'max_steps: 2, eval_every: 2'
refused "a variant that knows no lengths cannot hide padding" hashed 'key lengths are not defined' seeds=1
run hashed --set task.padding=seen; check "but may see it" test -n "$(value hashed.db test_accuracy)"

mkdir short && printf '4\t( ( ( [MAX 1 ) 4 ) ] )\n1\t( ( ( [MIN 1 ) 4 ) ] )\n3\t3\n' >short/listops.test_d20s.tsv
"$HARNESS" data prepare listops-short --from short >/dev/null 2>&1
run listops --set task.data=listops-short --set train.max_steps=2 --db short.db
check "splits that a set has are read, the others drawn" test "$(value short.db train_examples) $(value short.db test_examples)" = "500.000000 3.000000"

# ---- text ----------------------------------------------------------------------------------------------------------------------
mkdir imdb && for split in train test; do
  awk -v seed=$split 'BEGIN { srand(length(seed)); for (i = 0; i < 300; i++) { good = rand() < 0.6
    printf "%d\t%d\t5\t%s film no. %d%s\n", good, i, good ? "fine" : "poor", rand() * 1000, substr("......................", 1, rand() * 20) } }' >imdb/imdb.$split.tsv
done
experiment text 'text, length: 24, held_out: 50, pooling: mean' softmax 'max_steps: 100, eval_every: 50'
refused "a set that is not prepared is named" text 'harness data prepare imdb' seeds=1
"$HARNESS" data prepare imdb --from imdb >/dev/null 2>&1
run text; check "text ends well" test $? = 0
check "reviews are told apart" holds "$(value text.db test_accuracy) > 0.95"
check "better than by the commoner class" holds "$(value text.db test_majority) > 0.5 && $(value text.db test_majority) < 0.7"
check "some of train are held out" test "$(value text.db train_examples) $(value text.db valid_examples)" = "250.000000 50.000000"
check "how many were cut is told" holds "$(value text.db test_cut) > 0.1 && $(value text.db test_cut) < 0.9"
refused "more than there are cannot be" text '300 of 300 examples to train on cannot be held out' task.held_out=300
refused "nor is a split that is not there" text "has no split 'dev'" task.test_split=dev
"$HARNESS" data prepare generated-text --level bytes >/dev/null 2>&1
refused "texts without labels are refused" text 'have no labels' task.data=generated-text

# ---- retrieval ------------------------------------------------------------------------------------------------------------------
"$HARNESS" data prepare generated-matches >out 2>err; check "matches are made" test $? = 0
experiment retrieval 'retrieval, data: generated-matches, length: 32, test_examples: 64' 'linear' 'max_steps: 4, eval_every: 4'
run retrieval; check "retrieval ends well" test $? = 0
check "half of the pairs match" holds "$(value retrieval.db test_majority) >= 0.5 && $(value retrieval.db test_majority) < 0.7"
check "pairs are counted, not texts" test "$(value retrieval.db train_examples) $(value retrieval.db valid_examples) $(value retrieval.db test_examples)" = "4000.000000 400.000000 64.000000"
