from matplotlib.figure import Figure

from fpstab.experiments.claims import Claim, Study

CLAIM = Claim(3, "Theorem 6", "ρ(AB) ≤ ρ(A)ρ(B).", "Broken by one pair with ρ(AB) > ρ(A)ρ(B) + 1e-9.", "4 ≤ 0")


def test_a_finding_says_where_the_claim_stands_and_what_decided():
    found = CLAIM.found("not reproduced", "ρ(AB) = 4, ρ(A)ρ(B) = 0.", 4.0, sample=1)
    assert str(found) == "Paper 3, Theorem 6: not reproduced. ρ(AB) = 4, ρ(A)ρ(B) = 0."
    assert found.row() == {
        "paper": 3,
        "item": "Theorem 6",
        "claim": CLAIM.text,
        "rule": CLAIM.rule,
        "printed": "4 ≤ 0",
        "revised": "",
        "verdict": "not reproduced",
        "found": "ρ(AB) = 4, ρ(A)ρ(B) = 0.",
        "value": 4.0,
        "error": None,
        "sample": 1,
    }


def test_the_rows_of_a_study_have_the_same_columns_and_its_findings_stand_in_lines():
    findings = (CLAIM.found("not reproduced", "One."), CLAIM.found("inconclusive", "Two."))
    study = Study(({"depth": 1, "q": 0.9}, {"depth": 2, "cycles": 0.4}), findings, Figure, {"q": 0.9})
    assert study.table() == [{"depth": 1, "q": 0.9, "cycles": None}, {"depth": 2, "q": None, "cycles": 0.4}]
    assert study.verdict.splitlines() == [
        "Paper 3, Theorem 6: not reproduced. One.",
        "Paper 3, Theorem 6: inconclusive. Two.",
    ]
    assert isinstance(study.plot(), Figure)
    assert study.scalars() == {"q": 0.9}
