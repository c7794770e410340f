"""The words of ECG statements: a text made of them alone cannot hold a person's name.

They are the English words of what carts print (GE 12SL, Philips DXL, Glasgow, SCP-ECG, and the
statement lists of AHA/ACC/HRS 2007, SNOMED CT and PTB-XL). Left out on purpose are words that
introduce a person or a place ("confirmed", "by", "referred", "Dr"), weekdays and months. Words
that are names as well, such as "long" and "wall", make no statement by themselves, and those of
eponyms ("Wolff-Parkinson-White") count only side by side.
"""

from __future__ import annotations

import re

__all__ = ["is_annotation", "is_statement"]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORDS = _set(
    """
    aberrance aberrancy aberrant aberrantly aberration abnormal abnormalities abnormality abnormally
    abnrm absence absent accelerated accessory according acute acutely additional adjacent adjusted
    adversely af affected afib after age aged aivr all also alternans alternate alternating
    alternation ambulatory amp amplitude amplitudes an analysis analyzed and aneurysm angina angle
    anomalous anomaly anterior anteriorly anteroapical anterograde anterolateral anteroseptal
    antidromic aortic apc apcs apical approximately are arm arrest arrhythmia arrhythmias arrhythmic
    artefact artefacts artifact artifacts artificial as ascending asd associated assumes asymmetric
    asynchronous asystole asystolic at athlete athletes athletic atp atria atrial atrioventricular
    atrium atypical augmented av available avb average avf avl avnrt avr avrt avsd axes axis basal
    base based baseline bbb be beat beating beats been below beta between biatrial bidirectional
    bifascicular bigeminal bigeminy bilateral biphasic bipolar bivcd biventricular block blockade
    blocked blocker blockers blocking blocks borderline both bpm brady bradyarrhythmia bradycardia
    branch branches brief broad broadened brugada bundle burst but cable cables cad calibration can
    cannot capture captured captures cardiac cardiomyopathy cardioversion caudal cause caused causes
    cavotricuspid chamber chambers change changed changes changing channel channels chb chest
    chronic chronically chronotropic circumflex clearly clinical clinically clockwise coarse
    combined commonly comparable comparison compatible compensatory complete completely complex
    complexes components composite comprehensive computer concave concordance concordant conducted
    conducting conduction configuration congenital consecutive consider considered considering
    consistent constant contact contamination continuous contraction contractions convex coronary
    correct corrected correction counterclockwise coupled couplet couplets coupling coved crbbb
    criteria criterion cycle data ddd decrease decreased decreases deep deeper defect defects
    definite deflection degree degrees delay delayed delays delta demand depolarisation
    depolarization depressed depression depressions derived detected determined deviated deviation
    dextrocardia diagnosis diagnostic diagonal diastolic difficult diffuse diffusely digitalis
    digoxin dilatation dilated dilation diphasic disconnected discordance discordant disease
    disorder disorders displaced displacement dissociated dissociation distal distorted disturbance
    disturbances disturbed double doubtful downslope downsloping downward drift dropped drug drugs
    dual due duration durations during dysfunction dysrhythmia dysrhythmias early ecg ecgs ectopic
    ectopics ectopy effect effects effusion ekg electrical electrocardiogram electrocardiographic
    electrode electrodes electrolyte electrolytes electrolytic electronic elevated elevation
    elevations embolism emphysema enlarged enlargement epicardial episode episodes epsilon error es
    escape escaped escapes evidence evident except excitation exclude excluded exit expected
    extensive extra extrasystole extrasystoles extrasystolic extreme extremely extremity failure
    fascicle fascicles fascicular female females fibrillation fibrillatory finding findings fine
    first flat flattened flattening flutter for force forces form former forms found fqrs fragmented
    frequent frequently from frontal function functional functioning fused fusion fusions giant
    greater had has heart hemiblock hemiblocks hence high his horizontal hyperacute hypercalcaemia
    hypercalcemia hyperkalaemia hyperkalemia hypertrophic hypertrophied hypertrophy hypocalcaemia
    hypocalcemia hypokalaemia hypokalemia hypothermia hz icd idiojunctional idiopathic
    idioventricular ii iii ilbbb imi improved in inadequate includes including incomplete
    incompletely increase increased increases increasing indeterminate indicate indicated indicates
    indicating indicative infant infarct infarction infarctions infarcts inferior inferiorly
    inferoapical inferobasal inferolateral inferoposterior inferoposterolateral infrequent inhibited
    inhibition initial injury insufficient intact interatrial interchange interference intermittent
    intermittently interpolated interpretation interpreted interval intervals intervening intra
    intraventricular intrinsic intrinsicoid inv inverse inversion inversions inverted involved
    involvement involving irbbb irregular irregularity irregularly is ischaemia ischaemias ischaemic
    ischemia ischemias ischemic isoelectric it iv ivcb ivcd junction junctional juvenile la lack lad
    lae lafb lah lahb lambda large larger late later lateral laterally lbb lbbb lca lcx lead leads
    left leftward leg less level lgl likely limb limits ll lmca long longer loop loose loss lost low
    lower lpfb lph lphb lv lvh main mains major males malfunction malfunctioning malposition marked
    markedly may mean measure measured meet meets mi mid mild mildly min minimal minor minute
    minutes misplaced misplacement missing mitral mixed mm mobitz moderate moderately modified
    monomorphic more moreover morphology most mostly motion movement ms msec multifocal multiform
    multiformed multiple mv myocardial myocarditis myocardium narrow necrosis negative neonatal new
    no nod nodal node noise noisy non nonconducted nondiagnostic none nonischemic nonsp nonspecific
    nonsustained norm normal normalization normalized normally not notch notched notching noted now
    nsr nssttw nstemi nsvt obscure obscured obscures obstruction obstructive occasional occasionally
    occlusion occur of off old omitted on one only or origin original originating orthodromic osborn
    other otherwise out outflow outside over overload oversensing pac paced pacemaker pacemakers
    pacer paces pacing pacs pair paired pairs parasystole parasystolic paroxysm paroxysmal partial
    partially patent pathologic pathological pathologically pathology pathway pathways pattern
    patterns pause pauses pda peak peaked peaking peaks pediatric pericardial pericarditis period
    periods permanent persistent persistently persisting persists physiologic physiological pjc pjcs
    placement plus polarity polymorphic poor poorly position positional positive possible possibly
    post posterior posteriorly posterobasal posterolateral posteroseptal potassium pp ppm pr pre
    precordial precordium predominant predominantly preexcitation preexcited preliminary premature
    prematurity presence present previous previously primary primum prior pro probable probably
    product progression progressive progressively prolongation prolonged prolonging prominence
    prominent pronounced prwp pseudofusion pseudoinfarct pseudoinfarction psvt pulmonale pulmonary
    pulmonic pulse pvc pvcs pvd qr qrs qrsd qrst qs qsr qt qtc qtcb qtcf qtf quality questionable
    qwave ra rad rae rapid rare rate ravl rbb rbbb rbbbh rca recent recently reciprocal recording
    reduced reentrant reentry region regular regularly related relative remote replaced repol
    repolarisation repolarization report respiration respiratory response rest resting retrograde
    reversal reverse reversed rhythm rhythms right rightward rotation rounded routine rr rs rsr rule
    rules run runs rv rvh sa sagging salvo saw sawtooth sb scar scarring scooped sec second
    secondary seconds secundum segment segmental segments sensed sensing sensitivity septal septum
    sequence sequential serial series severe severely shallow shape shaped sharp shift shifted short
    shortened shortening should shows signal signals significance significant significantly similar
    single sino sinoatrial sinoauricular sinoventricular sinus slight slightly slope sloping slow
    slowing slowly slurred slurring small smaller sokolow specific specificity spike spikes ssr st
    standard standstill std ste steep stemi straightening strain strip sub subacute subendocardial
    subepicardial suggest suggested suggesting suggestion suggestive suggests superior supranodal
    supraventricular suspect suspected sustained sv svpb svt svtach symmetric symmetrical syndrome
    syndromes systolic tachy tachyarrhythmia tachycardia tachycardias tachycardic tall technical
    technically terminal than that the then there these they third this three threshold throughout
    thus tiny to towards trace tracing tracings tract transient transition transitional transmission
    transmitted transmural transposed transposition tremor tricuspid trifascicular trigeminal
    trigeminy trigger triple triplet triplets twa twave twaves two type typical uncertain unchanged
    unclassifiable unclassified unclear uncommon unconfirmed undefined underlying undersensing
    undetectable undetermined unifocal unipolar unknown unlikely unspecified unsuitable unsustained
    unusual upper upright upsloping upward usual usually uv vagal value valve variability variable
    variably variant variation variations vcd vdd vectorcardiogram vectorcardiographic vent ventr
    ventricle ventricles ventricular vertical very vf vfib vfl volt voltage voltages vpb vpbs vpc
    vpcs vt vtach vvi wall wander wandering wap was wave waveform waveforms waves wenckebach were
    when which while wide widened widening widespread width with within without would wpw xqrsd year
    years yrs zone
    a c f i j n o p q r s t u v w x y z
    """
)

