"""Mappings as they are written on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.cli.mappings import mapping_of, read_mappings
from app.errors import Invalid


def written(folder: Path, document: Any) -> Path:
    file = folder / "mapping.json"
    file.write_text(json.dumps(document))
    return file


def test_a_file_has_the_mapping_of_all_and_what_goes_over_it(tmp_path: Path) -> None:
    file = written(tmp_path, {"mapping": {"a": "b"}, "overrides": {"one": {"mapping": {"a": "c"}}}})
    given = {"mapping": {"a": "b", "d": "e"}, "overrides": {"one": {"mapping": {"a": "c"}}}}
    assert read_mappings(["d=e"], file) == given
    assert mapping_of("one", ["d=e"], file) == {"a": "c", "d": "e"}
    assert mapping_of("other", None, file) == {"a": "b"}
    assert read_mappings(None, None) == {"mapping": {}, "overrides": {}}


def test_an_override_is_found_however_the_id_is_written(tmp_path: Path) -> None:
    execution_id = "01a1fc2c-15f8-74f3-b370-5e5f51682991"
    file = written(tmp_path, {"overrides": {execution_id.upper(): {"mapping": {"a": "b"}}}})
    assert mapping_of(execution_id, None, file) == {"a": "b"}
    assert mapping_of(execution_id.replace("-", ""), None, file) == {"a": "b"}


@pytest.mark.parametrize(
    "document", [{"a": "b"}, {"mapping": []}, {"overrides": 1}, {"overrides": {"one": {"mapping": 1}}}]
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, document: Any) -> None:
    with pytest.raises(Invalid) as refused:
        mapping_of("one", None, written(tmp_path, document))
    assert refused.value.code == "MAPPING_INVALID"


def test_a_pair_has_both_names() -> None:
    with pytest.raises(Invalid) as refused:
        read_mappings(["a="], None)
    assert refused.value.code == "MAPPING_INVALID"
