"""What a task's name means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from sppo.config import TaskConfig
from sppo.errors import ConfigError
from sppo.tasks import sources


def rows(name: str, **task: Any) -> list[dict[str, Any]]:
    [source] = sources.training(TaskConfig(name=name, **task))
    return [dict(row.columns) for row in sources.read(source, pool=3)[0]]


def test_each_kind_has_its_reader(tmp_path: Path) -> None:
    wanted = [{"question": "q", "answer": "1"}]
    (tmp_path / "q.jsonl").write_text('{"question": "q", "answer": "1"}', encoding="utf-8")
    (tmp_path / "q.csv").write_text("question,answer\nq,1\n", encoding="utf-8")
    parquet.write_table(pa.table({"question": ["q"], "answer": ["1"]}), tmp_path / "q.parquet")
    for kind in ("jsonl", "csv", "parquet"):
        assert rows(f"{kind}:{tmp_path}/q.{kind}") == wanted
    made = rows("reasoning-gym:chain_sum", params={"min_terms": 2, "max_terms": 2})
    assert len(made) == 3
    assert {"question", "answer", "metadata"} <= made[0].keys()


def test_rows_that_cannot_travel_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "q"}\n{"question": 1e400}\n{"a": 18446744073709551616}\n')
    [source] = sources.training(TaskConfig(name=f"jsonl:{file}"))
    found, tally = sources.read(source, pool=1)
    assert (len(found), tally.rows, tally.bad) == (1, 3, 2)


@pytest.mark.parametrize("name", ["nope", "jsonl:", "json:q.json", "chain_sum", ":q"])
def test_a_name_that_is_none_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^task\.name = '{name}': write it as hf:<dataset"):
        sources.training(TaskConfig(name=name))


def test_a_list_has_weights_and_places(tmp_path: Path) -> None:
    given = [{"name": "jsonl:a", "weight": 2}, {"name": "reasoning-gym:x", "params": {"n": 1}}]
    found = sources.training(TaskConfig(name=given))
    assert [(s.kind, s.place, s.weight, dict(s.params)) for s in found] == [
        ("jsonl", "a", 2.0, {}),
        ("reasoning-gym", "x", 1.0, {"n": 1}),
    ]
    assert found[1].setting == "task.name[1].name = 'reasoning-gym:x'"


def test_held_out_is_a_number_or_a_source() -> None:
    assert sources.held_out(TaskConfig(held_out=3)) is None
    found = sources.held_out(TaskConfig(held_out="csv:test.csv"))
    assert found is not None
    assert (found.setting, found.place) == ("task.held_out = 'csv:test.csv'", "test.csv")


def test_what_is_not_on_this_disk_is_told_without_reading(tmp_path: Path) -> None:
    def absent(name: str) -> str:
        [source] = sources.training(TaskConfig(name=name))
        return sources.absent(source)

    (tmp_path / "q.csv").touch()
    assert absent(f"csv:{tmp_path}/q.csv") == ""
    assert absent("reasoning-gym:chain_sum") == ""
    assert absent("parquet:none.parquet") == ("no file none.parquet; put it there, or name another")
