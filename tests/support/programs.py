"""What people do to files with the programs they have: scripts whose output and files a plain folder tells, too."""

from __future__ import annotations

from dataclasses import dataclass

LINES = "seq -f 'line %g' 1 200 > f"

TREE = "mkdir -p ../tree/a/b; for n in 1 2 3; do seq $n > ../tree/$n; seq $n > ../tree/a/b/$n; done"
"""Six files in two folders, outside the mount; `b` is the folder of three, `a` holds nothing else."""

SYNCED = f"{TREE}; rsync -a ../tree/ tree"

GIT = """
export GIT_AUTHOR_DATE='2024-01-01T00:00:00Z' GIT_COMMITTER_DATE='2024-01-01T00:00:00Z' GIT_CONFIG_GLOBAL=/dev/null
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com
"""

EMACS = """
import os
new = open('f', 'rb').read().replace(b'line', b'LINE')
try:
    os.symlink('me@here.1:1', '.#f')
except PermissionError:
    lock = os.open('.#-emacsHnuX4q', os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(lock, b'me@here.1:1')
    os.fchmod(lock, 0o644)
    os.close(lock)
    os.rename('.#-emacsHnuX4q', '.#f')
auto_save = os.open('#f#', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
os.write(auto_save, new)
os.close(auto_save)
os.rename('f', 'f~')
file = os.open('f', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
os.write(file, new)
os.fsync(file)
os.close(file)
os.close(os.open('f', os.O_WRONLY))
os.unlink('.#f')
os.unlink('#f#')
"""
"""What strace(1) shows of a session with one save: the lock is a file where no symbolic link can be had, the backup a
rename."""

LIBREOFFICE = """
import os
lock = os.open('.~lock.f#', os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
os.write(lock, b',me,here,;')
os.close(lock)
new = open('f', 'rb').read().replace(b'line', b'LINE')
written = os.open('lu12345abc.tmp', os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.write(written, new)
os.fsync(written)
os.close(written)
os.rename('lu12345abc.tmp', 'f')
os.unlink('.~lock.f#')
"""
"""A lock file beside the document; the new one is written beside it, too, and renamed over it."""

PYTHON_MMAP = """
import mmap
with open('f', 'r+b') as file, mmap.mmap(file.fileno(), 0) as mapped:
    mapped[0:4] = b'LINE'
"""

PYTHON_SHUTIL = """
import os, shutil
shutil.copytree('../tree', 'copied'); shutil.move('f', 'copied/moved'); shutil.copyfile('copied/1', 'one')
shutil.rmtree('copied/a'); print(sorted(os.listdir('copied')))
"""

PYTHON_TEMPFILE = """
import tempfile, os
with tempfile.NamedTemporaryFile(dir='.') as named, tempfile.TemporaryFile(dir='.') as unnamed:
    for file in named, unnamed:
        file.write(b'scratch'); file.flush(); file.seek(0); print(file.read())
with tempfile.TemporaryDirectory(dir='.') as folder:
    open(os.path.join(folder, 'x'), 'wb').close()
"""

PYTHON_ZIPFILE = """
import zipfile
with zipfile.ZipFile('z.zip', 'w') as archive:
    archive.writestr('one', 'one')
with zipfile.ZipFile('z.zip', 'a') as archive:
    archive.writestr('two', b'two' * 1000)
with zipfile.ZipFile('z.zip') as archive:
    print(archive.testzip(), archive.namelist(), archive.read('two')[:6])
"""


@dataclass(frozen=True)
class Program:
    """Steps by name, each in a mount of its own, on the files that the one before has left."""

    steps: dict[str, str]
    before: str = LINES
    """Makes the files that the first step finds."""
    varies: tuple[str, ...] = ()
    """Patterns of paths whose bytes hold a time or a random number."""


def run_by_python(code: str) -> str:
    """Give a line of a shell script."""
    return f"python3 - <<'END'\n{code}END"


