"""Make ``expected_files.csv``: what every file of the shared data folder must give.

Usage: ``python make_expected_files.py DATA_FOLDER expected_files.csv`` (about a minute). The table
holds the package's readers to account, so nothing of the package is used. Values come from wfdb
4.3.1, pydicom 3.0.2, pyedflib 0.1.42, h5py 3.16.0, scipy 1.17.1 and numpy 2.4.6, or are decoded
here by hand. A second way must agree (``agree``) before a row is written:

* WFDB (``smooth_frames=False``): the checksums in the headers. Annotations: counted by hand.
* HL7: origin + scale x digits; DICOM: pydicom; SCP: section 6 by hand, default Huffman table. One
  ECG is in four of these files. The other SCP file: biosig-tools 2.5.0 of Debian 12 (``BIOSIG``).
* EDF and BDF (pyedflib), ISHNE (by hand), CSV (numpy): the WFDB record that they hold (``SAME``).
* MUSE: base64 and int16 by hand; the CRC-32 that the file has for every lead.
* Philips: base64, LZW and differences by hand; the 1 mV pulse must come out in all 12 leads.
* Schiller: by hand; CPSC, SPH, CODE-15: scipy, h5py. I + III = II; CODE-15 files equal the rows.

Checked once besides, and left out: the integers of all WFDB, EDF, BDF and DICOM files by hand.
"""

import csv
import re
import struct
import sys
import warnings
from binascii import a2b_base64, crc32, crc_hqx
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import h5py
import numpy as np
import pydicom
import pyedflib
import scipy.io
import wfdb

parse: Any = ElementTree.parse  # an absent element may stop the run
COLUMNS = ["path", "what", "record", "leads", "rate_hz", "n_samples", "first_mv", "last_mv"]
COLUMNS += ["made_with", "note"]
STANDARD = ["I", "II", "III", "aVR", "aVL", "aVF", *(f"V{k}" for k in range(1, 7))]
SPELT = {s.lower(): s for s in STANDARD} | {"vx": "X", "vy": "Y", "vz": "Z"}
MILLIVOLTS = {"": 1.0, "mv": 1.0, "uv": 1e-3, "nv": 1e-6}

# save2gdf -f=ASCII formats/scp/full_anon.scp OUT.asc: first and last of OUT.a01 to OUT.a08, uV.
BIOSIG = "71.25 56.25 52.5 303.75 345 180 86.25 48.75 7.5 3.75 0 7.5 11.25 11.25 7.5 7.5"
ZSCORED = "standardised lead by lead (mean 0, deviation 1) and resampled: not millivolts"
REJECTED = {
    "formats/hl7_aecg/empty.xml": "an AnnotatedECG element with no series in it: no waveform",
    "formats/philips_xml/invalid-doc-type.xml": "document type is MortaraECG, not PhilipsECG",
    "code15_10/preprocessed.npz": f"ten records in one file, {ZSCORED}",
    "code15_10/segmented/code_15_1594286_0.mat": f"first 5 s of a record, {ZSCORED}",
    "code15_10/segmented/code_15_1594286_1.mat": f"second 5 s of a record, {ZSCORED}",
    "code15_10/segmented/code_15_438277_0.mat": f"first 5 s of a record, {ZSCORED}",
}
# The default table of EN 1064: n ones, a zero and a sign are +-n; 10 bits, then 16 or 8, are not.
HUFFMAN = re.compile(r"1{10}(.{16})|1{9}0(.{8})|(1{1,8})0(.)|0")
TABLES = re.compile(r"(ptbxl|sph|code15\w*|challenge2021(?=/dx_)|.*(?=/REF))/\w+\.csv")
SAME = {"00004_hr_": "ptbxl/records500/00000/00004_hr", "105_5min_": "longterm/mitdb/105"}
SAME["cardio_sample"] = "formats/cinc2017_single_lead/A00001"
LOWEST = {"212": -2048, "508": -128, "80": -128, "310": -512, "311": -512, "24": -(1 << 23)}
CODE15 = "unit 1e-4 V as documented (disputed: amplitudes look like about 0.5 mV)"
NO_SIGNAL = {"what": "annotations", "n_samples": "856", "made_with": "pyedflib"}  # test_edfann
NOTES = {
    "formats/edf_bdf/cardio_sample.edf": "the last 3000 samples are -32768 (padding of the last "
    "10 s record; EDF has no code for invalid)",
    "formats/edf_bdf/test_generator_datarec_2.bdf": "machine-made test signal",
    "formats/csv/00004_hr_decimal_comma.csv": "rate declared",
    "formats/csv/00004_hr_uv_semicolon.csv": "rate and unit (microvolts) declared",
    "formats/wfdb/100.qrs": "wfdb for Python returns 2273: it leaves out the NOTE at sample 0",
    "formats/wfdb/multi-segment/041s/041s.hea": "I: one of the four samples of frame 1044",
}


