"""The page of parity: a line for each model, and no test that it does not know of."""

import csv
import re

import pytest

from papercode.site.parity import parity_table
from tiny import ROOT

HEAD = "model,reference,configuration,error,test\n"


def test_a_line_for_each_model_and_reference(tmp_path):
    file = tmp_path / "parity.csv"
    rows = [
        "BERT,lib.BigBert,padding,2.0e-15,a",
        "BERT,lib.BigBert,<two> layers,3.1e-12,a",
        "BERT,loops,small,0.0e+00,b",
    ]
    rows.append("BERT,lib.BigBert,full size in float32,2.0e-6,a")
    file.write_text(HEAD + "\n".join(rows))
    found = parity_table(file)
    assert found.count("<tr>") == 1 + 3
    error, tried = "<td>3\xa0·\xa010<sup>−12</sup></td>", "<td>padding; &lt;two&gt; layers</td>"
    assert f"<tr><td><strong>BERT</strong><br>lib.<wbr>Big<wbr>Bert</td>{error}{tried}</tr>" in found
    assert "<br>loops</td><td>0</td><td>small</td>" in found
    assert "<td>2\xa0·\xa010<sup>−6</sup></td><td>full size in float32</td>" in found


def test_an_empty_file(tmp_path):
    (tmp_path / "parity.csv").write_text(HEAD)
    with pytest.raises(ValueError, match="holds no rows of parity; `make parity` writes them"):
        parity_table(tmp_path / "parity.csv")


def test_the_file_knows_every_test_that_holds_a_model_against_another():
    """Whoever adds such a test runs `make parity`."""
    with (ROOT / "tests/parity.csv").open(newline="") as file:
        known = {row["test"] for row in csv.DictReader(file)}
    asks = re.compile(r"^def test_\w+\((?:.*, )?parity[,)]", re.M)
    found = {str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("test_*.py") if asks.search(p.read_text("utf-8"))}
    assert known == found
