#!/bin/bash
# The tasks of sequences that stand for themselves: image, music, audio.  Toys made here are trained and told; one is killed in the middle and
# resumed to the bit; halves of images are completed and drawn; what cannot be is refused with its reason.
set -u
cd "$(dirname "$0")/../.." || exit 1
HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache OMP_NUM_THREADS=1 HARNESS_PLOTS=$PWD/plots
cd "$tmp" || exit 1

check() { local name=$1; shift; if "$@"; then echo "ok - $name"; else echo "not ok - $name"; sed 's/^/# /' out err; fi; }
value() { sqlite3 "$1" "SELECT printf('%.6f', value) FROM v_metrics WHERE metric = '$2' ORDER BY step DESC LIMIT 1"; }
rows() { sqlite3 "$1" "SELECT metric, step, hex(value), printf('%!.17g', value) FROM v_metrics WHERE metric NOT LIKE '%second%' ORDER BY 1, 2"; }
holds() { awk "BEGIN { exit !($1) }"; }
experiment() {                          # experiment NAME TASK-OPTIONS VARIANT TRAIN-OPTIONS [MODEL]
  cat >"$1.yaml" <<YAML
experiment: $1
task: {name: $2}
model: {layers: 1, d_model: 16, heads: 2, d_ff: 16, dropout: 0${5:+, $5}}
variants: [$3]
train: {lr: 1.0e-2, warmup: 5, schedule: constant, weight_decay: 0, $4}
seeds: [1]
device: cpu
YAML
}
run() { "$HARNESS" run "$1.yaml" --db "$1.db" --quiet "${@:2}" >out 2>err; }
refused() {                             # refused NAME EXPERIMENT SENTENCE PATH=VALUE...
  local name=$1 file=$2.yaml sentence=$3; shift 3; rm -f no.db*
  "$HARNESS" run "$file" "${@/#/--set=}" --db no.db >out 2>err; check "$name" grep -q "$sentence" out err
}
says() { "$HARNESS" sample "${@:2}" >out 2>err; check "$1" grep -qe "$wanted" out err; }

# ---- music ---------------------------------------------------------------------------------------------------------------
awk 'BEGIN { printf "{"; for (s = 0; s < 3; s++) { printf "%s\"%s\": [", s ? ", " : "", s == 0 ? "train" : s == 1 ? "valid" : "test"
  for (p = 0; p < 12; p++) { printf "%s[", p ? ", " : ""
    for (t = 0; t < 5 + p; t++) { k = 60 + (t + p) % 4; printf "%s[%d, %d, %d, %d]", t ? ", " : "", k, k - 5, k - 12, k - 20 } printf "]" }
  printf "]" } print "}" }' >jsb-chorales-16th.json
"$HARNESS" data prepare jsb-chorales --from . >out 2>err; check "chorales are prepared" test $? = 0
experiment music 'music, length: 40' softmax 'batch: 8, max_steps: 120, eval_every: 20, checkpoint_every: 20, keep: true'
run music; check "music ends well" test $? = 0
check "notes are learned" holds "$(value music.db test_nll_per_16th) < 0.4 * $(value music.db unigram_nll_per_16th)"
check "a 16th is four notes" holds "($(value music.db test_nll_per_16th) - 4 * $(value music.db test_loss)) ^ 2 < 1e-9"
check "every note is scored once, of pieces longer than a sequence too" test "$(value music.db test_tokens) $(value music.db test_sequences)" = "504.000000 18.000000"
check "there is a curve" test "$(sqlite3 music.db "SELECT count(*) FROM v_metrics WHERE metric = 'valid_nll_per_16th'")" = 6
rows music.db >calm.txt
cp music.yaml rough.yaml
"$HARNESS" run rough.yaml --db rough.db --quiet >out 2>err & run=$!
for ((i = 0; i < 900; i++)); do [ -n "$(ls checkpoints/*.ckpt 2>/dev/null)" ] && break; sleep 0.01; done
kill -9 $run; wait $run 2>/dev/null
check "it is killed in the middle" test -n "$(ls checkpoints)" -a -z "$(value rough.db test_loss)"
run rough; rows rough.db >rough.txt
check "and resumed has the numbers of the undisturbed run, to the bit" cmp -s calm.txt rough.txt
refused "voices are not parted" music 'length 42 is no multiple of four voices' task.length=42
wanted='^60 55 48 40 61 56 49 41 62 57 50 42' says "a model goes on with notes" music --db music.db --prompt '60 55 48 40 61' --length 11 --temperature 0
wanted='makes sequences of 40 tokens at most' says "and not beyond its sequences" music --db music.db --length 41
"$HARNESS" attend music --db music.db --length 6 --out maps >out 2>err
check "its attention is over what it reads: token 0, then the notes" test "$(tr '\n' ' ' <maps/tokens.txt)" = "0 60 55 48 40 61 "
wanted='makes no images' says "notes are no images" music --db music.db --complete
wanted='belong to --complete' says "--from is for images" music --db music.db --from 1