class Wave(NamedTuple):
    """One signal: name and unit as the file spells them, Hz, and its samples in that unit."""

    name: str
    unit: str
    rate: float
    values: np.ndarray

    @property
    def scale(self) -> float | None:
        return MILLIVOLTS.get(self.unit.strip().lower().replace("µ", "u"))


def agree(ok: object, what: object) -> None:
    """Stop where two ways to the same number differ."""
    if not ok:
        sys.exit(f"two ways disagree: {what}")


def six(values: list[float] | np.ndarray) -> str:
    return "|".join("nan" if np.isnan(v) else f"{round(v, 6) + 0.0:.6f}" for v in values)


def lead(name: str) -> str:
    """The standard spelling of a lead name; any other name is only stripped."""
    bare = re.sub(r"^(ecg |lead )| \(einthoven\)$", "", name.strip().lower())
    return SPELT.get(bare.removeprefix("lead "), name.strip())


def described(waves: list[Wave], made_with: str, note: str = "", **more: str) -> dict[str, str]:
    """The row of a record: leads ordered, the four computed leads added, the rest in the note."""
    volts = [w for w in waves if w.scale]
    rates = [w.rate for w in volts if lead(w.name) in STANDARD] or [w.rate for w in volts]
    main = max(set(rates), key=lambda rate: (rates.count(rate), rate))
    ecg = [w for w in volts if w.rate == main]
    chosen = {lead(w.name): w.values * w.scale for w in ecg}
    agree(len(chosen) == len(ecg), f"{made_with}: two leads of one name")
    notes = [note]
    if {"I", "II"} <= set(chosen) and set(chosen) & set(STANDARD[6:]) and "III" not in chosen:
        i, ii = chosen["I"], chosen["II"]
        chosen |= {"III": ii - i, "aVR": -(i + ii) / 2, "aVL": i - ii / 2, "aVF": ii - i / 2}
        notes.append("III, aVR, aVL, aVF derived")
    leads = [s for s in STANDARD if s in chosen] + [s for s in chosen if s not in STANDARD]
    lost = [f"{s} {n}" for s in leads if (n := np.isnan(chosen[s]).sum())]
    notes += ["invalid samples: " + ", ".join(lost)] if lost else []
    also = [
        f"{w.name.strip()} {w.unit.strip() or 'mV'} {w.rate:.9g} Hz {len(w.values)} samples "
        f"first={six(w.values[:1])} last={six(w.values[-1:])}"
        for w in (w for w in waves if not w.scale or w.rate != main)
    ]
    notes += ["also: " + "; ".join(also)] if also else []
    ends = [six([chosen[s][at] for s in leads]) for at in (0, -1)]
    row = ["record", "", "|".join(leads), f"{main:.9g}", str(len(ecg[0].values)), *ends, made_with]
    return dict(zip(COLUMNS[1:], [*row, "; ".join(filter(None, notes))], strict=True)) | more


def edf_waves(file: Path) -> list[Wave]:
    with pyedflib.EdfReader(str(file)) as edf:
        heads: list[Any] = [edf.getSignalHeader(k) for k in range(edf.signals_in_file)]
        dims = ((h["label"], h["dimension"], h["sample_frequency"]) for h in heads)
        return [Wave(a, b, c, edf.readSignal(k)) for k, (a, b, c) in enumerate(dims)]


