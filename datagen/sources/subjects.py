"""Persons, read from names: a table of rules, first match wins, and what speaks against its answer.

A wrong guess that joins two persons costs a fold; one that parts a person leaks it into the test. In doubt, join.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ussim.errors import DataError
from ussim.volumes.files import relative, stem

# Words of a file's name that say what was acquired, when, or how it was processed, never who.
_SEQUENCE = (
    r"t1(w|c|ce|n|gd|post|pre|map)?|t2(w|f|s|star)?|(t2-?)?flair|fl|pd(w)?|adc|dwi|dti|swi|mra|bold|asl|tof|angio|mprage|mp2rage|"
    r"mp-?rage|bravo|space|vibe|haste|trufi|stir|dixon|water|fat|in-?phase|opp(osed)?-?phase|pre|post\d*|contrast|"
    r"perf(usion)?|dce|flash|gre|epi|se|tse|cor(onal)?|sag(ittal)?|ax(ial)?|tra(nsverse|nsversal)?"
)
_VISIT = (
    r"(ses(sion)?|visit|tp|timepoint|run|acq|echo|scan|series|exam|study|rep(eat)?|mr|m|v|d|y|month|week|day|year|"
    r"retest)[-_ ]?\d+|baseline|bl|follow-?up\d*|fu\d*"
)
_PROCESSING = r"image|img|brain|stripped|bet|reg(istered)?|n4|norm(alized)?|orig|defaced|anon(ymized)?"
_COPY = re.compile(r"( ?\(\d+\)|[ _-]+(copy|kopie|copie|copia)( ?\(?\d+\)?)?|[ _-]+backup\d*|~)$", re.IGNORECASE)
_TAIL = re.compile(rf"[-_. ](?:{_SEQUENCE}|{_VISIT}|{_PROCESSING})$", re.IGNORECASE)

# Folders that group files by something other than who was imaged.
_GROUP = re.compile(
    rf"train(ing)?(data)?|valid(ation)?|val|test(ing)?|images?[-_ ]?(tr|ts|val)?|labels?[-_ ]?(tr|ts|val)?|masks?|"
    rf"seg(mentation)?s?|(raw|source)?data(set)?|rawdata|derivatives?|(dataset|task)[-_]?\d+([-_].*)?|nnunet.*|mris?|"
    rf"dicom|nii|nifti|npy|png|jpe?g|raw|processed|backup\d*|copy|copies|old|new|all|subjects?|patients?|cases?|"
    rf"participants?|controls?|anat|func|fmap|perf|hgg|lgg|axial|coronal|sagittal|fold_?\d+|"
    rf"(site|cent(er|re)|hospital|clinic|scanner|vendor|cohort|group|batch|part|release|dis[ck])"
    rf"([-_ ]?\w{{1,3}}|[-_ ]\w+)?|"
    rf"ixi(-(t1|t2|pd|mra|dti))?|oasis-?\d*|adni\d*|brats.?\d{{0,4}}|"
    rf"(19|20)\d\d([-_.]?\d\d([-_.]?\d\d.*)?)?|{_SEQUENCE}|{_VISIT}",
    re.IGNORECASE,
)
_PERSON = re.compile(
    r"(p|pt|pat|patient|s|sub|subj|subject|case|id|vol|volunteer|person|participant|control|ctrl|hc)[-_ ]?\d+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Rule:
    """Pattern by which the names of one archive or habit say who was imaged: group 1, in any part of the path."""

    name: str
    pattern: re.Pattern[str]


RULES = (
    Rule("BIDS (sub-XX)", re.compile(r"^(sub-[A-Za-z0-9]+)")),
    Rule("IXI (IXI002-Guys-0828-T1)", re.compile(r"^(IXI\d{3})(?=-|$)")),
    Rule("OASIS (OAS1_0001_MR1)", re.compile(r"^(OAS[12]_\d{4}|OAS[34]\d{4})(?!\d)")),
    Rule("ADNI (002_S_0295)", re.compile(r"(?<!\d)(\d{3}_S_\d{4,5})(?!\d)")),
    Rule("TCGA (TCGA-02-0003)", re.compile(r"^(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(?![A-Z0-9])")),
    Rule(
        "BraTS (BraTS20_Training_001)",
        re.compile(
            r"^(BraTS-[A-Z]+-\d{5}(?=-)|BraTS20_(?:Training|Validation)_\d+|BraTS2021_\d+|"
            r"BraTS1[789]_[A-Z0-9]+_[A-Z0-9]+(?=_\d+))",
            re.IGNORECASE,
        ),
    ),
)
CHANNEL = "nnU-Net (imagesTr/<case>_0000)"
PERSON = "a folder named as a person (PAT01)"
FOLDER = "the first folder that is no split, site, sequence or format"
FILE = "the file's name without sequence, visit or copy mark"


@dataclass(frozen=True)
class Assignment:
    """Whose each file is, by which rule, and what speaks against it."""

    subjects: dict[str, str]  # relative path -> subject
    rules: dict[str, str]  # relative path -> name of the rule
    warnings: tuple[str, ...] = ()

    def described(self) -> tuple[str, ...]:
        """One line per rule: how many files it decided, and three examples."""
        lines = []
        for rule, count in Counter(self.rules.values()).most_common():
            paths = [path for path in self.subjects if self.rules[path] == rule]
            # Of different subjects where there are such.
            some = list({self.subjects[path]: path for path in reversed(paths)}.values())[::-1][:3]
            shown = ", ".join(f"{path} -> {self.subjects[path]}" for path in some)
            lines.append(f"by {rule}, {count} file{'s' * (count != 1)}: {shown}")
        return tuple(lines)


def assign_subjects(paths: Iterable[str], override: str | None = None) -> Assignment:
    """Say whose each file is.

    Parameters
    ----------
    paths : relative to the root, with forward slashes.
    override : a regular expression whose group 1 is the subject, or a CSV file; None = the table of rules.

    Raises
    ------
    DataError
        The override is no such thing, or does not cover every file.
    """
    everything = list(dict.fromkeys(paths))
    if override is not None:
        given = _from_table(override) if is_table(override) else _from_pattern(override)
        subjects = {path: subject for path in everything if (subject := given(path))}
        missed = [path for path in everything if path not in subjects]
        if missed:
            what = "has no row for" if is_table(override) else f"({override}) does not match"
            raise DataError(
                f"--subjects {what} {len(missed)} of {len(everything)} files, the first: {missed[0]}; every file needs "
                "a subject, since folds are made by subject"
            )
        name = "--subjects " + (Path(override).name if is_table(override) else override)
        return Assignment(subjects, dict.fromkeys(everything, name), _warnings(subjects))
    channels = _channels(everything)
    subjects, rules = {}, {}
    for path in everything:
        subjects[path], rules[path] = _by_rules(path, channels)
    return Assignment(subjects, rules, (*_warnings(subjects), *_shared_names(subjects, rules)))


def subject_from(root: Path, path: Path) -> str:
    """Return who was imaged, from the names on the way from `root` to the file alone."""
    return _by_rules(path.name if root.is_file() else relative(path, root), {})[0]


def is_table(override: str) -> bool:
    """Return whether an override names a CSV file rather than being a regular expression."""
    return override.lower().endswith((".csv", ".tsv"))


def recorded(override: str) -> str:
    """Return what a recipe records of an override: the expression itself; of a table its digest, since it may hold names.

    Raises
    ------
    DataError
        The table cannot be read.
    """
    if not is_table(override):
        return override
    try:
        return "table sha256:" + hashlib.sha256(Path(override).read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"--subjects {override}: {error.strerror or error}") from None


def _by_rules(path: str, channels: dict[str, str]) -> tuple[str, str]:
    """(subject, name of the rule) of one path."""
    *folders, _ = (_without_copy(part) for part in path.split("/"))
    name = _without_copy(stem(path))
    for rule in RULES:
        for part in (*folders, name):
            hit = rule.pattern.search(part)
            if hit:
                return hit.group(1), rule.name
    if path in channels:
        return channels[path], CHANNEL
    named = [folder for folder in folders if not _GROUP.fullmatch(folder)]
    for folder in named:
        if _PERSON.fullmatch(folder):
            return folder, PERSON
    if named:
        return named[0], FOLDER
    return _who(name), FILE


def _who(name: str) -> str:
    """Return a file's name without what says how, when or how often it was taken.

    The whole name where nothing else is left.
    """
    shorter = name
    while (match := _COPY.search(shorter) or _TAIL.search(shorter)) and match.start():
        shorter = shorter[: match.start()]
    return name if _GROUP.fullmatch(shorter) else shorter


def _without_copy(name: str) -> str:
    match = _COPY.search(name)
    return name[: match.start()] if match and match.start() else name


def _channels(paths: Sequence[str]) -> dict[str, str]:
    """Path -> case of nnU-Net files: `case_0000`, `case_0001` in imagesTr are channels of one case.

    Decathlon has `case_0000`, `case_0001`, ... there as cases: then all share one prefix, which has no number.
    """
    cases: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for path in paths:
        folder, _, _ = path.rpartition("/")
        match = re.fullmatch(r"(.+)_(\d{4})", _without_copy(stem(path)))
        if match and re.fullmatch(r"(images|labels)(tr|ts|val)", folder.rpartition("/")[2], re.IGNORECASE):
            cases[folder][match.group(1)][path] = match.group(2)
    found: dict[str, str] = {}
    for prefixes in cases.values():
        for case, files in prefixes.items():
            if "0000" in files.values() and (len(prefixes) > 1 or re.search(r"\d", case)):
                found |= dict.fromkeys(files, case)
    return found


def _from_pattern(pattern: str):  # type: ignore[no-untyped-def]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"--subjects {pattern}: not a regular expression: {error}") from None
    if compiled.groups < 1:
        raise DataError(f"--subjects {pattern}: expected a group in parentheses that is the subject, as in '(PAT\\d+)'")

    def subject(path: str) -> str:
        match = compiled.search(path)
        return (match.group(1) or "") if match else ""

    return subject


def _from_table(path: str):  # type: ignore[no-untyped-def]
    """Rows (file, subject); a file is a path under the root, a folder of it, or a name with or without its extension."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--subjects {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    rows = [
        row for row in csv.reader(text.splitlines(), delimiter="\t" if path.lower().endswith("tsv") else ",") if row
    ]
    if rows and rows[0][0].strip().lower() in ("file", "path", "name", "filename"):
        rows = rows[1:]
    if not rows or any(len(row) != 2 or not row[0].strip() or not row[1].strip() for row in rows):
        raise DataError(f"--subjects {path}: expected rows of two columns, file and subject")
    table: dict[str, str] = {}
    for file, subject in ((row[0].strip().replace("\\", "/").strip("/"), row[1].strip()) for row in rows):
        if table.setdefault(file, subject) != subject:
            raise DataError(f"--subjects {path}: {file} is given two subjects, {table[file]} and {subject}")

    def subject_of(file: str) -> str:
        parts = file.split("/")
        above = ["/".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]
        return next((table[key] for key in (file, parts[-1], stem(file), *above) if key in table), "")

    return subject_of


