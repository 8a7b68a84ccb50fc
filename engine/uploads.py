"""Documents that people hand in: whether they are the ones that were asked for."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from engine.errors import EngineError
from engine.steps import Document

# Faults in the sentence, and at most in the list beside it: a list of files may be long, and each be wrong.
_SHOWN = 10
_PROBLEMS = 100


def check_documents(asked: tuple[Document, ...], data: Any) -> None:
    """Raises DOCUMENTS_INVALID unless `data` is `{key: file or [file]}`; a file is `{name, size, contentType?, url?}`
    (`size` in bytes) and may carry more.
    """
    if not isinstance(data, Mapping):
        message = "documents are an object: {key: {name, size, contentType, url}}"
        raise EngineError("DOCUMENTS_INVALID", message, faults=(("data", message),))
    known = {document.key for document in asked}
    faults = [(str(key), "nobody asked for it") for key in data if key not in known]
    for document in asked:
        faults.extend(_faults(document, data.get(document.key)))
    if faults:
        message = "; ".join(f"{path}: {fault}" for path, fault in faults[:_SHOWN])
        told = tuple((f"data.{path}", fault) for path, fault in faults[:_PROBLEMS])
        raise EngineError("DOCUMENTS_INVALID", message, faults=told)


def _faults(document: Document, given: Any) -> Iterator[tuple[str, str]]:
    """Where, and what is wrong there."""
    files = given if isinstance(given, list) else [] if given is None else [given]
    if document.required and not files:
        yield document.key, "this document is required"
    for place, file in enumerate(files):
        path = f"{document.key}[{place}]" if isinstance(given, list) else document.key
        name, size = (file.get("name"), file.get("size")) if isinstance(file, Mapping) else (None, None)
        if not isinstance(name, str) or isinstance(size, bool) or not isinstance(size, int) or size < 0:
            yield path, "a file has a name and a size in bytes"
            continue
        if document.max_size is not None and size > document.max_size:
            yield path, f"{name} has {size} bytes; {document.max_size} are allowed"
        if document.accept and not any(_accepts(pattern, name, file.get("contentType")) for pattern in document.accept):
            yield path, f"{name} is none of {', '.join(document.accept)}"


def _accepts(pattern: str, name: str, content_type: Any) -> bool:
    if pattern.startswith("."):
        return name.lower().endswith(pattern.lower())
    return isinstance(content_type, str) and fnmatchcase(content_type.lower(), pattern.lower())
