"""Core statements compiled once: the values come in the order the text asks for, and unfinished texts are refused."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from sqlalchemy import bindparam, func, null, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

import service
import workers
from service.foundation.db import Statement
from service.foundation.sql import load_sql
from service.models import orders


def test_values_are_in_the_order_of_the_text() -> None:
    statement = Statement(
        update(orders).where(orders.c.id == bindparam("match_id")).values(status=bindparam("target"), note="fixed", version=orders.c.version + 1)
    )
    sql, *values = statement(target="paid", match_id=7)
    assert sql.index("$1") < sql.index("$4")
    assert sorted(map(str, values)) == ["1", "7", "fixed", "paid"]
    names = dict(enumerate(values, start=1))
    assert f"status=${next(p for p, v in names.items() if v == 'paid')}" in sql.replace(" ", "").replace("::VARCHAR", "").replace("orders.", "")
    assert sql.rstrip().endswith(f"${next(p for p, v in names.items() if v == 7)}::UUID")


def test_a_name_twice_is_one_value_wherever_it_stands() -> None:
    statement = Statement(select(orders).where(orders.c.status == bindparam("a"), orders.c.note == bindparam("a")))
    _, *values = statement(a="x")
    assert set(values) == {"x"}


def test_missing_and_unknown_names_are_refused() -> None:
    statement = Statement(select(orders).where(orders.c.id == bindparam("id")))
    with pytest.raises(KeyError):
        statement()
    with pytest.raises(KeyError, match="nope"):
        statement(id=1, nope=2)


def test_unfinished_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="ANY"):
        Statement(select(orders).where(orders.c.status.in_(["a", "b"])))
    with pytest.raises(ValueError, match="null"):
        Statement(update(orders).values(note=None))
    Statement(update(orders).values(note=null()))
    Statement(select(orders).where(orders.c.status == func.any(bindparam("all", type_=ARRAY(Text)))))


def test_every_statement_of_the_code_is_a_fixed_text() -> None:
    found = 0
    for package in (service, workers):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".dev." in module.name or ".migrations." in module.name or module.name.endswith("__main__"):
                continue
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, Statement):
                    found += 1
                    assert "%(" not in value.sql
                    assert "POSTCOMPILE" not in value.sql
    assert found > 25


def test_sql_files_lose_their_comments_only() -> None:
    text = load_sql(importlib.import_module("service.orders.placing").__file__ or "", "place_order.sql")
    assert "--" not in text
    assert all(f"${number}" in text for number in range(1, 19))