# ---- images -----------------------------------------------------------------------------------------------------------------
# Even rows of one brightness, odd rows of another.
image() { awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) for (y = 0; y < 32; y++) for (x = 0; x < 96; x++) printf "%c", y % 2 ? 65 + i % 5 : 100 }'; }
image 12 >cifar10.train-first8000.hwc; image 4 >cifar10.test.hwc
head -c 12 /dev/zero >cifar10.train-first8000.labels; head -c 4 /dev/zero >cifar10.test.labels
"$HARNESS" data prepare cifar10-part --from . >out 2>err; check "images are prepared" test $? = 0
experiment image 'image, data: cifar10-part, held_out: 4' linear 'batch: 2, max_steps: 30, eval_every: 15, keep: true' 'init: 0.2'
run image; check "image ends well" test $? = 0
check "a whole image is one sequence, some are held out" test "$(value image.db train_sequences) $(value image.db test_sequences) $(value image.db test_tokens)" = "8.000000 4.000000 12288.000000"
check "bits are nats by their size" holds "($(value image.db test_bits_per_dim) - $(value image.db test_loss) / log(2)) ^ 2 < 1e-9"
check "fewer than those of random bytes" holds "$(value image.db test_bits_per_dim) < 4"
refused "an image is not cut" image 'image 1 of split .train. of cifar10-part has 3072 bytes' task.length=768
refused "nor is a length that no image has" image 'length 1000 is not that of a square image' task.length=1000
"$HARNESS" sample image --db image.db --complete --number 3 --from 1 --temperature 0 --json --out pictures >completed.json 2>err
check "halves are completed" test $? = 0
check "and drawn" test -s pictures/completion.tsv -a -s pictures/completion.gp -a \( -s pictures/completion.png -o -z "$(command -v gnuplot)" \)
# shown ROW-OF-THE-SHEET: the bytes of its second image
shown() { awk -v row="$1" '$1 >= 34 && $1 < 66 && $2 >= row * 34 && $2 < row * 34 + 32 { print $3, $4, $5 }' pictures/completion.tsv; }
check "the last row is the original" cmp -s <(shown 2) <(tail -c +6145 cifar10.test.hwc | head -c 3072 | od -An -v -tu1 -w3 | awk '{ print $1, $2, $3 }')
check "the upper half is as it is given" cmp -s <(shown 1 | head -512) <(shown 2 | head -512)
check "and so is what is shown as given, with nothing below" cmp -s <(shown 0) <(shown 2 | head -512; yes 225 225 225 | head -512)
check "the lower half is said by the model" cmp -s <(shown 1 | tr ' ' '\n') <(grep -o '^ *[0-9]\+,\?$' completed.json | tr -d ' ,' | sed -n '3073,6144p')
wanted="split 'test' of cifar10-part has 4 images" says "images that are not there" image --db image.db --complete --number 3 --from 2
wanted="has no split 'dev'" says "a split that is not there" image --db image.db --complete --split dev
wanted='neither --prompt nor --length' says "a prompt is no half" image --db image.db --complete --prompt x

# ---- sound --------------------------------------------------------------------------------------------------------------------
le() { local x=$1; for ((i = 0; i < $2; i++)); do printf "\\x$(printf %02x $((x & 255)))"; x=$((x >> 8)); done; }
wav() { printf RIFF; le $((36 + 2 * $1)) 4; printf 'WAVEfmt '; le 16 4; le 1 2; le 1 2; le 8000 4; le 16000 4; le 2 2; le 16 2; printf data; le $((2 * $1)) 4; yes "$2" | tr -d '\n' | head -c $((2 * $1)); }
mkdir -p train valid test
wav 70000 abcdABCD >train/a.wav; wav 1000 abcdABCD >train/b.wav; wav 3000 abcdABCD >valid/a.wav; wav 2500 abcdABCD >test/a.wav
"$HARNESS" data prepare audio --from . >out 2>err; check "sound is prepared" grep -q 'train *71000 tokens *2 documents' out err
experiment audio 'audio, length: 1024' linear 'batch: 4, max_steps: 40, eval_every: 20'
run audio; check "audio ends well" test $? = 0
check "a sound is learned" holds "$(value audio.db test_bits_per_byte) < $(value audio.db unigram_bits_per_byte)"
check "recordings are cut, not joined" test "$(value audio.db train_sequences) $(value audio.db test_sequences) $(value audio.db test_tokens)" = "70.000000 3.000000 2500.000000"
experiment long 'audio, length: 70000, eval_sequences: 1, test_split: ""' linear 'batch: 1, max_steps: 1, eval_every: 1'
run long
check "70,000 samples are one sequence" test "$(value long.db train_sequences)" = 2.000000
wav 1000 abcd | head -c 500 >train/b.wav
"$HARNESS" data prepare audio --from . >out 2>err; check "a recording that is cut short is refused with its place" grep -q 'train/b.wav: byte 44: it is truncated: its sound has 456 of 2000 bytes' err
