"""What each thing that a program does costs in requests: the budgets of the design, by counting.

Each count is taken after the mount is gone, so that nothing which came late in the background is missed.
"""

from __future__ import annotations

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

INHERITED = """
import subprocess
with open('f', 'wb') as f:
    f.write(b'one\\n')
    f.flush()
    subprocess.run(['sh', '-c', 'echo two'], stdout=f, check=True)
    f.write(b'three\\n')
"""

THREADS = """
import threading
with open('f', 'wb') as f:
    writers = [threading.Thread(target=lambda n=n: f.write(b'%d\\n' % n)) for n in range(3)]
    for writer in writers:
        writer.start()
        writer.join()
"""

ONE_PUT = {
    "echo": ("echo hi > f", b"hi\n"),
    "bash's echo": ("bash -c 'echo hi > f'", b"hi\n"),
    "nothing": (": > f", b""),
    "touch": ("touch f", b""),
    "group": ("{ echo one; /bin/echo two; cat /dev/null; echo three; } > f", b"one\ntwo\nthree\n"),
    "bash's group": ("bash -c '{ /bin/echo one; (echo two); /bin/echo three; } > f'", b"one\ntwo\nthree\n"),
    "loop": ("for i in 1 2 3; do /bin/echo $i; done > f", b"1\n2\n3\n"),
    "exec": ("exec 3>f; echo one >&3; /bin/echo two >&3; exec 3>&-", b"one\ntwo\n"),
    "tee": ("echo hi | tee f > /dev/null", b"hi\n"),
    "cp": ("printf hi > ../outside; cp ../outside f", b"hi"),
    "cp -p": ("printf hi > ../outside; cp -p ../outside f", b"hi"),
    "install": ("printf hi > ../outside; install -m 600 ../outside f", b"hi"),
    "mv from outside": ("printf hi > ../outside; mv ../outside f", b"hi"),
    "dd": ("printf hi | dd of=f status=none", b"hi"),
    "dd with fsync": ("printf hi | dd of=f conv=fsync status=none", b"hi"),
    "rsync --inplace": ("printf hi > ../outside; rsync -a --inplace ../outside f", b"hi"),
    "inherited descriptor": (f'python3 -c "{INHERITED}"', b"one\ntwo\nthree\n"),
    "threads": (f'python3 -c "{THREADS}"', b"0\n1\n2\n"),
    "dup": ("python3 -c \"import os; d = os.open('f', 65); os.close(os.dup(d)); os.write(d, b'x')\"", b"x"),
}


@pytest.mark.parametrize("case", ONE_PUT)
def test_a_new_file_costs_one_put(mounted: Mounted, store: StoreApi, case: str) -> None:
    script, content = ONE_PUT[case]
    assert mounted.cost(script) == ["PUT f"]
    assert store.content("f") == content


@pytest.mark.parametrize(
    "case", ["echo", "group", "exec", "tee", "cp", "dd", "nothing", "inherited descriptor"]
)
def test_an_overwrite_costs_one_put(mounted: Mounted, store: StoreApi, case: str) -> None:
    script, content = ONE_PUT[case]
    mounted.sh("echo old content > f")
    assert mounted.cost(script) == ["PUT f"]
    assert store.content("f") == content


def test_an_overwrite_of_a_record_of_unknown_type_asks_for_its_type(mount: Mount, store: StoreApi) -> None:
    """The type is kept, and only the record's headers tell it."""
    store.put("f", b"by another client", "text/x-special")
    with mount() as mounted:
        assert mounted.cost("echo new > f") == ["HEAD f", "PUT f"]
    assert store.content("f") == b"new\n"
    assert store.content_type("f") == "text/x-special"


def test_an_overwrite_after_reading_costs_one_put(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"by another client", "text/x-special")
    with mount() as mounted:
        mounted.run("cat", "f")
        assert mounted.cost("echo new > f") == ["PUT f"]
    assert store.content_type("f") == "text/x-special"


def test_an_append_costs_a_get_and_a_put(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"old\n")
    with mount() as mounted:
        assert mounted.cost("echo new >> f") == ["GET f", "PUT f"]
    assert store.content("f") == b"old\nnew\n"


def test_truncate_by_path_costs_one_put(mounted: Mounted, store: StoreApi) -> None:
    mounted.sh("echo content > f")
    assert mounted.cost("python3 -c \"import os; os.truncate('f', 0)\"") == ["PUT f"]
    assert store.content("f") == b""


def test_unlink_costs_one_delete(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"x")
    with mount() as mounted:
        assert mounted.cost("rm f") == ["DELETE f"]
    assert store.keys() == []


def test_unlink_of_what_is_open_costs_no_put(mounted: Mounted, store: StoreApi) -> None:
    assert mounted.cost("exec 3>f; echo x >&3; rm f; echo y >&3; exec 3>&-") == []
    assert store.keys() == []


def test_a_rename_costs_a_put_and_a_delete(mounted: Mounted, store: StoreApi) -> None:
    mounted.sh("echo x > a")
    assert mounted.cost("mv a b") == ["PUT b", "DELETE a"]
    assert store.content("b") == b"x\n"


def test_times_and_modes_cost_nothing(mounted: Mounted) -> None:
    mounted.sh("echo x > f")
    assert mounted.cost("chmod 600 f; touch -d yesterday f; touch f; chown $(id -u) f") == []


def test_reading_costs_one_get(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"x" * 300_000)
    with mount() as mounted:
        assert mounted.cost("cat f | wc -c; head -c 10 f; tail -c 10 f; cp f ../copy") == ["GET f"]


def test_a_folder_tree_that_is_filled_at_once_costs_no_markers(mounted: Mounted) -> None:
    requests = mounted.cost("mkdir -p a/b; echo x > a/b/f; echo y > a/g")
    assert requests == ["PUT a!2Fb!2Ff", "PUT a!2Fg"]


def test_a_folder_that_comes_and_goes_costs_nothing(mounted: Mounted) -> None:
    assert mounted.cost("mkdir a; mkdir a/b; rmdir a/b a") == []


def test_ls_costs_a_list_and_again_nothing(mount: Mount, store: StoreApi) -> None:
    for number in range(5):
        store.put(f"f{number}", b"x")
    with mount() as mounted:
        with mounted.counting() as requests:
            assert mounted.run("ls").split() == [f"f{number}" for number in range(5)]
        assert requests == ["LIST"]
        assert mounted.cost("ls; ls -l; stat f0 f1 f2; test ! -e absent; test ! -e other; ls -la") == []


def test_statfs_costs_nothing(mounted: Mounted) -> None:
    assert mounted.cost("df . ; stat -f .") == []