def _warnings(subjects: dict[str, str]) -> tuple[str, ...]:
    """Return what makes an assignment doubtful, whatever rule made it."""
    warnings = []
    odd = sorted({subject for subject in subjects.values() if _GROUP.fullmatch(subject)})
    if odd:
        warnings.append(
            f'{len(odd)} "subject{"s" * (len(odd) != 1)}" called {", ".join(odd[:3])}: that is no person; say who is who '
            "with --subjects"
        )
    places: dict[str, set[str]] = defaultdict(set)
    for path, subject in subjects.items():
        name = _who(_without_copy(stem(path)))
        # `T1` or `12` in every person's folder says nothing; `PAT01` does.
        if not _GROUP.fullmatch(name) and re.search(r"[A-Za-z]", name) and re.search(r"\d", name):
            places[name].add(subject)
    several = sorted(name for name, names in places.items() if len(names) > 1)
    if several:
        names = ", ".join(sorted(places[several[0]])[:3])
        warnings.append(
            f"{len(several)} file name{'s' * (len(several) != 1)} in several subjects ({several[0]} in {names}): one "
            "person in several folds? say who is who with --subjects"
        )
    spellings: dict[str, set[str]] = defaultdict(set)
    for subject in subjects.values():
        spellings[subject.lower()].add(subject)
    alike = sorted(", ".join(sorted(names)) for names in spellings.values() if len(names) > 1)
    if alike:
        warnings.append(f"{len(alike)} of several spellings ({alike[0]}): one person? say who is who with --subjects")
    if len(subjects) > 4 and len(set(subjects.values())) == 1:
        warnings.append(f"all {len(subjects)} files are one subject ({next(iter(subjects.values()))}): one fold")
    return tuple(warnings)


def _shared_names(subjects: dict[str, str], rules: dict[str, str]) -> tuple[str, ...]:
    """Persons of one name under several sites: joined, which is safe, and said, since it may be wrong."""
    above: dict[str, set[str]] = defaultdict(set)
    for path, subject in subjects.items():
        if rules[path] == PERSON:
            above[subject].add(path.split("/")[0])
    shared = sorted(subject for subject, places in above.items() if len(places) > 1)
    if not shared:
        return ()
    places = ", ".join(sorted(above[shared[0]])[:3])
    return (f"{len(shared)} of one name in several folders ({shared[0]} in {places}): taken as one person each",)
