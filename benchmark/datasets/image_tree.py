"""The images in a folder and its subfolders, and everything there that is passed over, by reason.

What is not an image is counted in `ImageTree.notes`. What the user would believe to be there but is not (a link to an
unmounted disk, a file that iCloud has evicted, a class folder without a readable image) is a fault, in
`ImageTree.problems`.

Links are followed, as by torchvision's ImageFolder, but no folder is read twice: a link to a folder that is read
anyway, such as a parent, is passed over.
"""

import errno
import os
import re
import stat
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmark.core.errors import UserError
from benchmark.core.escape import visible
from benchmark.core.wording import counted
from benchmark.images.decode import FORMATS, shape_of

SUFFIXES_OF = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
}  # by format of Pillow
SUFFIXES = tuple(suffix for kind in FORMATS for suffix in SUFFIXES_OF.get(kind, ()))
NOT_READ = frozenset(
    suffix
    for suffixes in (
        ".avif .avifs .heic .heics .heif .hif .jxl .jp2 .j2k .jpx .jpf .psd .svg .tga .dds .ico .icns .pcx .exr .hdr",
        ".raw .dng .cr2 .cr3 .crw .nef .nrw .arw .srf .orf .rw2 .raf .pef .srw .3fr .erf .kdc .dcm .xcf .eps .pfm",
    )
    for suffix in suffixes.split()
) - {*SUFFIXES}  # of image formats that are not read
SYSTEM = re.compile(
    r"\._.*|\.ds_store|e?thumbs(_vista)?\.db|ehthumbs.*\.db|desktop\.ini|\.?picasa\.ini|@eadir|[#@]recycle|[#@].*snapshot"
    r"|\.appledouble|__macosx|\$recycle\.bin|recycler|\.trash.*|\.thumb(nail)?s?|\.ipynb_checkpoints|lost\+found"
    r"|\.spotlight-v100|\.fseventsd|\.temporaryitems|\.documentrevisions-v100|\.apdisk|\.directory|__pycache__|\.nomedia"
    r"|\.git(ignore|attributes|keep)?|\.dvc(ignore)?|\.svn|\.hg|\.synology.*|system volume information",
    re.DOTALL | re.IGNORECASE,
)  # names that operating systems, NAS systems and other programs give to their own files and folders
DEEPEST = 16  # limit of nested folders
INCOMPLETE = "The copy is incomplete, or its files are elsewhere; download it again, or unpack it again."
SHOWN = 12  # reasons that the notes name
LONGEST = 100  # characters of a path in a sentence
_EVICTED = re.compile(r"\.(.+)\.icloud", re.DOTALL)
_SUFFIX = re.compile(r"\.[a-z][a-z0-9_-]{0,11}")


class Reason(NamedTuple):
    """Why something is not used.

    Attributes:
        one: what one such thing is.
        many: what several are.
        remedy: what the user can do; empty if nothing needs to be done.
    """

    one: str
    many: str
    remedy: str = ""


# For passing over:
UNNAMED = Reason("image whose name has no suffix", "images whose names have no suffix", "rename to .jpg or .png")
PLAIN = Reason("file without a suffix", "files without a suffix")
HIDDEN = Reason("hidden file or folder", "hidden files or folders")
LITTER = Reason("system file or folder", "system files or folders")
SPECIAL = Reason("socket, pipe or device", "sockets, pipes or devices")
READ_ANYWAY = Reason("link to a folder that is read anyway, or to one above", "links to folders that are read anyway")
STRAY = Reason("image outside of the class folders", "images outside of the class folders")
DEEP = Reason("folder inside a class folder", "folders inside class folders")
LINK = Reason("link to nothing", "links to nothing")

# Problems:
LOST = Reason("link to nothing", "links to nothing", "mount the disk, or fetch the files (git annex get, dvc pull)")
EVICTED = Reason("image that is only in iCloud", "images that are only in iCloud", "download them in the Finder")
CIRCLE = Reason("link that leads in a circle", "links that lead in a circle", "remove them")
FORBIDDEN = Reason("file or folder that cannot be read", "files or folders that cannot be read", "make them readable")
EMPTY = Reason(
    "folder without an image", "folders without an image", "add, rename or convert images, or move it elsewhere"
)


