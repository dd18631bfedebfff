import pytest

from fpstab.results import OK, AnalysisError, Status


def test_status():
    assert OK.ok
    assert str(OK) == "ok"
    status = Status("too_few", "3 eigenvalues.")
    assert not status.ok
    assert str(status) == "too_few: 3 eigenvalues."
    assert status == Status("too_few", "3 eigenvalues.")


def test_an_error_carries_its_status():
    with pytest.raises(AnalysisError, match="too_few: 3") as caught:
        raise AnalysisError(Status("too_few", "3 eigenvalues."))
    assert caught.value.status.code == "too_few"
