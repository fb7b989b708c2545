"""Table E.1-1 of PS3.15: every row is done as it says, under the basic profile and under each option."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR, repeater_has_tag

from voxelmill_ingest.deidentify.dataset import Cleaner
from voxelmill_ingest.deidentify.keys import ProjectKeys
from voxelmill_ingest.deidentify.profile import Option, row_of, rows, type_of

KEYS = ProjectKeys.derive("a key of 32 characters, or longer", "project")
CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
SPECIAL = {"50xxxxxx": 0x50003000, "60xx3000": 0x60003000, "60xx4000": 0x60004000, "PRIVATE": 0x00091001}
IDENTIFYING: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT", "PN"), "ZYXWVUT"),
    **dict.fromkeys(("OB", "OW", "UN", "OV", "OF", "OD", "OL"), b"ZYXWVUT!"),
    "AS": "045Y",
    "DA": "20110203",
    "DT": "20110203040506",
    "TM": "040507",
    "UI": "1.2.3.4.5.6.7",
    "UR": "http://ZYXWVUT",
    "DS": "123456",
    "IS": "123456",
    **dict.fromkeys(("FD", "FL"), 123456.0),
    **dict.fromkeys(("SL", "UL", "SS", "US", "SV", "UV"), 12345),
}
BASIC: frozenset[Option] = frozenset({Option.PRIVATE})
CHOICES = {"basic": BASIC, "all": frozenset(Option), **{option.value: BASIC | {option} for option in Option}}


def cells() -> list[tuple[str, str, dict[str, str]]]:
    """The table as it stands, read by the test itself: tag, basic action, actions under options."""
    lines = (resources.files("voxelmill_ingest.deidentify") / "profile.tsv").read_text().splitlines()
    split = [line.split("\t") for line in lines if not line.startswith("#")]
    return [(tag, basic, dict(one.split("=") for one in options.split())) for tag, basic, options, _ in split]


def object_with(tag: int, sop_class: str = CT) -> tuple[Dataset, str]:
    """A data set that holds one attribute, with a value that identifies; also its Value Representation."""
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    known = dictionary_has_tag(tag) or repeater_has_tag(tag)
    vr = dictionary_VR(tag).split(" or ")[0] if known else "LO"
    if vr == "SQ":
        item = Dataset()
        item.CodeMeaning = "ZYXWVUT"
        item.PersonName = "ZYXWVUT"
        dataset.add_new(tag, vr, [item])
    else:
        dataset.add_new(tag, vr, IDENTIFYING[vr])
    return dataset, vr


def expected(basic: str, under: dict[str, str], chosen: frozenset[Option], attribute_type: str) -> str:
    """What the table asks for, worked out from its words (PS3.15 Table E.1-1a)."""
    actions = {under[option] for option in chosen if option in under}
    if actions:
        return "C" if "C" in actions else "K"
    choice = basic.split("/")
    if len(choice) == 1:
        return basic
    needed = {"1": ("D", "U*", "Z"), "2": ("Z", "D"), "3": ("X", "Z")}[attribute_type]
    return next(action for action in needed if action in choice)


def check(dataset: Dataset, tag: int, vr: str, action: str, basic: str) -> None:  # noqa: C901, PLR0912 - one branch for each letter
    present, known = tag in dataset, dictionary_has_tag(tag)
    value = dataset[tag].value if present else None
    if tag in {0x00100010, 0x00100020}:
        assert str(value).startswith("VM")
        assert "ZYXWVUT" not in str(value)
    elif not known or tag >> 16 < 8:
        assert not present, "an attribute that the dictionary does not know, or that no data set holds, goes"
    elif action == "X":
        assert not present
    elif action == "Z":
        assert present
        assert not value
    elif action == "K":
        assert present
        if vr != "SQ":
            assert value == IDENTIFYING[vr]
    elif action.startswith("U"):
        assert present
        assert vr == "SQ" or value == KEYS.secrets.uid("1.2.3.4.5.6.7")
    elif action == "D":
        assert present
        if vr == "SQ":
            assert value
            assert "ZYXWVUT" not in str(value)
        else:
            assert value not in {None, ""}
            assert value != IDENTIFYING[vr]
    elif vr == "TM":
        assert value == "040507"
    elif present and vr in {"DA", "DT"}:
        assert value not in {"", IDENTIFYING[vr]}
    elif vr == "SQ":
        assert present
    elif present:
        assert not value or basic != "X"
        assert "ZYXWVUT" not in str(value)
        assert value != IDENTIFYING[vr]


@pytest.mark.parametrize("chosen", CHOICES.values(), ids=CHOICES)
def test_every_row_is_done_as_the_table_says(chosen: frozenset[Option]) -> None:
    """All of its rows, each at the top of a CT and of an enhanced CT, where its Type may be another one."""
    done = 0
    for cell, basic, under in cells():
        tag = SPECIAL.get(cell) or int(cell, 16)
        for sop_class in (CT, ENHANCED_CT):
            dataset, vr = object_with(tag, sop_class)
            attribute_type = type_of(tag, sop_class)
            action = expected(basic, under, chosen, attribute_type)
            if action == "C" and vr not in {"SQ", "DA", "DT", "TM", "LO", "SH", "LT", "ST", "UT", "UC"}:
                action = expected(basic, {}, chosen, attribute_type)  # cleaning such a value is not built
            Cleaner(KEYS.secrets, chosen)(dataset)
            try:
                if cell in {"60xx3000", "PRIVATE"}:
                    assert tag not in dataset
                else:
                    check(dataset, tag, vr, action, basic)
            except AssertionError as error:
                raise AssertionError(f"({cell}) {vr}, {basic} {under}, Type {attribute_type}: {action}") from error
            done += 1
    assert done == 2 * 657


COMPARED = "9852cdbca45158a5dfb7f63ade9ccc773c93e9eb4ad97c2801c2162c18452204"
SAMPLE = """00080050 Z|00184000 X descriptors=C|00400556 X descriptors=C|00400555 X/Z|00080022 X/Z dates=C full-dates=K
0008002A X/Z/D dates=C full-dates=K|00181400 X/D descriptors=C|001811BB D descriptors=C|00080017 U uids=K|00404035 X
001021B0 X descriptors=C|0040A353 X|00380010 X|00081084 X descriptors=C|00102110 X descriptors=C|0040B034 X dates=C
006A0005 D descriptors=C|006A0003 D uids=K|40000010 X|00440104 D dates=C|00440105 X dates=C|04000562 D dates=C
0040A078 X|22000005 X/Z|300C0127 D device=K dates=C|0014407E X device=K dates=C|00181203 Z device=K dates=C|0016004D X
00181007 X device=K|04000115 D|04000310 X dates=C|003A0203 X descriptors=C|00120060 Z institution=K
00120081 D institution=K|00120020 D|00120021 Z|00120030 Z institution=K|00120010 D|00120040 D|00120042 D
3010000F Z descriptors=C|30100006 U uids=K|0008009C Z|00400512 D|00700084 Z/D|00080023 Z/D dates=C|0040A730 D"""


def test_rows_are_those_of_the_standard() -> None:
    """A sample of every kind, written down from the Standard by another hand than the table."""
    sample = [line.split() for line in SAMPLE.replace("\n", "|").split("|")]
    assert len(sample) == 47
    for tag, basic, *options in sample:
        row = rows()[tag]
        assert row.basic == basic, tag
        assert {f"{name}={action}" for name, action in row.options.items()} >= set(options), tag


def test_no_cell_was_changed_since_the_table_was_compared() -> None:
    """With the Standard, as the table's decision record says. Whoever changes a cell compares it anew."""
    table = resources.files("voxelmill_ingest.deidentify") / "profile.tsv"
    lines = [line for line in table.read_text().splitlines() if not line.startswith("#")]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == COMPARED