# Words that make no statement by themselves: letters, which may be initials, those that only join
# others, and common names.
_WEAK = _set(
    """
    a c f i j n o p q r s t u v w x y z
    also and are as at but can for from had has in is it no not of old on only or out than that the
    there these they this to was were when which while with within
    block brugada burst chambers deep early fine flat high his la lad large long low main major may
    min mobitz norm osborn peak poor post prior ra rad rae rest rule saw second sharp short single
    small sokolow strain wall wenckebach
    """
)

# What is a statement's only side by side: eponyms, ordinals, and the changes that serial comparison
# prints ("has increased by 21 bpm").
_EPONYMS = re.compile(
    r"\bwolff?[\s-]+parkinson[\s-]+white\b|\blown[\s-]+ganong[\s-]+levine\b"
    r"|\bsokolow[\s-]+lyon\b|\bromhilt[\s-]+estes\b|\bcornell (?=product|voltage|criteri)"
    r"|\btorsades?[\s-]+de[\s-]+pointes?\b"
)
_NUMBERED = re.compile(
    r"\b(?:1st|2nd|3rd|(?:[4-9]|1\d)th)\b|\bby (?=\s*\d{1,3} ?(?:bpm|ms|msec|mm|mv|degrees|%))"
)
_TOKEN = re.compile(r"[^\W\d_]+")
# Years and ids; dates in two or three parts; times of day, which "2:1 block" is not; the month of
# May, which the verb is not; telephone numbers in groups.
_IDENTIFYING = re.compile(
    r"\d{4}|\d[/.:-]\d+[/.:-]\d|(?<![\w.])[0-3]?\d/[0-3]?\d(?!\d)|\d:\d\d"
    r"|\d[ .-]*may\b(?! be\b)|\bmay\W*\d|\d(?:[ .()/-]{0,3}\d){6}"
)