def dicom_waves(file: Path) -> list[Wave]:
    rhythm = (data := pydicom.dcmread(file)).WaveformSequence[0]
    agree(rhythm.MultiplexGroupLabel == "RHYTHM", file)
    waves = []
    for c, x in zip(rhythm.ChannelDefinitionSequence, data.waveform_array(0).T, strict=True):
        unit = c.ChannelSensitivityUnitsSequence[0].CodeValue
        name = c.ChannelSourceSequence[0].CodeMeaning
        waves.append(Wave(name, unit, float(rhythm.SamplingFrequency), x))
    return waves


def hl7_waves(file: Path) -> list[Wave]:
    waves, h = [], "{urn:hl7-org:v3}"
    (series,) = parse(file).getroot().iterfind(f"{h}component/{h}series")
    agree(series.find(f"{h}code").get("code") == "RHYTHM", file)
    step = float(series.find(f".//{h}increment[@unit='s']").get("value"))
    for s in series.iterfind(f"{h}component/{h}sequenceSet/{h}component/{h}sequence"):
        if (digits := s.find(f".//{h}digits")) is not None:
            origin, scale = s.find(f".//{h}origin"), s.find(f".//{h}scale")
            agree(origin.get("unit") == scale.get("unit") == "uV", file)
            x = np.array(digits.text.split(), float) * float(scale.get("value"))
            name = s.find(f"{h}code").get("code").removeprefix("MDC_ECG_LEAD_")
            waves.append(Wave(name, "uV", 1 / step, x + float(origin.get("value"))))
    return waves


def scp_waves(file: Path) -> list[Wave]:
    """Rhythm data of an SCP-ECG file (EN 1064) coded with the default Huffman table."""
    raw = file.read_bytes()
    agree(raw[:6] == struct.pack("<HI", crc_hqx(raw[2:], 0xFFFF), len(raw)), f"{file}: CRC, size")
    entries = struct.iter_unpack("<HII", raw[22 : 22 + 120])
    part = {k: raw[at + 15 : at - 1 + n] for k, n, at in entries if n}
    count, flags = part[3][:2]
    agree(part[2][:2] == b"\x1f\x4e" and not flags & 1, f"{file}: default table, no reference beat")
    nanovolts, micros, order = struct.unpack_from("<HHB", part[6])
    names = dict(enumerate([*STANDARD[:2], *STANDARD[6:], "V7"], 1)) | {11: "V3R"}
    names |= dict(enumerate(STANDARD[2:6], 61))
    waves, at = [], 6 + 2 * count
    for k in range(count):
        start, end, code = struct.unpack_from("<IIB", part[3], 2 + 9 * k)
        (size,) = struct.unpack_from("<H", part[6], 6 + 2 * k)
        bits = "".join(f"{byte:08b}" for byte in part[6][at : at + size])
        at, x = at + size, []
        for m in islice(HUFFMAN.finditer(bits), end - start + 1):
            wide, ones, sign = m[1] or m[2], len(m[3] or ""), -1 if m[4] == "1" else 1
            x.append(int(wide, 2) - (int(wide[0]) << len(wide)) if wide else sign * ones)
        if order == 2:  # two samples, then second differences
            x[1:] = accumulate([x[1] - x[0], *x[2:]])
        y = float(nanovolts) * (np.cumsum(x) if order else np.array(x))
        waves.append(Wave(names[code], "nV", 1e6 / micros, y))
    return waves


def ishne_waves(file: Path) -> list[Wave]:
    """ISHNE Holter Standard Output File 1.0 (Badilini 1998)."""
    raw = file.read_bytes()
    variable, n, _, at = struct.unpack_from("<iiii", raw, 10)
    count, *codes = struct.unpack_from("<h12h", raw, 156)
    nanovolts, (rate,) = struct.unpack_from("<12h", raw, 206), struct.unpack_from("<h", raw, 272)
    agree(raw[8:10] == crc_hqx(raw[10 : 522 + variable], 0xFFFF).to_bytes(2, "little"), file)
    x = np.frombuffer(raw[at:], "<i2").reshape(n, count).T.astype(float)
    return [Wave(STANDARD[codes[k] - 5], "nV", rate, x[k] * nanovolts[k]) for k in range(count)]