class ImageTree:
    """What a folder holds.

    Args:
        root: the folder.
        depth: depth of the class folders below it, 1 or more; images elsewhere are passed over. None: any depth, except
            that more than `DEEPEST` levels are a mistake.

    Attributes:
        root: the folder.
        images: sorted names of the images in each folder that holds some, by its path below `root`; "" is `root`.
        imageless: folders that hold neither images that can be read nor folders.

    Raises:
        UserError: the folder cannot be read, or folders are nested more than `DEEPEST` deep.
    """

    def __init__(self, root: Path, depth: int | None = None) -> None:
        self.root, self._depth = root, depth
        self.images: dict[str, list[str]] = {}
        self._passed: defaultdict[Reason, list[str]] = defaultdict(list)
        self._faults: defaultdict[Reason, list[str]] = defaultdict(list)
        self._linked_out: list[str] = []
        self._full: set[str] = set()  # folders that hold an image or a folder
        self._faulty: set[str] = set()  # folders that hold something that should be one of these
        self._links: deque[str] = deque()  # to folders; read last, since most lead to one that is read anyway
        self._read: dict[tuple[int, int], str] = {}  # folders by device and inode
        self._is_image: dict[str, bool] = {}  # whether the first file with a suffix is an image
        self._enter("")
        while self._links:
            self._follow(self._links.popleft())
        self.images = dict(sorted(self.images.items()))
        self.imageless = sorted({*self._read.values()} - self._full - {""})

    @property
    def notes(self) -> tuple[str, ...]:
        """What was passed over, with a number and an example for each reason, and how many links lead elsewhere."""
        order = sorted(self._passed, key=lambda reason: (not reason.remedy, -len(self._passed[reason])))
        notes = [f"passed over: {described(reason, self._passed[reason])}" for reason in order[:SHOWN]]
        if rest := order[SHOWN:]:
            number = sum(len(self._passed[reason]) for reason in rest)
            notes.append(f"passed over: {counted(number, 'file of another kind', 'files of other kinds')}")
        if self._linked_out:
            notes.append(described(Reason("link to another folder", "links to other folders"), self._linked_out))
        return tuple(notes)

    @property
    def problems(self) -> dict[Reason, list[str]]:
        """Paths of what should be there but cannot be used, by reason; each may be followed by an explanation."""
        inside: defaultdict[str, Counter[Reason]] = defaultdict(Counter)
        for reason, paths in self._passed.items() if self.imageless else ():
            for path in paths:
                inside[path.rpartition("/")[0]][reason] += 1
        empty = [
            f"{folder}: {', '.join(_counted(reason, n) for reason, n in inside[folder].items()) or 'it is empty'}"
            for folder in self.imageless
            if folder not in self._faulty
        ]
        return dict(self._faults) | ({EMPTY: empty} if empty else {})

    def check(self, remedy: str) -> None:
        """Check that nothing is missing.

        Args:
            remedy: what the user can do instead of removing each problem.

        Raises:
            UserError: there are problems.
        """
        if problems := self.problems:
            lines = [described(reason, paths) for reason, paths in problems.items()]
            raise UserError("\n  ".join([f"{self.root} has", *lines]) + f"\n{remedy}")

    def left_out(self) -> tuple[str, ...]:
        """Notes about the problems, if they are accepted."""
        reasons = {reason._replace(remedy=""): paths for reason, paths in self.problems.items()}
        return tuple(f"left out: {described(reason, paths)}" for reason, paths in reasons.items())

    def _enter(self, folder: str) -> None:
        """Read a folder and its subfolders."""
        if folder.count("/") >= DEEPEST:
            raise UserError(f"{self.root / folder} is nested more than {DEEPEST} folders deep.")
        try:
            found = os.stat(self.root / folder)
            with os.scandir(self.root / folder) as entries:
                inside = {entry.name: entry for entry in entries}
        except OSError as error:
            if not folder:
                raise UserError(
                    f"The folder {self.root} cannot be read: {error.strerror}. Make it readable, or name another one."
                ) from error
            self._fault(FORBIDDEN, folder, error.strerror)
            return
        self._read[found.st_dev, found.st_ino] = folder
        for name in sorted(inside):
            path = f"{folder}/{name}" if folder else name
            evicted = _EVICTED.fullmatch(name)
            if evicted and evicted[1].lower().endswith((*SUFFIXES, *NOT_READ)) and evicted[1] not in inside:
                self._fault(EVICTED, path[: -len(name)] + evicted[1])
            elif SYSTEM.fullmatch(name) or evicted:
                self._passed[LITTER].append(path)
            elif name.startswith("."):
                self._passed[HIDDEN].append(path)
            elif inside[name].is_symlink():
                self._link(path)
            elif inside[name].is_dir(follow_symlinks=False):
                self._subfolder(path)
            elif inside[name].is_file(follow_symlinks=False):
                self._file(path)
            else:
                self._passed[SPECIAL].append(path)

    def _subfolder(self, path: str) -> None:
        if self._depth is not None and path.count("/") >= self._depth:
            self._passed[DEEP].append(path)
            return
        self._full.add(path.rpartition("/")[0])
        self._enter(path)

    def _file(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        if is_image(name):
            if self._depth is not None and path.count("/") != self._depth:
                self._passed[STRAY].append(path)
                return
            self.images.setdefault(folder, []).append(name)
            self._full.add(folder)
            return
        suffix = _suffix(name)
        if suffix in NOT_READ:
            self._passed[Reason(f"{suffix} file", f"{suffix} files", "convert to .jpg or .png")].append(path)
        elif suffix == "":
            self._passed[UNNAMED if shape_of(self.root / path) else PLAIN].append(path)
        else:
            if suffix not in self._is_image:
                self._is_image[suffix] = shape_of(self.root / path) is not None
            remedy = "rename to .jpg or .png" if self._is_image[suffix] else ""
            self._passed[Reason(f"{suffix} file", f"{suffix} files", remedy)].append(path)

    def _link(self, path: str) -> None:
        target = self.root / path
        try:
            kind = stat.S_IFMT(os.stat(target).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            suffix = _suffix(path)
            if suffix == "" or suffix in (*SUFFIXES, *NOT_READ):
                self._fault(LOST, path, f"to {os.readlink(target)}")
            else:
                self._passed[LINK].append(path)
        except OSError as error:
            self._fault(CIRCLE if error.errno == errno.ELOOP else FORBIDDEN, path, error.strerror)
        else:
            if kind == stat.S_IFDIR:
                self._links.append(path)
            elif kind == stat.S_IFREG:
                self._file(path)
                self._note_outside(path)
            else:
                self._passed[SPECIAL].append(path)

    def _follow(self, path: str) -> None:
        """Read the folder that a link leads to, unless it was read already."""
        found = os.stat(self.root / path)
        above = os.path.realpath(self.root / path)
        if (found.st_dev, found.st_ino) in self._read or Path(os.path.realpath(self.root)).is_relative_to(above):
            self._passed[READ_ANYWAY].append(path)
        else:
            self._subfolder(path)
            self._note_outside(path)

    def _note_outside(self, path: str) -> None:
        if not Path(os.path.realpath(self.root / path)).is_relative_to(os.path.realpath(self.root)):
            self._linked_out.append(path)

    def _fault(self, reason: Reason, path: str, detail: str | None = None) -> None:
        self._faulty.add(path.rpartition("/")[0])
        self._faults[reason].append(f"{path}, {detail}" if detail else path)


def is_image(name: str) -> bool:
    """Return whether a file has the suffix of an image format that is read."""
    return name.lower().endswith(SUFFIXES)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder belongs to the system or another program, or is hidden."""
    return name.startswith(".") or SYSTEM.fullmatch(name) is not None


def _suffix(name: str) -> str:
    """Return what looks like a suffix, in lower case; empty for names such as IMG.0001 or `a.jpg `."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix if _SUFFIX.fullmatch(suffix) else ""


def _counted(reason: Reason, count: int) -> str:
    return counted(count, reason.one, reason.many)


def described(reason: Reason, paths: Sequence[str]) -> str:
    """Say how many there are, name one of them, and say what can be done.

    Args:
        reason: why they are not used.
        paths: all of them, at least one.
    """
    first = visible(paths[0])
    such = first if len(first) <= LONGEST else f"{first[:LONGEST]}..."
    example = f" ({such})" if len(paths) == 1 else f" (such as {such})"
    return f"{_counted(reason, len(paths))}{example}{_advice(reason)}"


def _advice(reason: Reason) -> str:
    return f": {reason.remedy}" if reason.remedy else ""
