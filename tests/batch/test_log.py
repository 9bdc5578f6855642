from __future__ import annotations

from pathlib import Path

import pytest

from mmgen.batch.log import Fault, Record, ResultsLog
from mmgen.errors import DataError, OutputError

RECORDS = [
    Record(row=12, id="a", fields={"caption": "a fox\nand more", "seed": 2**53 - 1}),
    Record(row=10, id="ü", fault=Fault(kind="PictureError", reason="it is damaged", attempts=2)),
    Record(
        row=14,
        id="c",
        fields={"score": 0.25, "many": ["x", "y"]},
        pictures=("spool/14.png",),
        document="spool/14.ids",
    ),
]


def write(path: Path) -> bytes:
    with ResultsLog(path, 10, 20) as log:
        log.append(RECORDS[:1])
        log.append(RECORDS[1:])
    return path.read_bytes()


def test_records_come_back(tmp_path: Path) -> None:
    write(tmp_path / "log")
    with ResultsLog(tmp_path / "log", 10, 20) as log:
        assert [log.read(record.row) for record in RECORDS] == RECORDS
        assert [record.row for record in log.records()] == [10, 12, 14]
        assert [row for row in range(10, 20) if row in log] == [10, 12, 14]
        assert (log.num_done, log.num_failed, log.failed_rows) == (3, 1, [10])
        assert log.fault_kinds == {"PictureError": 1}


def test_a_torn_tail_is_cut_off_wherever_it_is_torn(tmp_path: Path) -> None:
    data = write(tmp_path / "log")
    ends = [number + 1 for number, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(len(data)):
        path = tmp_path / "cut"
        path.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends)
        with ResultsLog(path, 10, 20) as log:
            assert log.num_done == whole
            missing = [record for record in RECORDS if record.row not in log]
            log.append(missing)
            assert [log.read(record.row) for record in RECORDS] == RECORDS
        assert path.read_bytes() == data


def test_zeros_that_a_power_cut_left_are_a_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = write(path)
    path.write_bytes(data + bytes(5000))
    with ResultsLog(path, 10, 20) as log:
        assert log.num_done == 3
    assert path.read_bytes() == data


def test_damage_in_the_middle_is_no_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = write(path)
    path.write_bytes(b"x" + data)
    with pytest.raises(DataError, match="damaged after byte 0, with whole results behind"):
        ResultsLog(path, 10, 20)
    assert path.read_bytes() == b"x" + data


def test_rows_of_another_job(tmp_path: Path) -> None:
    write(tmp_path / "log")
    with pytest.raises(DataError, match="has a result for row 14, which this job does not have"):
        ResultsLog(tmp_path / "log", 10, 14)


def test_faults_can_be_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path)
    with ResultsLog(path, 10, 20) as log:
        log.forget_failed()
        assert 10 not in log and (log.num_done, log.num_failed, log.fault_kinds) == (2, 0, {})
    again = Record(row=10, id="ü", fields={"caption": "a bear"})
    for _ in range(2):
        with ResultsLog(path, 10, 20) as log:
            if 10 not in log:
                log.append([again])
            assert log.read(10) == again and (log.num_done, log.num_failed) == (3, 0)


def test_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        ResultsLog(tmp_path, 0, 1)
