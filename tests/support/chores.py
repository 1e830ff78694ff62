"""Chores of every kind in a folder that holds one file, `f`: a mount must show and leave what a plain folder does."""

from __future__ import annotations

from tests.support.programs import GIT, TREE, run_by_python

JSON_REWRITE = """
import json
for i in range(5):
    with open('j.json', 'w') as file:
        json.dump({'i': i}, file)
    with open('j.json', 'r+') as file:
        held = json.load(file)
        held['k'] = 'x' * i
        file.seek(0)
        json.dump(held, file)
        file.truncate()
print(open('j.json').read())
"""

RANDOM_AND_MAPPED = """
import mmap, os, random
chance = random.Random(1)
fd = os.open('h', os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
with mmap.mmap(fd, 0) as mapped:
    for _ in range(200):
        place = chance.randrange(1 << 20)
        os.pwrite(fd, b'abc', place)
        mapped[place // 2] = 7
os.close(fd)
"""

DBM = """
import dbm.dumb
with dbm.dumb.open('d') as found:
    for i in range(10):
        found[str(i)] = str(i) * 10
with dbm.dumb.open('d') as found:
    print(sorted(found.keys()), found['7'])
"""

SHARED_DESCRIPTOR = """
import subprocess
with open('o', 'w') as out:
    command = 'echo %d; sleep 0.05; echo %d'
    for process in [subprocess.Popen(['sh', '-c', command % (i, i)], stdout=out) for i in range(4)]:
        process.wait()
print(sorted(open('o').read().split()))
"""

GIT_MORE = f"""{GIT}
git init -q -b main --template= .; git add .; git commit -qm 1
echo x > g; git add g; git stash -q; git stash pop -q; git commit -qm 2
git checkout -q -b b HEAD~1; echo y > h; git add h; git commit -qm 3; git rebase -q main; git log --format=%s
git tag v1; git mv h h2; git commit -qm mv; git status --porcelain; git reset -q --hard v1; git fsck --strict 2>&1; ls
rm -rf .git
"""

CHORES = {
    "run what was copied": "cp /bin/echo e; chmod 755 e; ./e hi",
    "past the page cache": "dd if=/dev/zero of=z bs=4096 count=20 oflag=direct status=none; "
    "dd if=z iflag=direct bs=4096 status=none | wc -c; "
    "dd if=f of=z bs=512 seek=3 count=1 oflag=direct conv=notrunc status=none",
    "sparse": "truncate -s 3M s; echo x >> s; cp --sparse=always s s2; rsync -S s s3; stat -c %s s s2 s3",
    "gzip": "gzip -n f; ls; gunzip f.gz; ls",
    "backups": "sed -i.bak s/line/LINE/ f; perl -i.orig -pe s/LINE/x/ f; cp f g; cp -b f g; mv -b g f; ls",
    "compile": "printf 'int main(){return 0;}' > a.c; gcc -c a.c; gcc a.o -o a; ./a && echo ran; strip a; ./a; "
    "ar rcD l.a a.o; ranlib -D l.a; ar t l.a; rm a a.o l.a",
    "dbm": run_by_python(DBM),
    "sqlite": "sqlite3 d 'create table t(n)' 'with recursive c(x) as (select 1 union all select x + 1 from c where "
    "x < 2000) insert into t select x from c' 'delete from t where n % 2' vacuum 'pragma integrity_check' "
    "'select count(*) from t'",
    "sqlite's journals": 'for m in truncate persist memory; do sqlite3 d$m "pragma journal_mode=$m" '
    "'create table t(n)' 'insert into t values(1)' begin 'insert into t values (2)' rollback; "
    "sqlite3 d$m 'select n from t'; done; rm d*",
    "sqlite, four writers": "sqlite3 d 'create table t(n)'; for i in 1 2 3 4; do (for j in 1 2 3; do "
    "sqlite3 -cmd '.timeout 30000' d \"insert into t values ($i)\"; done) & done; wait; "
    "sqlite3 d 'select count(*), sum(n) from t' 'pragma integrity_check'; rm d",
    "tar": "tar cf a.tar f; cp f g; tar rf a.tar g; tar --delete -f a.tar f; tar tf a.tar; tar df a.tar; rm a.tar",
    "zip": "cp f g; zip -q a.zip f g; zip -qd a.zip f; unzip -Z1 a.zip; rm a.zip",
    "cut up": "csplit -s f 50 100; awk '{print > (NR % 3 \".out\")}' f; tac f > g; wc -l *",
    "log": "exec 3>>log; for i in 1 2 3; do echo $i >&3; cat log; done; mv log log.1; echo 4 >&3; exec 3>&-; cat log.1",
    "copytruncate": "exec 3>>log; echo 1 >&3; cp log log.1; : > log; echo 2 >&3; exec 3>&-; cat log log.1",
    "times": "touch -d 2001-02-03T04:05:06Z f; touch -r f g; stat -c %Y f g; find . -newermt 2002-01-01 -type f",
    "git": GIT_MORE,
    "one descriptor, four processes": run_by_python(SHARED_DESCRIPTOR) + "\nrm o",
    "append to oneself": "cat f >> g; cat g >> g 2>&1 || echo refused",
    "deep": "mkdir -p a/b/c/d/e; echo x > a/b/c/d/e/f; rm -r a/b; ls a; rmdir a; ls",
    "moves": "mv f g; mv g f; cp f g; mv -f g f; mkdir d; mv f d/; mv d/f .; rmdir d; ls",
    "install": "install -D f d/e/f; install -m 600 -T f d/e/g; stat -c %a d/e/g; install -d x/y; rmdir -p x/y",
    "rsync": f"{TREE}; rsync -a --delete ../tree/ t; rm ../tree/a/b/1; rsync -aiO --delete ../tree/ t; "
    "rsync -a --backup --suffix=.b --inplace f t/1; rsync -a --append-verify f t/2; rm -r ../tree",
    "JSON": run_by_python(JSON_REWRITE),
    "random and mapped": run_by_python(RANDOM_AND_MAPPED),
    "eight at once": "seq 24 | xargs -P 8 -I{} sh -c 'echo {} > x{}; cat x{} >> y{}'; cat y* | sort -n",
    "a counter under a lock": "for i in 1 2 3; do (for j in 1 2 3; do flock l sh -c "
    "'n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n'; done) & done; wait; cat n",
}
