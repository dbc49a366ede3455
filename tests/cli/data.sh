#!/bin/bash
# harness data from the outside: generated corpora, packed files, damage, two at once, downloads that resume, archives
# that mean harm; and real data sets where HARNESS_DATA names a folder that has them.
set -u
H=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) server=
trap '[ -n "$server" ] && kill "$server" 2>/dev/null; rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache
cache=$XDG_CACHE_HOME/harness

ok() { if eval "$2"; then echo "ok - $1"; else sed 's/^/# /' "$tmp/out" "$tmp/err" | tail -n 20; echo "not ok - $1"; fi; }
skip() { if [ -n "${CI:-}" ]; then echo "not ok - $1: $2, in CI"; else echo "ok - $1 # SKIP $2"; fi; }
data() { "$H" data "$@" >"$tmp/out" 2>"$tmp/err"; rc=$?; }
says() { grep -qF -- "$1" "$tmp/out" "$tmp/err"; }
have() { command -v "$1" >/dev/null 2>&1; }

# ---- the command line ----------------------------------------------------------------------------------------------
data list;                       ok "list names every set" "[ $rc = 0 ] && says wikitext-103 && says swiss-prot && says generated-text"
data list --json;                ok "list --json is an array" "[ $rc = 0 ] && [ \"\$(head -c1 $tmp/out)\" = '[' ]"
data list enwik8;                ok "one set is shown with source, size and digest" "says http://mattmahoney.net/dc/enwik8.zip && says '36445475 bytes' && says 547994d9980ebed1"
data list swiss-prot;            ok "what is not published is shown as unknown" "says 'size unknown, SHA-256 unknown'"
data list wikitext-13;           ok "a typo is told the nearest name" "[ $rc = 2 ] && says \"did you mean 'wikitext-103'?\""
data;                            ok "a verb is expected" "[ $rc = 2 ] && says 'list, get, prepare or verify is expected'"
data prepare;                    ok "a name is expected" "[ $rc = 2 ] && says 'the name of a data set is expected'"
data prepare enwik8 --from;      ok "a value is expected" "[ $rc = 2 ] && says '--from: a value is expected'"
data get enwik8 --limit 3;       ok "an option belongs to its verb" "[ $rc = 2 ] && says \"'--limit' does not belong to get\""
data prepare enwik8 --limit 3x;  ok "a number is a number" "[ $rc = 2 ] && says 'such as 20M'"
data prepare enwik8;             ok "what is not here is said with the way to it" "[ $rc = 1 ] && says 'harness data get enwik8'"
data prepare books;              ok "a local copy is asked for" "[ $rc = 1 ] && says 'books is prepared from a local copy: --from FOLDER'"
data get books;                  ok "what has no archive cannot be fetched" "[ $rc = 1 ] && says 'not to be had as one archive'"
data prepare proteins --from "$tmp" --level words; ok "a level that does not fit is refused" "[ $rc = 1 ] && says 'proteins is read as protein'"
data prepare enwik8 --from "$tmp" --level words; ok "so are words where splits are ranges of bytes" "[ $rc = 1 ] && says 'ranges of bytes'"
data verify;                     ok "an empty cache is said to be empty" "[ $rc = 0 ] && says 'there is no data set here'"

# ---- prepare ------------------------------------------------------------------------------------------------------------
data prepare generated-text;     ok "a corpus is made and prepared" "[ $rc = 0 ] && says 'vocabulary 2007' && says '222061 tokens' && says '0.134 %'"
file=$(head -1 "$tmp/out")
data prepare generated-text;     ok "the second time it is there already" "[ $rc = 0 ] && says 'is prepared already' && says '222061 tokens'"
data prepare generated-text --min-count 1; ok "other options make another set" "[ $rc = 0 ] && ! says 'prepared already' && [ \"\$(head -1 $tmp/out)\" != $file ]"
data prepare generated-text --limit 50k;   ok "train can be cut short, with whole lines" "[ $rc = 0 ] && awk '\$1 == \"train\" { exit !(\$2 > 49900 && \$2 <= 50000) }' $tmp/out"
data prepare generated-text --level bytes; ok "text can be read as bytes" "[ $rc = 0 ] && says 'vocabulary 256' && says '881864 tokens'"
data verify generated-text;      ok "verify names source digests" "[ $rc = 0 ] && says 'prepared, sound' && says 'file train 135609a315d080ae'"
data prepare generated-proteins; ok "proteins come with their unigram baseline" "[ $rc = 0 ] && says 'unigram accuracy 11.4'"