def muse_waves(file: Path) -> list[Wave]:
    waves, (rhythm,) = [], parse(file).getroot().iterfind("Waveform[WaveformType='Rhythm']")
    rate = float(rhythm.findtext("SampleBase")) * 10.0 ** int(rhythm.findtext("SampleExponent"))
    for block in rhythm.iterfind("LeadData[LeadAmplitudeUnits='MICROVOLTS']"):
        has = {e.tag: (e.text or "").strip() for e in block}
        raw = a2b_base64(has["WaveFormData"])
        agree(crc32(raw) == int(has["LeadDataCRC32"]), f"{file}: CRC-32")
        x = np.frombuffer(raw, "<i2") * float(has["LeadAmplitudeUnitsPerBit"])
        waves.append(Wave(has["LeadID"], "uV", rate, x))
    return waves


def philips_waves(file: Path) -> list[Wave]:
    """XLI: 10-bit LZW of the high, then the low bytes of two samples and second differences."""
    (blob,) = parse(file).getroot().iterfind(".//{*}parsedwaveforms")
    raw, start, leads = a2b_base64(blob.text), 0, list[Any]()
    while len(leads) < 12:
        size, _, delta = struct.unpack_from("<Ihh", raw, start)
        bits = int.from_bytes(raw[start + 8 : start + 8 + size])
        known, out, last, at = [bytes([k]) for k in range(256)], [], b"", size * 8 - 10
        while (code := bits >> at & 1023) != 1023:
            word = known[code] if code < len(known) else last + last[:1]
            known += [last + word[:1]] if last and len(known) < 1023 else []
            out.append(last := word)
            at -= 10
        high, low = np.frombuffer(b"".join(out), "u1").reshape(2, -1).astype(int)
        v = ((high << 8 | low) ^ 0x8000) - 0x8000  # differences are negated, plus 64
        slopes = np.concatenate([[v[1] - v[0], -delta], 64 - v[2:-1]]).cumsum()
        leads.append(np.concatenate([v[:1], v[0] + slopes.cumsum()]))
        start += 8 + size
    i, ii = leads[:2]  # the other limb leads are residuals; halves towards zero keep them smallest
    iii = ii - i - leads[2]
    exact = ii - i, -(i + ii) / 2, (i - iii) / 2, (ii + iii) / 2
    leads[2:6] = [np.trunc(x) - y for x, y in zip(exact, leads[2:6], strict=True)]
    end = 5264 if "129DYPRG" in file.name else 5300  # here the calibration pulse begins
    agree(all(np.array_equal(x[end:], i[end:]) for x in leads), f"{file}: pulse in every lead")
    agree(len(i) == 5500 and set(i[end:]) == {0, 200}, f"{file}: 11 s, a 1 mV pulse at 5 uV")
    return [Wave(s, "uV", 500.0, x[:end] * 5.0) for s, x in zip(STANDARD, leads, strict=True)]


def schiller_waves(file: Path) -> list[Wave]:
    (data,) = parse(file).getroot().iterfind(".//wavedata[type='ECG_RHYTHMS']")
    rate, unit = (data.findtext(f"resolution/{t}") for t in ("samplerate/value", "yres/units"))
    waves = []
    for channel in data.iterfind("channel"):
        x = np.array(channel.findtext("data").strip(" ,\n").split(","), float)
        agree(len(x) == int(channel.findtext("samplecount")), file)
        waves.append(Wave(channel.findtext("name"), unit, float(rate), x))
    return waves


def csv_waves(file: Path) -> list[Wave]:
    text = file.read_text()
    if ";" in text:
        text = text.replace(",", ".").replace(";", ",")
    names, *lines = text.splitlines()
    table, unit = np.loadtxt(lines, delimiter=",").T, "uV" if "_uv_" in file.name else "mV"
    rate = round(1 / np.diff(table[0]).mean(), 6) if names.startswith("time_s,") else 500.0
    columns = zip(names.split(","), table, strict=True)
    return [Wave(name, unit, rate, x) for name, x in columns if name != "time_s"]


def array_waves(values: np.ndarray, rate: float) -> list[Wave]:
    i, ii, iii, *_ = x = np.asarray(values, float)
    agree(np.median(np.abs(i + iii - ii)) < 2e-3, "I + III = II")
    return [Wave(s, "mV", rate, v) for s, v in zip(STANDARD, x, strict=True)]


