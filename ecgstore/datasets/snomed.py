"""The SNOMED CT codes of the PhysioNet/CinC Challenges 2020 and 2021, with their names.

From the mapping tables ``dx_mapping_scored.csv`` and ``dx_mapping_unscored.csv`` of Challenge 2021
(Reyna et al., Will two do? Varying dimensions in electrocardiography, doi 10.13026/34va-7q14) and
the header of its ``weights.csv``; which classes were scored in 2020 from the table of Challenge
2020 (Perez Alday et al., Physiol Meas 41:124003). Licence of the tables: CC BY 4.0. The codes are
SNOMED CT's, which is a terminology of SNOMED International; no other content of it is here.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["SNOMED", "SOURCES", "Code", "tasks_of"]

SOURCES = {
    "C": "cpsc_2018",
    "X": "cpsc_2018_extra",
    "I": "st_petersburg_incart",
    "P": "ptb",
    "L": "ptb-xl",
    "G": "georgia",
    "S": "chapman_shaoxing",
    "N": "ningbo",
}
"""The sources of the challenges as their folders are called, by the letter used in `SNOMED`."""


class Code(NamedTuple):
    """A diagnosis as the challenges code it.

    Attributes:
        code: SNOMED CT code; the task is ``snomed:CODE``.
        abbreviation: The challenges' abbreviation; one is used for one code only.
        name: The challenges' name.
        sources: Letters of `SOURCES` in which the code occurs at least once.
        scored: First year whose score counts it, 2020 or 2021 (27 and 30 codes); None if neither.
        same_as: Code that the score takes for the same class, which leaves 26 classes in 2021.
    """

    code: str
    abbreviation: str
    name: str
    sources: str
    scored: int | None = None
    same_as: str | None = None


def tasks_of(source: str) -> tuple[str, ...]:
    """Return the tasks in which the records of a source are labelled: the codes that it uses.

    Args:
        source: A value of `SOURCES`.
    """
    letter = next(letter for letter, name in SOURCES.items() if name == source)
    return tuple(f"snomed:{entry.code}" for entry in SNOMED if letter in entry.sources)


SNOMED = (
    Code("270492004", "IAVB", "1st degree av block", "CXLGSN", 2020),
    Code("164889003", "AF", "atrial fibrillation", "CXIPLGS", 2020),
    Code("164890007", "AFL", "atrial flutter", "XPLGSN", 2020),
    Code("426627000", "Brady", "bradycardia", "XIGN", 2020),
    Code("6374002", "BBB", "bundle branch block", "IPGN", 2021),
    Code("733534002", "CLBBB", "complete left bundle branch block", "N", 2021, "164909002"),
    Code("713427006", "CRBBB", "complete right bundle branch block", "XLGN", 2020, "59118001"),
    Code("713426002", "IRBBB", "incomplete right bundle branch block", "XLGN", 2020),
    Code("445118002", "LAnFB", "left anterior fascicular block", "LGN", 2020),
    Code("39732003", "LAD", "left axis deviation", "LGSN", 2020),
    Code("164909002", "LBBB", "left bundle branch block", "CXLGSN", 2020, "733534002"),
    Code("251146004", "LQRSV", "low qrs voltages", "LGSN", 2020),
    Code("698252002", "NSIVCB", "nonspecific intraventricular conduction disorder", "XILGSN", 2020),
    Code("10370003", "PR", "pacing rhythm", "XLN", 2020),
    Code("365413008", "PRWP", "poor R wave Progression", "N", 2021),
    Code("284470004", "PAC", "premature atrial contraction", "CXILGSN", 2020, "63593006"),
    Code("427172004", "PVC", "premature ventricular contractions", "XN", 2020, "17338001"),
    Code("164947007", "LPR", "prolonged pr interval", "LSN", 2020),
    Code("111975006", "LQT", "prolonged qt interval", "XLGSN", 2020),
    Code("164917005", "QAb", "qwave abnormal", "XLGSN", 2020),
    Code("47665007", "RAD", "right axis deviation", "XLGSN", 2020),
    Code("59118001", "RBBB", "right bundle branch block", "CXIGSN", 2020, "713427006"),
    Code("427393009", "SA", "sinus arrhythmia", "XILGN", 2020),
    Code("426177001", "SB", "sinus bradycardia", "XLGSN", 2020),
    Code("426783006", "NSR", "sinus rhythm", "CXPLGSN", 2020),
    Code("427084000", "STach", "sinus tachycardia", "XIPLGSN", 2020),
    Code("63593006", "SVPB", "supraventricular premature beats", "XILGN", 2020, "284470004"),
    Code("164934002", "TAb", "t wave abnormal", "XLGSN", 2020),
    Code("59931005", "TInv", "t wave inversion", "XILGSN", 2020),
    Code("17338001", "VPB", "ventricular premature beats", "XGS", 2020, "427172004"),
    Code("195042002", "IIAVB", "2nd degree av block", "XLGSN"),
    Code("164951009", "abQRS", "abnormal QRS", "L"),
    Code("233892002", "AAR", "accelerated atrial escape rhythm", "N"),
    Code("61277005", "AIVR", "accelerated idioventricular rhythm", "N"),
    Code("426664006", "AJR", "accelerated junctional rhythm", "GN"),
    Code("57054005", "AMI", "acute myocardial infarction", "IN"),
    Code("413444003", "AMIs", "acute myocardial ischemia", "XG"),
    Code("426434006", "AnMIs", "anterior ischemia", "LG"),
    Code("54329005", "AnMI", "anterior myocardial infarction", "XLN"),
    Code("251173003", "AB", "atrial bigeminy", "IS"),
    Code("251187003", "AED", "atrial escape beat", "N"),
    Code("195080001", "AFAFL", "atrial fibrillation and flutter", "XG"),
    Code("195126007", "AH", "atrial hypertrophy", "XG"),
    Code("251268003", "AP", "atrial pacing pattern", "G"),
    Code("106068003", "ARH", "atrial rhythm", "N"),
    Code("713422000", "ATach", "atrial tachycardia", "XGSN"),
    Code("50799005", "AVD", "atrioventricular dissociation", "N"),
    Code("29320008", "AVJR", "atrioventricular junctional rhythm", "XN"),
    Code("251166008", "AVNRT", "atrioventricular node reentrant tachycardia", "S"),
    Code("233897008", "AVRT", "atrioventricular reentrant tachycardia", "SN"),
    Code("233917008", "AVB", "av block", "XGSN"),
    Code("251170000", "BPAC", "blocked premature atrial contraction", "XIN"),
    Code("74615001", "BTS", "brady tachy syndrome", "XI"),
    Code("418818005", "BRU", "brugada", "N"),
    Code("698247007", "CD", "cardiac dysrhythmia", "P"),
    Code("426749004", "CAF", "chronic atrial fibrillation", "X"),
    Code("413844008", "CMI", "chronic myocardial ischemia", "X"),
    Code("61721007", "CVCL/CCVCL", "clockwise or counterclockwise vectorcardiographic loop", "N"),
    Code("251198002", "CR", "clockwise rotation", "S"),
    Code("27885002", "CHB", "complete heart block", "XLGSN"),
    Code("204384007", "CIAHB", "congenital incomplete atrioventricular heart block", "P"),
    Code("53741008", "CHD", "coronary heart disease", "IP"),
    Code("251199005", "CCR", "countercolockwise rotation", "S"),
    Code("77867006", "SQT", "decreased qt interval", "XN"),
    Code("82226007", "DIB", "diffuse intraventricular block", "X"),
    Code("428417006", "ERe", "early repolarization", "GSN"),
    Code("164942001", "FQRS", "fqrs wave", "S"),
    Code("13640000", "FB", "fusion beats", "ISN"),
    Code("84114007", "HF", "heart failure", "P"),
    Code("368009", "HVD", "heart valve disorder", "P"),
    Code("251259000", "HTV", "high t-voltage", "X"),
    Code("49260003", "IR", "idioventricular rhythm", "I"),
    Code("251120003", "ILBBB", "incomplete left bundle branch block", "XLGN"),
    Code("251200008", "ICA", "indeterminate cardiac axis", "L"),
    Code("425419005", "IIs", "inferior ischaemia", "LG"),
    Code("704997005", "ISTD", "inferior ST segment depression", "X"),
    Code("426995002", "JE", "junctional escape", "XGSN"),
    Code("251164006", "JPC", "junctional premature complex", "XSN"),
    Code("426648003", "JTach", "junctional tachycardia", "XGN"),
    Code("425623009", "LIs", "lateral ischaemia", "LG"),
    Code("253352002", "LAA", "left atrial abnormality", "G"),
    Code("67741000119109", "LAE", "left atrial enlargement", "XLGN"),
    Code("446813000", "LAH", "left atrial hypertrophy", "XN"),
    Code("445211001", "LPFB", "left posterior fascicular block", "LGN"),
    Code("55827005", "LVHV", "left ventricular high voltage", "SN"),
    Code("164873001", "LVH", "left ventricular hypertrophy", "XILGSN"),
    Code("370365005", "LVS", "left ventricular strain", "X"),
    Code("54016002", "MoI", "mobitz type i wenckebach atrioventricular block", "ISN"),
    Code("426183003", "IIAVBII", "mobitz type II atrioventricular block", "N"),
    Code("164865005", "MI", "myocardial infarction", "XIPLGSN"),
    Code("164861001", "MIs", "myocardial ischemia", "XL"),
    Code("428750005", "NSSTTA", "nonspecific st t abnormality", "XLGS"),
    Code("164867002", "OldMI", "old myocardial infarction", "X"),
    Code("164912004", "PWC", "p wave change", "SN"),
    Code("251182009", "VPVC", "paired ventricular premature complexes", "I"),
    Code("282825002", "PAF", "paroxysmal atrial fibrillation", "IP"),
    Code("67198005", "PSVT", "paroxysmal supraventricular tachycardia", "IL"),
    Code("425856008", "PVT", "paroxysmal ventricular tachycardia", "IN"),
    Code("251205003", "PPW", "prolonged P wave", "N"),
    Code("164921003", "RAb", "r wave abnormal", "XG"),
    Code("314208002", "RAF", "rapid atrial fibrillation", "P"),
    Code("253339007", "RAAb", "right atrial abnormality", "G"),
    Code("67751000119106", "RAHV", "right atrial high voltage", "SN"),
    Code("446358003", "RAH", "right atrial hypertrophy", "XLSN"),
    Code("89792004", "RVH", "right ventricular hypertrophy", "XLGSN"),
    Code("55930002", "STC", "s t changes", "XLGN"),
    Code("49578007", "SPRI", "shortened pr interval", "XGN"),
    Code("65778007", "SAB", "sinoatrial block", "XN"),
    Code("5609005", "SARR", "sinus arrest", "N"),
    Code("17366009", "SAAWR", "sinus atrium to atrial wandering rhythm", "S"),
    Code("60423000", "SND", "sinus node dysfunction", "I"),
    Code("429622005", "STD", "st depression", "CXILGSN"),
    Code("164931005", "STE", "st elevation", "CXILGS"),
    Code("164930006", "STIAb", "st interval abnormal", "XIGSN"),
    Code("251168009", "SVB", "supraventricular bigeminy", "I"),
    Code("426761007", "SVT", "supraventricular tachycardia", "XILGSN"),
    Code("251139008", "ALR", "suspect arm ecg leads reversed", "G"),
    Code("251223006", "TPW", "tall p wave", "N"),
    Code("266257000", "TIA", "transient ischemic attack", "I"),
    Code("164937009", "UAb", "u wave abnormal", "XSN"),
    Code("11157007", "VBig", "ventricular bigeminy", "XILGS"),
    Code("164884008", "VEB", "ventricular ectopics", "CILG"),
    Code("75532003", "VEsB", "ventricular escape beat", "XISN"),
    Code("81898007", "VEsR", "ventricular escape rhythm", "XGN"),
    Code("164896001", "VF", "ventricular fibrillation", "XPGN"),
    Code("111288001", "VFL", "ventricular flutter", "XN"),
    Code("266249003", "VH", "ventricular hypertrophy", "XPLG"),
    Code("251266004", "VPP", "ventricular pacing pattern", "G"),
    Code("195060002", "VPEx", "ventricular pre excitation", "XGS"),
    Code("164895002", "VTach", "ventricular tachycardia", "XIP"),
    Code("251180001", "VTrig", "ventricular trigeminy", "XILGS"),
    Code("195101003", "WAP", "wandering atrial pacemaker", "GS"),
    Code("74390002", "WPW", "wolff parkinson white pattern", "IPLGSN"),
)
"""All 133 codes: those that are scored first, each part by name."""