copy=$tmp/copy && mkdir "$copy" && cp "$cache"/unpacked/generated-text/*.txt "$copy"
for how in "gzip -n:gz" "xz -T1:xz" "zstd -q --rm:zst"; do
  tool=${how%% *} tool=${tool%%:*} end=${how##*:} command=${how%:*}
  if ! have "$tool"; then echo "ok - .$end is read as the plain file # SKIP no $tool"; continue; fi
  rm -rf "$copy.packed" && cp -r "$copy" "$copy.packed" && $command "$copy.packed"/*.txt
  data prepare generated-text --from "$copy.packed"
  ok ".$end is read as the plain file" "[ $rc = 0 ] && says '222061 tokens' && says '22199 tokens'"
  head -c 100000 "$copy.packed/generated.train.txt.$end" >"$tmp/cut" && mv "$tmp/cut" "$copy.packed/generated.train.txt.$end"
  data prepare generated-text --from "$copy.packed"
  ok ".$end cut short is refused with file and line" "[ $rc = 1 ] && grep -q 'generated.train.txt.$end:[0-9]*: the compressed data are broken or end too early' $tmp/err"
done
ok "nothing half made is left" "[ -z \"\$(find $cache -name '*.part')\" ]"
cp "$copy/generated.valid.txt" "$copy/generated.train.txt.gz" && rm "$copy/generated.train.txt"
data prepare generated-text --from "$copy"; ok "a name that promises packing is held to it" "[ $rc = 1 ] && says 'not compressed as its name says'"

# ---- damage -----------------------------------------------------------------------------------------------------------------
data prepare generated-text
file=$(head -1 "$tmp/out")
printf x | dd of="$file" bs=1 seek=300000 conv=notrunc status=none
data verify generated-text;      ok "a changed byte is found" "[ $rc = 1 ] && says 'it is damaged: prepare the set again'"
data prepare generated-text;     ok "prepare makes a damaged set again" "[ $rc = 0 ] && ! says 'prepared already' && says '222061 tokens'"
truncate -s -64 "$file"
data verify;                     ok "a truncated file is found" "[ $rc = 1 ] && says 'it is truncated'"
(trap '' XFSZ; ulimit -f 200; "$H" data prepare generated-text --min-count 2) >"$tmp/out" 2>"$tmp/err"; rc=$?
ok "a full disk is told, and leaves nothing" "[ $rc = 1 ] && says 'cannot be written (File too large)' && [ -z \"\$(find $cache -name '*.part')\" ]"

# ---- two at once -----------------------------------------------------------------------------------------------------------------
rm -rf "$cache/prepared"
for i in 1 2 3 4; do "$H" data prepare generated-text >"$tmp/out.$i" 2>"$tmp/err.$i" & pids[i]=$!; done
failed=0; for i in 1 2 3 4; do wait "${pids[i]}" || failed=1; done
ok "of four at once one makes the set" "[ $failed = 0 ] && [ \"\$(grep -l 'of text in' $tmp/err.? | wc -l)\" = 1 ] && [ \"\$(cat $tmp/out.? | sort -u | wc -l)\" = 5 ]"
rm -rf "$cache/prepared" && mkdir -p "$cache/prepared" && exec 9>"$cache/prepared/generated-text.lock" && flock 9
"$H" data prepare generated-text >"$tmp/out" 2>"$tmp/err" 9>&- & pid=$!
for _ in {1..100}; do grep -q 'waiting for it' "$tmp/err" && break; sleep 0.05; done
ok "who comes second says that it waits" "says 'another process is preparing generated-text: waiting for it' && kill -0 $pid"
kill -9 $pid; wait $pid 2>/dev/null; exec 9>&-
touch "$cache/prepared/generated-text-$(basename "$file" .tokens | sed 's/.*-//').tokens.1.part"
data prepare generated-text;     ok "a killed process leaves neither a lock nor a part" "[ $rc = 0 ] && [ -z \"\$(find $cache -name '*.part')\" ]"

# ---- archives and downloads ------------------------------------------------------------------------------------------------------
python=$(command -v python3)
if [ -z "$python" ]; then skip "downloads and hostile archives" "no python3"; exit; fi
mkdir "$tmp/www"
"$python" - "$tmp/www" "$cache/unpacked/generated-proteins/generated.train.fasta" >"$tmp/port" 2>"$tmp/log" <<'PY' &
import gzip, http.server, io, os, sys, tarfile, zipfile
www, fasta = sys.argv[1:]
text = open(fasta, 'rb').read()
with open(www + '/uniprot_sprot.fasta.gz', 'wb') as f:
    f.write(gzip.compress(text, 1, mtime=0))
def evil(name, *entries):
    with tarfile.open(www + '/' + name, 'w:gz') as tar:
        for path, kind, content in entries:
            e = tarfile.TarInfo(path)
            e.type, e.size = kind, len(content) if kind == tarfile.REGTYPE else 0
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE): e.linkname = content.decode()
            tar.addfile(e, io.BytesIO(content) if e.size else None)
R = tarfile.REGTYPE
listops = [('lra_release/listops-1000/basic_%s.tsv' % s, R, b'Source\tTarget\n( ( [MAX 2 ) 9 ) ]\t9\n') for s in ('train', 'val', 'test')]
for folder, entries in (('good', listops), ('dots', [('a/../../escaped', R, b'x')]), ('absolute', [(www + '/escaped', R, b'x')]),
                        ('symlink', [('s', tarfile.SYMTYPE, b'/'), ('s/escaped', R, b'x')]), ('hardlink', [('h', tarfile.LNKTYPE, b'/etc/passwd')]),
                        ('device', [('d', tarfile.FIFOTYPE, b'')]), ('bomb', [('b', R, bytes(200 << 20))])):
    os.mkdir(www + '/' + folder)
    evil(folder + '/lra_release.gz', *entries)
for folder, prefix in (('zip', ''), ('zipdots', '../../')):
    os.mkdir(www + '/' + folder)
    with zipfile.ZipFile(www + '/' + folder + '/lra_release.gz', 'w') as z:
        for path, _, content in listops: z.writestr(prefix + path + ('' if not prefix else '.escaped'), content)
os.mkdir(www + '/cut')
with open(www + '/cut/lra_release.gz', 'wb') as f:
    f.write(open(www + '/good/lra_release.gz', 'rb').read()[:-40])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, plain = www + self.path.replace('/plain', ''), '/plain' in self.path
        if not os.path.isfile(path): return self.send_error(404)
        body, wanted = open(path, 'rb').read(), self.headers.get('Range')
        begin = int(wanted.split('=')[1].split('-')[0]) if wanted and not plain else 0
        if begin >= len(body) and begin: return self.send_error(416)
        self.send_response(206 if begin else 200)
        if begin: self.send_header('Content-Range', 'bytes %d-%d/%d' % (begin, len(body) - 1, len(body)))
        self.send_header('Content-Length', str(len(body) - begin))
        self.end_headers()
        self.wfile.write(body[begin:])
        sys.stderr.write('SENT %s %d\n' % (self.path, begin)); sys.stderr.flush()
    def log_message(self, *args): pass
server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
PY
server=$!
for _ in {1..200}; do [ -s "$tmp/port" ] && break; sleep 0.05; done
url=http://127.0.0.1:$(cat "$tmp/port") protein=$cache/downloads/swiss-prot/uniprot_sprot.fasta.gz
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy

data get swiss-prot --mirror "$url/nowhere";  ok "what the server has not is said" "[ $rc = 1 ] && says '404'"
rm -f "$protein.part"; head -c 5000 "$tmp/www/uniprot_sprot.fasta.gz" >"$protein.part"
data get swiss-prot --mirror "$url";          ok "a download goes on where it ended" "[ $rc = 0 ] && grep -q 'SENT /uniprot_sprot.fasta.gz 5000' $tmp/log && cmp $protein $tmp/www/uniprot_sprot.fasta.gz"
ok "a digest that nobody published is kept" "says 'none is published, this one is kept' && grep -q '^[0-9a-f]\{64\}  uniprot' $protein.sha256"
data prepare swiss-prot;                      ok "what was fetched is prepared, in parts by name" "[ $rc = 0 ] && awk '\$1 ~ /train|valid|test/ { n += \$4 } END { exit n != 2000 }' $tmp/out"
data verify swiss-prot;                       ok "verify holds the first copy's digest" "[ $rc = 0 ] && says 'as in the first copy'"
printf x | dd of="$protein" bs=1 seek=100 conv=notrunc status=none
data verify swiss-prot;                       ok "verify finds a changed download" "[ $rc = 1 ] && says '(that of the first copy)'"
rm -rf "$protein" "$cache/unpacked/swiss-prot"; head -c 7000 "$tmp/www/uniprot_sprot.fasta.gz" >"$protein.part"
data get swiss-prot --mirror "$url/plain";    ok "a server without ranges sends all of it again" "[ $rc = 0 ] && cmp $protein $tmp/www/uniprot_sprot.fasta.gz"
rm -rf "$protein" "$cache/unpacked/swiss-prot"; cp "$tmp/www/uniprot_sprot.fasta.gz" "$protein.part"
data get swiss-prot --mirror "$url";          ok "a part that is whole already is no trouble" "[ $rc = 0 ] && cmp $protein $tmp/www/uniprot_sprot.fasta.gz"
rm -rf "$protein" "$cache/unpacked/swiss-prot"; (head -c 4000 "$tmp/www/uniprot_sprot.fasta.gz"; head -c 10 /dev/zero) >"$protein.part"
data get swiss-prot --mirror "$url";          ok "a part of something else is found out by its digest" "[ $rc = 1 ] && says 'has the SHA-256' && [ ! -e $protein ] && [ ! -e $protein.part ]"
data get swiss-prot --from "$tmp/www";        ok "a local copy of the archive does as well" "[ $rc = 0 ] && cmp $protein $tmp/www/uniprot_sprot.fasta.gz"
cp "$tmp/www/uniprot_sprot.fasta.gz" "$tmp/www/enwik8.zip"
data get enwik8 --mirror "$url";              ok "a file of another size than published is refused" "[ $rc = 1 ] && says 'expected 36445475' && [ ! -e $cache/downloads/enwik8/enwik8.zip ]"
cp "$tmp/www/uniprot_sprot.fasta.gz" "$tmp/www/wikitext-2-v1.zip"
data get wikitext-2 --mirror "$url";          ok "a file of another digest than published is refused" "[ $rc = 1 ] && says 'expected 92675f1d63015c1c' && [ ! -e $cache/unpacked/wikitext-2 ]"

listops() { rm -rf "$cache/downloads/listops" "$cache/unpacked/listops"; data get listops --mirror "$url/$1"; }
listops good;     ok "an archive is unpacked" "[ $rc = 0 ] && [ -s $cache/unpacked/listops/lra_release/listops-1000/basic_val.tsv ]"
data prepare listops; ok "and prepared" "[ $rc = 0 ] && says 'vocabulary 17' && says '4 tokens'"
listops zip;      ok "a zip too" "[ $rc = 0 ] && [ -s $cache/unpacked/listops/lra_release/listops-1000/basic_val.tsv ]"
for evil in dots:'leaves its folder' zipdots:'leaves its folder' absolute:'an absolute name' symlink:'is a link' hardlink:'is a link' device:'neither a file nor a folder' \
            bomb:'unpacks to more than it should' cut:'lra_release.gz: '; do
  listops "${evil%%:*}"
  ok "an archive that means harm or is cut short is refused whole: ${evil%%:*}" "[ $rc = 1 ] && says '${evil#*:}' && [ -z \"\$(find $tmp -name '*escaped*')\" ] && [ ! -e $cache/unpacked/listops ] && [ ! -e $cache/unpacked/listops.part ]"
done

# ---- real data -------------------------------------------------------------------------------------------------------------------
if [ -z "${HARNESS_DATA:-}" ]; then echo "ok - real data sets # SKIP HARNESS_DATA names no folder that has them"; exit; fi
real() { data prepare "$@"; }
real wikipedia-en --limit 2M --from "$HARNESS_DATA/wikipedia-en" --from "$HARNESS_DATA/wikitext"
ok "WikiText-103's valid and test have the published counts" "[ $rc = 0 ] && says '217646 tokens' && says '245569 tokens'"
real proteins --from "$HARNESS_DATA/proteins"; ok "proteins" "[ $rc = 0 ] && says '38558026 tokens   106000 documents' && says 'perplexity 17.9'"
real jsb-chorales --from "$HARNESS_DATA/music"; ok "chorales have the published counts" "[ $rc = 0 ] && says '220912 tokens      229 documents'"
real audio --from "$HARNESS_DATA/audio"; ok "recordings" "[ $rc = 0 ] && says '246240 tokens        3 documents' && says '52640 tokens' && says '96800 tokens'"
real cifar10-part --from "$HARNESS_DATA/cifar10"; ok "images" "[ $rc = 0 ] && says '8000 documents' && says '10000 documents'"
real wmt-en-de --from "$HARNESS_DATA/wmt-en-de"; ok "sentence pairs" "[ $rc = 0 ] && says '2737 documents' && says '275041 documents'"
