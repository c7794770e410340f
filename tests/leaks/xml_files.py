"""Real files of the XML formats, with people planted in every place they have for them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from .people import SAID, STAFF

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from .people import Person

__all__ = ["hl7", "muse", "philips", "schiller"]

_HL7 = "urn:hl7-org:v3"
KEPT = "Normal sinus rhythm"


def put(root: Element, path: str, text: str | None = None, **attributes: str) -> Element:
    """Return the element at a path, made where it is not there, with a text."""
    here = root
    for tag in path.split("/"):
        below = here.find(tag)
        here = ElementTree.SubElement(here, tag) if below is None else below
    here.text = text
    here.attrib.update(attributes)
    return here


def add(root: Element, tag: str, text: str | None = None, **attributes: str) -> Element:
    """Append an element."""
    new = ElementTree.SubElement(root, tag, attributes)
    new.text = text
    return new


def _written(root: Element, path: Path) -> None:
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def muse(data: Path, path: Path, one: Person) -> None:
    """GE MUSE."""
    root = ElementTree.parse(data / "data/formats/muse_xml/muse_ecg1.xml").getroot()
    patient, test = root.find("PatientDemographics"), root.find("TestDemographics")
    diagnosis = root.find("Diagnosis")
    assert patient is not None
    assert test is not None
    assert diagnosis is not None
    for tag, text in {
        "PatientID": one.number,
        "PatientLastName": one.family.upper(),
        "PatientFirstName": one.given,
        "DateofBirth": one.us,
        "PatientAge": "79",
        "SecondaryID": one.other,
        "PatientMRN": one.number,
        "PatientSSN": one.other,
        "PatientAddress": f"1 Drubbelgate, {one.family}",
        "PatientPhone": "555-0173",
        "NickName": one.given,
        "Race": one.family,
    }.items():
        put(patient, tag, text)
    for tag in ("Overreader", "Editor", "AcquisitionTech", "OrderingMD", "ReferringMD", "FellowMD"):
        put(test, f"{tag}LastName", STAFF[0])
        put(test, f"{tag}FirstName", STAFF[1])
        put(test, f"{tag}ID", "4711234")
    for tag in ("SiteName", "LocationName", "RoomID", "Location", "HISAccountNumber", "ECGRoom"):
        put(test, tag, "Floonhaven 58823071")
    put(root, "Order/HISOrderNumber", one.other)
    put(root, "Order/OrderComments", SAID[3].format(one))
    put(root, "Order/ReasonForStudy", SAID[4].format(one))
    put(root, "ExtraQuestions/Answer", one.family)
    put(root, "PharmaData/PharmaPatientName", one.given)
    for text in (*SAID, KEPT):
        statement = add(diagnosis, "DiagnosisStatement")
        add(statement, "StmtFlag", "ENDSLINE")
        add(statement, "StmtText", text.format(one))
    _written(root, path)


def philips(data: Path, path: Path, one: Person) -> None:
    """Philips, schema 1.03."""
    source = data / "data/formats/philips_xml/1_03__129DYPRG.XML"
    root = ElementTree.fromstring(source.read_bytes().replace(b' xmlns="', b' x="'))
    for tag, text in {
        "documentinfo/filename": f"{one.family}_{one.given}.xml",
        "documentinfo/editor": STAFF[0],
        "documentinfo/comments": SAID[3].format(one),
        "reportinfo/reportdescription": SAID[4].format(one),
        "reportinfo/reportbw": SAID[0],
        "dataacquisition/acquirer/operatorid": STAFF[1],
        "dataacquisition/acquirer/operatorname": STAFF[1],
        "dataacquisition/acquirer/departmentname": "Floonhaven",
        "dataacquisition/acquirer/institutionname": "Drubbelgate",
        "dataacquisition/acquirer/room": "Floonhaven",
        "dataacquisition/acquirer/orderingclinicianname": STAFF[2],
        "orderinfo/ordernumber": one.other,
        "orderinfo/orderingclinicianname": STAFF[0],
        "orderinfo/reasonfororder": SAID[3].format(one),
        "userdefines/userdefine/label": "Name",
        "userdefines/userdefine/value": one.family,
        "patient/generalpatientdata/patientid": one.number,
        "patient/generalpatientdata/MRN": one.other,
        "patient/generalpatientdata/uniquepatientid": one.other,
        "patient/generalpatientdata/name/lastname": one.family,
        "patient/generalpatientdata/name/firstname": one.given,
        "patient/generalpatientdata/age/dateofbirth": one.iso,
        "patient/generalpatientdata/address": "1 Drubbelgate",
        "patient/medicalhistory": SAID[3].format(one),
    }.items():
        put(root, tag, text)
    machine = put(root, "dataacquisition/machine", "HeartstartMRx")
    machine.set("detaildescription", f"cart of {STAFF[1]}")
    latest = root.find("interpretations/interpretation")
    assert latest is not None
    put(latest, "mdsignatureline", SAID[0])
    put(latest, "comment", SAID[3].format(one))
    for text in (*SAID, KEPT):
        statement = add(latest, "statement")
        add(statement, "leftstatement", text.format(one))
        add(statement, "rightstatement", text.format(one))
    _written(root, path)


def hl7(data: Path, path: Path, one: Person) -> None:
    """HL7 aECG."""
    text = (data / "data/formats/hl7_aecg/example_aecg.xml").read_text("utf-8")
    root = ElementTree.fromstring(text)
    ElementTree.register_namespace("", _HL7)
    for element in root.iter():
        tag = element.tag.rpartition("}")[2]
        if tag == "trialSubject":
            subject = element
        elif tag == "assignedPerson":
            name = element.find(f"{{{_HL7}}}name")
            if name is not None:
                name.text = STAFF[0]
        elif tag in {"city", "title"}:
            element.text = "Floonhaven"
        elif tag == "text":
            element.text = SAID[3].format(one)
        elif tag == "id" and "extension" in element.attrib:
            element.set("extension", one.other)
    subject.find(f"{{{_HL7}}}id").set("extension", one.number)  # type: ignore[union-attr]
    person = subject.find(f"{{{_HL7}}}subjectDemographicPerson")
    assert person is not None
    for old in list(person):
        if old.tag.rpartition("}")[2] in {"name", "birthTime"}:
            person.remove(old)
    name = ElementTree.Element(f"{{{_HL7}}}name")
    add(name, f"{{{_HL7}}}given", one.given)
    add(name, f"{{{_HL7}}}family", one.family)
    person.insert(0, name)
    add(person, f"{{{_HL7}}}birthTime", value=one.ymd)
    series = root.find(f"{{{_HL7}}}component/{{{_HL7}}}series")
    assert series is not None
    notes = series.find(f"{{{_HL7}}}subjectOf/{{{_HL7}}}annotationSet")
    assert notes is not None
    for said in (*SAID, KEPT):
        note = add(add(notes, f"{{{_HL7}}}component"), f"{{{_HL7}}}annotation")
        add(note, f"{{{_HL7}}}code", code="MDC_ECG_INTERPRETATION_STATEMENT")
        add(note, f"{{{_HL7}}}value", said.format(one))
    _written(root, path)


def schiller(data: Path, path: Path, one: Person) -> None:
    """Schiller."""
    root = ElementTree.parse(data / "data/formats/schiller_xml/sample.xml").getroot()
    for tag, text in {
        "patdata/id": one.number,
        "patdata/lastname": one.family,
        "patdata/firstname": one.given,
        "patdata/birthdate": one.ymd,
        "patdata/gender": "FEMALE",
        "patdata/address": "1 Drubbelgate",
        "patdata/phone": "555-0173",
        "examdescript/startdatetime/date": "20110301",
        "examdescript/user_id": STAFF[1],
        "examdescript/case_id": one.other,
        "examdescript/order_id": one.other,
        "examdescript/department_id": "Floonhaven",
        "examdescript/institute_id": "Drubbelgate",
        "examdescript/location/id": "Floonhaven",
        "examdescript/idu/aquiring_user/id": STAFF[1],
        "examdescript/idu/referring_user/id": STAFF[0],
        "examdescript/idu/referring_user/lastname": STAFF[0],
        "examdescript/aquiringdevice/hardware/serialnum": one.other,
        "examdescript/remark": SAID[3].format(one),
        "schillerinternals/scpdata/info": SAID[4].format(one),
    }.items():
        put(root, tag, text)
    block = root.find("eventdata/event/textdata/textdata")
    assert block is not None
    block.text = "\n".join(text.format(one) for text in (*SAID, KEPT))
    _written(root, path)