def is_statement(text: str) -> bool:
    """Tell whether a text is made of the words of ECG statements and short numbers alone.

    Example:
        >>> is_statement("Sinus rhythm with 1st degree A-V block"), is_statement("seen: J. Long")
        (True, False)
    """
    lower = text.lower()
    if _IDENTIFYING.search(lower):
        return False
    words = set(_TOKEN.findall(_NUMBERED.sub(" ", _EPONYMS.sub(" wpw ", lower))))
    return words <= _WORDS and not words <= _WEAK


# annot(5) and the PhysioNet databases: rhythms (mitdb, afdb, ltafdb, vfdb, edb, CPSC 2021), signal
# quality, tape slippage, missed beats; "None" is what a writer left that had no text to give.
_CODES = _set(
    """
    (AB (AF (AFIB (AFL (ASYS (AT (AVB (B (BBB (BI (BII (BIII (HGEA (IVR (J (MAT (N (NOD (NOISE
    (NSR (P (PAT (PM (PREX (SAB (SB (SBR (ST (SVT (SVTA (T (VER (VF (VFIB (VFL (VT (VTS ( )
    MISSB MB PSE TS M U C N ~ + P T None
    """
)
# ST and T episodes of edb and ltstdb with their peaks, and shifts by axis and conduction: "(ST0+",
# "AST1-200", "(rtst0+0113", "ccst1-0085".
_EPISODE = re.compile(r"\(?(?:[arAR]|rt|art|ax|cc)?(?:ST|T|st|t)[0-3]?[+-]{0,2}[0-9]{0,5}[+-]?\)?")
# slpdb: the stage of sleep, then apneas, hypopneas, leg movements and arousals of the half minute.
_SLEEP = re.compile(r"(?:[W1234R]|MT)(?: (?:HA|H|OA|X|CAA|CA|LA|L|A|MT|M))*")


def is_annotation(text: str) -> bool:
    """Tell whether the text of an annotation is one of the known codes or a statement."""
    bare = text.strip()
    return (
        not bare
        or bare in _CODES
        or bool(_EPISODE.fullmatch(bare) or _SLEEP.fullmatch(bare))
        or is_statement(bare)
    )
