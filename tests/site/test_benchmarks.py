"""Rows of results become tables and series."""

import pytest

from papercode.site.benchmarks import read, series, table
from tiny import ROOT

HEAD = (
    "benchmark,what,provider,shape,dtype,p20_s,p50_s,p80_s,ratio,tflops,peak_mib,device,threads,versions,commit,date\n"
)


@pytest.fixture
def results(tmp_path):
    rows = [
        "a,forward,ours,n 8,float32,0.1,0.2,0.3,1.000,,10.0,CPU x <1>,1,torch 2,abc,2026-01-01",
        "a,forward,peer,n 8,float32,0.1,0.9,0.3,4.500,,20.0,CPU x <1>,1,torch 2,abc,2026-01-01",
        "a,forward,ours,n 16,float32,0.1,1.5,0.3,1.000,,1234.5,CPU x <1>,1,torch 2,abc,2026-01-01",
        "a,forward,ours,n 8,float32,0.1,0.004,0.3,1.000,412.3,10.0,GPU y,1,torch 2,abc,2026-01-01",
        "a,forward,ours,n 8,float32,0.1,0.25,0.3,1.000,,11.0,CPU x <1>,1,torch 3,def,2026-02-01",
    ]
    path = tmp_path / "a.csv"
    path.write_text(HEAD + "\n".join(rows) + "\n")
    return path


def test_the_newest_row_of_a_measurement_counts(results):
    rows = read(results)
    assert len(rows) == 4
    assert [row["p50_s"] for row in rows if row["shape"] == "n 8" and row["provider"] == "ours"] == ["0.004", "0.25"]


def test_a_table_for_each_device(results):
    first, second = table(read(results)).split("</table>\n")
    assert "<caption>CPU x &lt;1&gt;, 1 thread; torch 3</caption>" in first
    assert "<td>peer</td><td>900\xa0ms</td><td>4.50</td><td>20.0\xa0MiB</td>" in first
    assert "<td>ours</td><td>1.50\xa0s</td><td>1.00</td><td>1,234.5\xa0MiB</td>" in first
    assert "TFLOP/s" not in first
    assert first.count('scope="rowgroup"') == 2
    assert "<caption>GPU y; torch 2</caption>" in second
    assert "<td>4\xa0ms</td><td>1.00</td><td>412</td>" in second


def test_series_rise_along_x(results):
    rows = [row for row in read(results) if row["device"].startswith("CPU")]
    found = series(rows, "p50_s", lambda row: int(row["shape"].split()[1]))
    assert found == {"peer": ([8], [0.9]), "ours": ([8, 16], [0.25, 1.5])}
    assert series(rows, "tflops", lambda row: 0) == {}


def test_what_is_no_such_file(tmp_path):
    path = tmp_path / "b.csv"
    path.write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match=r"b\.csv holds no rows with the columns what, provider"):
        read(path)


def test_our_own_results_can_be_read():
    for path in (ROOT / "benchmarks/results").glob("*.csv"):
        if path.name != "site.csv":  # of builds, in a form of its own
            rows = read(path)
            assert all(float(row["p20_s"]) <= float(row["p50_s"]) <= float(row["p80_s"]) for row in rows)
            assert table(rows)
