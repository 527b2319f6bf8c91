"""The one place where a name from an export becomes a file."""

from pathlib import Path, PurePosixPath

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class FileIndex:
    """The files below a folder; names are looked up here, never opened.

    `suffixes` are lower case, with dot; other files are not seen. FileNotFoundError if `root` is
    no folder.
    """

    def __init__(self, root: str | Path, suffixes: tuple[str, ...] = PHOTO_SUFFIXES):
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"{root} is not a folder; expected one with {suffixes} files")
        files = sorted(p for p in self.root.rglob("*") if p.suffix.lower() in suffixes)
        self.files = {p.relative_to(self.root).as_posix(): p for p in files if p.is_file()}
        self._by_base: dict[str, list[Path]] = {}
        for path in self.files.values():
            self._by_base.setdefault(path.name, []).append(path)

    def find(self, name: str) -> Path | None:
        """The file of this relative path, else the only one with its last part.

        None if there is none, and for names that lead out of the folder.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name[:3]:
            return None
        same = self._by_base.get(path.name, [])
        return self.files.get(str(path), same[0] if len(same) == 1 else None)

    def by_stem(self) -> dict[str, list[Path]]:
        """The files by relative path without suffix."""
        found: dict[str, list[Path]] = {}
        for name, path in self.files.items():
            found.setdefault(name.rsplit(".", 1)[0], []).append(path)
        return found
