"""Documents that people hand in: whether they are the ones that were asked for."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from engine.errors import EngineError
from engine.steps import Document


def check_documents(asked: tuple[Document, ...], data: Any) -> None:
    """Raises DOCUMENTS_INVALID unless `data` is `{key: file or [file]}`; a file is `{name, size, contentType?, url?}`
    (`size` in bytes) and may carry more.
    """
    if not isinstance(data, Mapping):
        raise EngineError("DOCUMENTS_INVALID", "documents are an object: {key: {name, size, contentType, url}}")
    known = {document.key for document in asked}
    faults = [f"{key}: nobody asked for it" for key in data if key not in known]
    for document in asked:
        faults.extend(_faults(document, data.get(document.key)))
    if faults:
        raise EngineError("DOCUMENTS_INVALID", "; ".join(faults[:10]))


def _faults(document: Document, given: Any) -> Iterator[str]:
    files = given if isinstance(given, list) else [] if given is None else [given]
    if document.required and not files:
        yield f"{document.key}: this document is required"
    for file in files:
        name, size = (file.get("name"), file.get("size")) if isinstance(file, Mapping) else (None, None)
        if not isinstance(name, str) or isinstance(size, bool) or not isinstance(size, int) or size < 0:
            yield f"{document.key}: a file has a name and a size in bytes"
            continue
        if document.max_size is not None and size > document.max_size:
            yield f"{document.key}: {name} has {size} bytes; {document.max_size} are allowed"
        if document.accept and not any(_accepts(pattern, name, file.get("contentType")) for pattern in document.accept):
            yield f"{document.key}: {name} is none of {', '.join(document.accept)}"


def _accepts(pattern: str, name: str, content_type: Any) -> bool:
    if pattern.startswith("."):
        return name.lower().endswith(pattern.lower())
    return isinstance(content_type, str) and fnmatchcase(content_type.lower(), pattern.lower())