def cohort_waves(file: Path) -> list[Wave]:
    """SPH (HDF5) and CPSC 2018 (MATLAB) keep 12 leads in millivolts at 500 Hz."""
    if file.suffix == ".mat":
        return array_waves(scipy.io.loadmat(file)["ECG"]["data"].item(), 500.0)
    with h5py.File(file) as h5:
        return array_waves(h5["ecg"][:], 500.0)


READERS = {
    "formats/dicom/*.dcm": (dicom_waves, "pydicom"),
    "formats/hl7_aecg/*[g0].xml": (hl7_waves, "by hand"),
    "formats/scp/*.scp": (scp_waves, "by hand; biosig"),
    "formats/ishne/*.ecg": (ishne_waves, "by hand; wfdb"),
    "formats/muse_xml/*.xml": (muse_waves, "by hand; CRC-32"),
    "formats/philips_xml/1_*": (philips_waves, "by hand; pulse"),
    "formats/schiller_xml/*.xml": (schiller_waves, "by hand"),
    "formats/edf_bdf/*df": (edf_waves, "pyedflib"),
    "formats/csv/*.csv": (csv_waves, "numpy; wfdb"),
    "sph/records/*.h5": (cohort_waves, "h5py"),
    "cpsc2018_original/*.mat": (cohort_waves, "scipy"),
}


def file_rows(root: Path) -> dict[str, dict[str, str]]:
    """Rows of the files that hold one record each, once the equal ones are found equal."""
    rows, ecg = {}, {}
    for pattern, (read, made_with) in READERS.items():
        for file in root.glob(pattern):
            path, waves = str(file.relative_to(root)), read(file)
            ecg[path] = {lead(w.name): w.values * w.scale for w in waves}
            rows[path] = described(waves, made_with, NOTES.get(path, "")) if waves else NO_SIGNAL
    mine = [x[at] * 1e3 for at in (0, -1) for x in ecg["formats/scp/full_anon.scp"].values()]
    agree(np.allclose(mine, np.array(BIOSIG.split(), float), rtol=0, atol=1e-9), "biosig")
    for path, leads in ecg.items():
        for key in (key for key in SAME if key in path):
            truth = wfdb.rdrecord(str(root / SAME[key])).p_signal.T
            part = np.array(list(leads.values()))[:, : truth.shape[1]]
            agree(np.abs(part - truth[:, : part.shape[1]]).max() < 0.0005, path)
        if path.endswith(("_huffman.scp", "/example_aecg.xml", "/subject1_0.xml")):
            same = [(leads[s], ecg["formats/dicom/example_500hz.dcm"][s]) for s in STANDARD]
            agree(all(np.allclose(a, b, rtol=0, atol=1e-9) for a, b in same), path)
    return rows


def code15_rows(root: Path) -> dict[str, dict[str, str]]:
    """The container, its rows without the zero padding, and the same exams as ``.mat`` files."""
    path, rows, exams = "code15/exams_part0.hdf5", {}, {}
    with h5py.File(root / path) as h5:
        table = dict(zip(h5["exam_id"][:], h5["tracings"][:], strict=True))
    for exam, tracing in table.items():
        used, key = np.flatnonzero(tracing.any(axis=1)), f"{path}#{exam}"
        rows[key] = {"what": "rejected", "record": path, "made_with": "h5py", "note": "empty row"}
        if len(used):
            exams[exam] = x = tracing[used[0] : used[-1] + 1].T
            note = f"samples {used[0]}-{used[-1]} of 4096; {CODE15}"
            rows[key] = described(array_waves(x / 10.0, 400.0), "h5py", note, record=path)
    note = f"{len(table)} rows, {len(exams)} of them records"
    rows[path] = {"what": "container", "rate_hz": "400", "made_with": "h5py", "note": note}
    for file in root.glob("code15*/[mo]*/*.mat"):
        mat, exam = scipy.io.loadmat(file), int(file.stem.split("_")[-1])
        agree(exam not in exams or np.array_equal(exams[exam], mat["feats"]), file)
        waves = array_waves(mat["feats"] / 10.0, float(mat["curr_sample_rate"].item()))
        note = CODE15 + ("; equals the HDF5 row" if exam in exams else "")
        rows[str(file.relative_to(root))] = described(waves, "scipy", note)
    return rows