def test_the_table_is_whole() -> None:
    """As many rows of each action as the Standard's edition has."""
    actions = [basic for _, basic, _ in cells()]
    counts = {action: actions.count(action) for action in set(actions)}
    assert counts == {"X": 417, "D": 93, "U": 55, "Z": 42, "X/D": 23, "X/Z": 11, "X/Z/D": 8, "Z/D": 6, "X/Z/U*": 2}
    per_option = {option: sum(option in under for _, _, under in cells()) for option in Option}
    assert per_option == {Option.DATES: 169, Option.DESCRIPTORS: 141, Option.DEVICE: 59, Option.PRIVATE: 1}


@pytest.mark.parametrize("attribute_type", ["1", "2", "3"])
def test_an_action_that_depends_on_the_type_is_one_that_the_table_offers(attribute_type: str) -> None:
    for row in rows().values():
        if row.depends_on_type:
            action = row.without_options(attribute_type).value
            assert action == expected(row.basic, {}, BASIC, attribute_type).rstrip("*"), row


@pytest.mark.parametrize(
    ("tag", "sop_class", "sequence", "attribute_type"),
    [
        (0x00080023, CT, "", "2"),  # Content Date: General Image, 2C
        (0x00080023, ENHANCED_CT, "", "1"),  # Multi-frame Functional Groups
        (0x00080080, CT, "", "3"),  # Institution Name: General Equipment
        (0x00080080, CT, "ReferringPhysicianIdentificationSequence", "1"),  # Person Identification Macro, 1C
        (0x00081140, CT, "", "3"),  # Referenced Image Sequence: General Reference
        (0x00181000, CT, "", "3"),  # Device Serial Number: General Equipment
        (0x00181000, ENHANCED_CT, "", "1"),  # Enhanced General Equipment
        (0x00080021, "1.2.840.10008.5.1.4.1.1.128", "", "1"),  # Series Date of PET
        (0x00080021, CT, "", "3"),
        (0x00080021, "1.2.3", "", "1"),  # nobody knows this class: the strongest that there is
    ],
)
def test_the_type_is_that_of_the_iod(tag: int, sop_class: str, sequence: str, attribute_type: str) -> None:
    assert type_of(tag, sop_class, sequence) == attribute_type


def test_groups_fall_under_their_row() -> None:
    assert row_of(0x50123000) is rows()["50xxxxxx"]
    assert row_of(0x60123000) is rows()["60xx3000"]
    assert row_of(0x00290010) is rows()["PRIVATE"]
    assert row_of(0x00280010) is None
