"""Content types: an own table by file extension, then the first bytes.

`mimetypes` reads the machine's files, so the same CID would be told differently by two gateways. ``text/html`` goes
without charset (the page says its own) and JSON bare, as other gateways do it.
"""

from __future__ import annotations

import json

SNIFF_BYTES = 3072
"""No signature below reaches further, and tar's is at 257."""

OCTETS = "application/octet-stream"
HTML = "text/html"
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
SYMLINK = "inode/symlink"

ACTIVE = frozenset((HTML, "application/xhtml+xml", "image/svg+xml", "application/xml", "text/xml"))
"""What a browser runs scripts of when it is opened by itself."""

_UTF8 = "; charset=utf-8"

_BY_EXTENSION: dict[str, str] = {
    "html": HTML, "htm": HTML, "xhtml": "application/xhtml+xml",
    "css": "text/css" + _UTF8, "js": "text/javascript" + _UTF8, "mjs": "text/javascript" + _UTF8,
    "json": JSON, "map": JSON, "geojson": "application/geo+json", "jsonld": "application/ld+json",
    "webmanifest": "application/manifest+json", "ipynb": "application/x-ipynb+json", "ndjson": "application/x-ndjson",
    "wasm": "application/wasm", "xml": "application/xml", "rss": "application/rss+xml", "atom": "application/atom+xml",
    "txt": TEXT, "log": TEXT, "text": TEXT, "conf": TEXT, "ini": TEXT, "c": TEXT, "h": TEXT, "cpp": TEXT, "hpp": TEXT,
    "py": TEXT, "go": TEXT, "rs": TEXT, "java": TEXT, "sh": TEXT, "ts": TEXT, "rb": TEXT, "lua": TEXT, "sql": TEXT,
    "toml": "application/toml", "yaml": "application/yaml", "yml": "application/yaml",
    "md": "text/markdown" + _UTF8, "csv": "text/csv" + _UTF8, "tsv": "text/tab-separated-values" + _UTF8,
    "ics": "text/calendar" + _UTF8, "vcf": "text/vcard" + _UTF8, "vtt": "text/vtt" + _UTF8,
    "srt": "application/x-subrip",
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "jfif": "image/jpeg", "gif": "image/gif",
    "webp": "image/webp", "avif": "image/avif", "heic": "image/heic", "heif": "image/heif", "jxl": "image/jxl",
    "svg": "image/svg+xml", "svgz": "image/svg+xml", "ico": "image/vnd.microsoft.icon", "bmp": "image/bmp",
    "tif": "image/tiff", "tiff": "image/tiff", "psd": "image/vnd.adobe.photoshop",
    "mp4": "video/mp4", "m4v": "video/mp4", "webm": "video/webm", "mkv": "video/x-matroska", "mov": "video/quicktime",
    "avi": "video/x-msvideo", "mpg": "video/mpeg", "mpeg": "video/mpeg", "ogv": "video/ogg", "3gp": "video/3gpp",
    "m3u8": "application/vnd.apple.mpegurl", "mpd": "application/dash+xml", "m4s": "video/iso.segment",
    "mp3": "audio/mpeg", "m4a": "audio/mp4", "aac": "audio/aac", "ogg": "audio/ogg", "oga": "audio/ogg",
    "opus": "audio/ogg", "flac": "audio/flac", "wav": "audio/wav", "weba": "audio/webm", "mid": "audio/midi",
    "woff": "font/woff", "woff2": "font/woff2", "ttf": "font/ttf", "otf": "font/otf", "ttc": "font/collection",
    "eot": "application/vnd.ms-fontobject",
    "pdf": "application/pdf", "epub": "application/epub+zip", "rtf": "application/rtf", "ps": "application/postscript",
    "doc": "application/msword", "xls": "application/vnd.ms-excel", "ppt": "application/vnd.ms-powerpoint",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "odt": "application/vnd.oasis.opendocument.text", "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "zip": "application/zip", "gz": "application/gzip", "tgz": "application/gzip", "bz2": "application/x-bzip2",
    "xz": "application/x-xz", "zst": "application/zstd", "7z": "application/x-7z-compressed",
    "rar": "application/vnd.rar",
    "tar": "application/x-tar", "jar": "application/java-archive", "car": "application/vnd.ipld.car",
    "deb": "application/vnd.debian.binary-package", "rpm": "application/x-rpm",
    "apk": "application/vnd.android.package-archive",
    "iso": "application/x-iso9660-image", "dmg": "application/x-apple-diskimage",
    "exe": "application/vnd.microsoft.portable-executable",
    "torrent": "application/x-bittorrent", "sqlite": "application/vnd.sqlite3",
    "parquet": "application/vnd.apache.parquet",
    "glb": "model/gltf-binary", "gltf": "model/gltf+json", "stl": "model/stl", "usdz": "model/vnd.usdz+zip",
    "bin": OCTETS, "dat": OCTETS, "img": OCTETS,
    "cbor": "application/cbor", "pem": "application/x-pem-file", "asc": TEXT,
}  # fmt: skip

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"BM", "image/bmp"),
    (0, b"\x00\x00\x01\x00", "image/vnd.microsoft.icon"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"\xff\x0a", "image/jxl"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypqt", "video/quicktime"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"ID3", "audio/mpeg"),
    (8, b"WAVE", "audio/wav"),
    (8, b"AVI ", "video/x-msvideo"),
    (0, b"wOFF", "font/woff"),
    (0, b"wOF2", "font/woff2"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"{\\rtf", "application/rtf"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"PK\x05\x06", "application/zip"),
    (0, b"\x1f\x8b\x08", "application/gzip"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"Rar!\x1a\x07", "application/vnd.rar"),
    (257, b"ustar", "application/x-tar"),
    (0, b"\x00asm", "application/wasm"),
    (0, b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (0, b"glTF", "model/gltf-binary"),
)

_RIFF_OFFSET = 8
_ZIP_MIMETYPE = b"mimetype"
"""Open documents and e-books store this member first, uncompressed: its bytes are the type."""

_HTML_OPENINGS = (b"<!doctype html", b"<html", b"<head", b"<body", b"<!-- html")
_TEXT_CONTROLS = frozenset(range(0x20)) - frozenset(b"\t\n\r\f\x1b")


def by_name(name: str | None) -> str | None:
    """Return the type that the extension of `name` stands for."""
    if not name or "." not in name:
        return None
    return _BY_EXTENSION.get(name.rsplit(".", 1)[1].lower())


def by_content(head: bytes, *, is_whole: bool) -> str:
    """Tell the type from a file's first bytes; `is_whole` when they are all of it."""
    signed = _by_signature(head)
    if signed is not None:
        return signed
    text = head.removeprefix(b"\xef\xbb\xbf")
    if not _is_text(text, is_whole=is_whole):
        return OCTETS
    return _by_text(text, is_whole=is_whole)


def _by_signature(head: bytes) -> str | None:
    for offset, magic, media_type in _SIGNATURES:
        if head.startswith(magic, offset) and (offset != _RIFF_OFFSET or head.startswith(b"RIFF")):
            return _zip_kind(head) or media_type if media_type == "application/zip" else media_type
    return None


def _zip_kind(head: bytes) -> str | None:
    if not head.startswith(_ZIP_MIMETYPE, 30):
        return None
    declared = head[38:120].split(b"PK", 1)[0]
    return declared.decode("ascii", "replace") if declared.startswith(b"application/") and declared.isascii() else None


def _is_text(text: bytes, *, is_whole: bool) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        if is_whole or error.start < len(text) - 3:  # a character may be cut at the end
            return False
    return not _TEXT_CONTROLS.intersection(text)


def _by_text(text: bytes, *, is_whole: bool) -> str:
    start = text.lstrip()[:1024].lower()
    if start.startswith(_HTML_OPENINGS):
        return HTML
    if start.startswith((b"<svg", b"<?xml")) and b"<svg" in start:
        return "image/svg+xml"
    if start.startswith(b"<?xml"):
        return "application/xml"
    if _looks_like_json(text, is_whole=is_whole):
        return JSON
    return TEXT


def _looks_like_json(text: bytes, *, is_whole: bool) -> bool:
    """Parse it if it is all there, else judge by the first two tokens."""
    if not is_whole:
        opened, after = text.lstrip()[:1], text.lstrip()[1:64].lstrip()
        return (opened == b"{" and after.startswith(b'"')) or (opened == b"[" and after.startswith((b"{", b"[", b'"')))
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False