PROGRAMS = {
    "shell": Program({"`echo > f`": "echo new > f", "`echo >> f`": "echo more >> f", "`rm f`": "rm f"}),
    "in place": Program(
        {
            "`tee -a`": "seq 3 | tee -a f",
            "`dd conv=notrunc`": "printf XYZ | dd of=f bs=1 seek=100 conv=notrunc status=none",
            "`truncate`": "truncate -s 100 f",
            "`sort -o f f`": "sort -r -o f f",
            "Python's `mmap`": run_by_python(PYTHON_MMAP),
        }
    ),
    "editors": Program(
        {
            "`vim`": "vim -es -u NONE -i NONE -N -c '%s/line/LINE/' -c wq f",
            "`ex`": "printf '1d\\nx\\n' | ex -s -u NONE -i NONE f",
            "`ed`": "printf '1d\\nw\\nq\\n' | ed -s f",
            "`sed -i`": "sed -i s/LINE/line/ f",
            "`perl -pi`": "perl -pi -e s/line/LINE/ f",
            "`patch`": "sed 5d f > ../g; diff -u f ../g > ../p || patch -s f ../p",
            "gedit's way (`gio save`)": "sed s/LINE/line/ f > ../g; gio save f < ../g",
            "LibreOffice's way": run_by_python(LIBREOFFICE),
            "emacs's way": run_by_python(EMACS),
        }
    ),
    "copies": Program(
        {
            "`cp -a`, 6 files in": f"{TREE}; cp -a ../tree .",
            "`cp -a` of them inside": "cp -a tree copy",
            "`mv` of a file": "mv tree/1 tree/moved",
            "`mv` from another file system": "echo new > ../g; mv ../g f",
            "`gio copy`": "echo new > ../g; gio copy ../g g",
            "`install`": "echo newer > ../g; install -m 644 ../g f",
            "`split` into 4": "seq 400 > ../g; split -n l/4 ../g part.",
            "`find -newer`": "touch -d 2001-01-01 ../then; find . -type f -newer ../then | sort",
            "`rm -r` of 6": "rm -r copy",
        }
    ),
    "rsync": Program(
        {
            "`rsync -a`, 6 files in": f"{TREE}; rsync -a ../tree/ tree",
            "`rsync -a`, 6 files out": "rsync -a tree/ ../out; cat ../out/1 ../out/a/b/3",
        }
    ),
    "rsync again": Program({"`rsync -a` of the same 6 again": "rsync -a ../tree/ tree"}, before=SYNCED),
    "rsync changed": Program(
        {"`rsync -a`, one of 6 changed": "echo new > ../tree/1; rsync -a ../tree/ tree"},
        before=SYNCED,
    ),
    "rsync in place": Program(
        {"`rsync -a --inplace`, one of 6 changed": "echo new > ../tree/1; rsync -a --inplace ../tree/ tree"},
        before=SYNCED,
    ),
    "tar": Program(
        {
            "`tar -x`, 6 files in": f"{TREE}; tar -C .. -cf ../t.tar tree; tar -xf ../t.tar",
            "`tar -c`, 6 files out": "tar --sort=name -cf ../u.tar tree; tar -tf ../u.tar; tar -xOf ../u.tar",
        },
    ),
    "zip": Program(
        {
            "`zip`, a new archive": "zip -q z.zip f; unzip -p z.zip",
            "`zip`, one more file in it": f"{TREE}; cp ../tree/3 g; zip -q z.zip g; unzip -p z.zip",
            "`unzip -t`": "unzip -tq z.zip",
            "`unzip` over the files": "unzip -qo z.zip",
            "Python's `zipfile`": run_by_python(PYTHON_ZIPFILE),
        },
        varies=("z.zip",),
    ),
    "python": Program(
        {
            "Python's `tempfile`, three that go": run_by_python(PYTHON_TEMPFILE),
            "Python's `shutil`": f"{TREE}; {run_by_python(PYTHON_SHUTIL)}",
        }
    ),
    "make": Program(
        {
            "`make`, one target": "printf 'g: f\\n\\tcp f g\\n' > Makefile; make",
            "`make`, up to date": "make",
        }
    ),
    "sqlite": Program(
        {
            "`sqlite3`, a table and 2 inserts": "sqlite3 d 'create table t (n)' 'insert into t values (1)' "
            "'insert into t values (2)'; sqlite3 d 'select sum(n) from t' 'pragma integrity_check'",
            "`sqlite3` by WAL, 2 inserts": "sqlite3 d 'pragma journal_mode=wal' 'insert into t values (3)' "
            "'insert into t values (4)'; sqlite3 d 'select sum(n) from t' 'pragma integrity_check'",
        }
    ),
    "git": Program(
        {
            "`git init`": f"{GIT} git init -q -b main --template= .",
            "`git add`, `git commit` of one file": f"{GIT} git add f; git commit -q -m first",
            "`git status`": f"{GIT} git status --porcelain",
            "`git fsck`": f"{GIT} git fsck --strict 2>&1",
            "`git clone` out": f"{GIT} git clone -q . ../clone 2>&1; cat ../clone/f; git -C ../clone fsck 2>&1",
            "`git gc`": f"{GIT} git gc -q 2>&1; git fsck --strict 2>&1; git log --format=%H",
        },
        varies=("*config", "*index"),
    ),
}
