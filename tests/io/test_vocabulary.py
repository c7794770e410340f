"""Which texts are statements of an ECG, and which may name somebody."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecgstore.io.vocabulary import is_annotation, is_statement

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEPT = """
Normal sinus rhythm
Sinus tachycardia with occasional Premature ventricular complexes
Atrial fibrillation with rapid ventricular response with aberrantly conducted complexes
Atrial flutter with 2:1 AV conduction
with 2nd degree A-V block (Mobitz I)
Electronic ventricular pacemaker
Demand pacemaker; interpretation is based on intrinsic rhythm
RSR' or QR pattern in V1 suggests right ventricular conduction delay
*** Bifascicular block ***
Ventricular pre-excitation, WPW pattern type A
Wolff-Parkinson-White
Minimal voltage criteria for LVH, may be normal variant ( R in aVL , Sokolow-Lyon , Romhilt-Estes )
Moderate voltage criteria for LVH, may be normal variant ( Cornell product )
T wave abnormality in V4-6, consider inferolateral ischemia or digitalis effect
in V4-6. May be normal for age
Cannot rule out Anterior infarct , age undetermined
*** ** ** ** * ACUTE MI * ** ** ** **
Suspect arm lead reversal, interpretation assumes no reversal
Poor data quality, interpretation may be adversely affected
Vent. rate has decreased BY  37 BPM
T wave inversion no longer evident in Inferior leads
Criteria for Inferior infarct are no longer present
Torsades de pointes
Otherwise normal ECG
Sinus bradycardia, rate< 50
Nonspecific intraventricular conduction delay QRSd >115mS, not LBBB/RBBB
Inferior infarct, acute (LCx) ST>0.10mV, II III aVF, STd V1-V3
>>> Acute MI <<<
normal P axis, V-rate 60-99
(RaVL+SV3)xQRSd >280
ANTERIOR ST ELEVATION, PROBABLY DUE TO LVH ST >0.20 mV in V1-V4 & LVH
- ABNORMAL ECG -
Unconfirmed diagnosis
Probable anteroseptal infarct - age undetermined
Widespread ST-T abnormality suggests myocardial injury/ischemia
Short PR interval
Long QT
Low voltage, extremity leads
Repol abnrm suggests ischemia, diffuse leads
""".strip().splitlines()

WITHHELD = """
Confirmed by SMITH, JOHN
Referred by: DR WALL
Overreader: Long
Long
Short, A.
Wall, J. P.
Small, Early and Block
R. Parkinson
White
Left bundle branch block, Smith
Normal ECG Müller
Normal ECG 張
Sinus rhythm compared with ECG of 10-MAY-2021 13:09
Sinus rhythm on 12/10
Sinus rhythm 5/10/21
Sinus rhythm 05.10.21
Sinus rhythm at 13:15
Sinus rhythm 3 May
Sinus rhythm, May 3
Sinus rhythm Monday
Sinus rhythm in March
Sinus rhythm 10173
Sinus rhythm (555) 123 45
ECG of room 7
Statement Text(22)
12
...
""".strip().splitlines()

# The commonest surnames of the USA, Britain, Germany, Spain, China, Korea and Viet Nam.
SURNAMES = """
Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez Gonzalez
Wilson Anderson Thomas Taylor Moore Jackson Martin Lee Perez Thompson White Harris Sanchez Clark
Ramirez Lewis Robinson Walker Young Allen King Wright Scott Torres Nguyen Hill Flores Green Adams
Nelson Baker Hall Rivera Campbell Mitchell Carter Roberts Gomez Phillips Evans Turner Diaz Parker
Cruz Edwards Collins Reyes Stewart Morris Morales Murphy Cook Rogers Gutierrez Ortiz Morgan Cooper
Peterson Bailey Reed Kelly Howard Ramos Kim Cox Ward Richardson Watson Brooks Chavez Wood James
Bennett Gray Mendoza Ruiz Hughes Price Alvarez Castillo Sanders Patel Myers Ross Foster Jimenez
Powell Jenkins Perry Russell Sullivan Bell Coleman Butler Henderson Barnes Fisher Vasquez Simmons
Stone Day Rose Page Rice Case Cannon Banks Fields Walls Best Good Love Bird Fox Wolf Hart Park Fish
Müller Schmidt Schneider Fischer Weber Meyer Wagner Becker Schulz Hoffmann Koch Bauer Richter Klein
Wang Li Zhang Liu Chen Yang Huang Zhao Wu Zhou Xu Sun Ma Zhu Hu Guo He Lin Luo Cho Kang Choi Jung
Tran Le Pham Hoang Phan Vu Vo Dang Bui Do Ngo Duong Ly Parkinson Wolff Levine Lown Ganong Bazett
""".split()  # noqa: SIM905


@pytest.mark.parametrize("text", KEPT)
def test_what_carts_print_is_kept(text: str) -> None:
    assert is_statement(text)


@pytest.mark.parametrize("text", WITHHELD)
def test_what_may_name_a_person_a_place_or_a_day_is_withheld(text: str) -> None:
    assert not is_statement(text)


@given(
    text=st.sampled_from(KEPT),
    name=st.one_of(
        st.sampled_from(SURNAMES),
        st.text(st.characters(categories=["L"]), min_size=2).map(lambda x: f"{x}zq"),
    ),
    form=st.sampled_from(["{0} {1}", "{1} {0}", "{0}, {1}", "{0} ({1})", "{0}/{1}", "{1}_{0}"]),
    case=st.sampled_from([str.upper, str.lower, str.title, str]),
)
@example(text="Wolff-Parkinson-White", name="White", form="{0} {1}", case=str)
def test_a_statement_with_a_planted_surname_is_withheld(
    text: str, name: str, form: str, case: Callable[[str], str]
) -> None:
    assert not is_statement(form.format(text, case(name)))


@given(text=st.sampled_from(KEPT), number=st.integers(min_value=1000))
def test_a_statement_with_a_long_number_is_withheld(text: str, number: int) -> None:
    assert not is_statement(f"{text} {number}")


def test_the_statements_of_public_lists_are_kept(test_data: Path) -> None:
    with (test_data / "data/ptbxl/scp_statements.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    withheld = [row["description"] for row in rows if not is_statement(row["description"])]
    assert withheld == ["electrolytic disturbance or drug (former EDIS)"]
    with (test_data / "data/challenge2021/dx_mapping_scored.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["Dx"] for row in rows if not is_statement(row["Dx"])] == []


@pytest.mark.parametrize(
    "text",
    [
        *("", "(N", "(AFIB", "(AFL", "(J", "(SBR", "(NOISE", "(VFIB", "None", "MISSB", "TS", "PSE"),
        *("(ST0+", "AST1-200", "(T0-", "AT0-1100", "ST0+)", "(rtst0+0113", "ccst1-0085"),
        *("W", "4 LA", "2 H A", "R", "MT", "U", "+", "ventricular tachycardia"),
    ],
)
def test_codes_of_the_databases_are_kept(text: str) -> None:
    assert is_annotation(text)
    assert is_annotation(f" {text} ")


@pytest.mark.parametrize("text", ["(SMITH", "SMITH", "nurse", "4 PM", "seen 12/10", "gqrs -r 100"])
def test_other_texts_of_annotators_are_withheld(text: str) -> None:
    assert not is_annotation(text)