def wfdb_rows(root: Path) -> dict[str, dict[str, str]]:
    """Rows of headers and of the signal files that they name."""
    rows, owners, master = dict[str, Any](), dict[str, list[str]](), dict[str, str]()
    for header in sorted(root.rglob("*.hea")):
        path, text = str(header.relative_to(root)), header.read_text(errors="replace")
        first, *lines = [s.split() for s in text.splitlines() if s.strip() and s[0] != "#"]
        if first[1] == "0":
            rows[path] = {"what": "annotations", "record": path, "note": "header with no signal"}
            continue
        r, segments = wfdb.rdrecord(str(header)[:-4], smooth_frames=False), "/" in first[0]
        notes = [f"{len(lines)} segments"] if segments else []
        for k, x in enumerate([] if segments else r.e_p_signal):
            stored = np.rint(x * r.adc_gain[k] + r.baseline[k])
            total = int(np.nan_to_num(stored, nan=LOWEST.get(r.fmt[k], -32768)).sum())
            if (total - r.checksum[k]) % 65536 and not r.skew[k]:  # a skew cuts samples off
                notes.append(f"checksum in the header is {r.checksum[k]}, not {total % 65536}")
        table = zip(r.sig_name, r.units, r.samps_per_frame, r.e_p_signal, strict=True)
        waves = [Wave(name, unit, r.fs * per, np.asarray(x)) for name, unit, per, x in table]
        how = "wfdb" if notes else "wfdb; checksum"
        rows[path] = described(waves, how, "; ".join(filter(None, [*notes, NOTES.get(path)])))
        for name in {line[0] for line in lines}:
            part = str((header.parent / name).relative_to(root))
            owners.setdefault(part, []).append(path)
            master |= {f"{part}.hea": path} if segments else {}
    for path, name in master.items():
        rows[path] |= {"what": "segment", "record": name}
    for part, names in owners.items():
        if f"{part}.hea" not in master:
            own = part.rsplit(".", 1)[0] + ".hea"
            note = f"named by {len(names)} headers" if len(names) > 1 else ""
            rows[part] = {"what": "part", "record": own if own in rows else names[0], "note": note}
    return rows


def annotation_row(file: Path, header: str, note: str) -> dict[str, str]:
    """Count all codes of an MIT-format file but the pseudo-codes SKIP to AUX (59-63)."""
    count, at, raw = 0, 0, file.read_bytes()
    while word := struct.unpack_from("<H", raw, at)[0]:
        count += word >> 10 < 59
        at += 2 + {59: 4, 63: (word & 1023) + word % 2}.get(word >> 10, 0)
    found = wfdb.rdann(str(file.with_suffix("")), file.suffix[1:])
    agree(count - len(found.sample) == ("leaves out" in note), file)
    row = {"what": "annotations", "record": header, "rate_hz": f"{found.fs:.9g}", "note": note}
    return row | {"n_samples": str(count), "made_with": "wfdb; by hand"}


def main(root: Path, out: Path) -> None:
    warnings.simplefilter("ignore")
    rows = {path: {"what": "rejected", "note": why} for path, why in REJECTED.items()}
    rows |= file_rows(root) | code15_rows(root) | wfdb_rows(root)
    for path in {str(f.relative_to(root)) for f in root.rglob("*") if f.is_file()} - set(rows):
        rows[path] = {"what": "table" if TABLES.fullmatch(path) else "other"}
        if path.endswith((".atr", ".qrs", ".pu1", ".ecg")):
            header = path.rsplit(".", 1)[0] + ".hea"
            rows[path] = row = annotation_row(root / path, header, NOTES.get(path, ""))
            if rows[header]["what"] == "annotations":
                rows[header] |= {k: row[k] for k in ("rate_hz", "n_samples")}
    with out.open("w", newline="") as f:
        table = csv.DictWriter(f, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows({"path": path} | rows[path] for path in sorted(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
