"""Colours of TotalSegmentator's classes: as in an atlas of anatomy, the same for ever, and unlike those beside them.

Bones are ivory, arteries red, veins blue, muscles brick, airways and lungs pale, the gut rose and ochre, glands amber.
What is on the right is darker than its twin on the left. Of a row of like things (vertebrae, ribs, teeth) neighbours
differ. A class that no rule knows has a colour that follows from its name.
"""

from __future__ import annotations

import hashlib
import re

from voxelmill_segment.sides import split_side

Rgb = tuple[int, int, int]

_NUMBERED = re.compile(r"_?[A-Z]?(\d+)$")
_RIGHT_DARKER = 0.76

_ORGANS: dict[str, Rgb] = {
    # The chest
    "lung": (150, 195, 235),
    "lung_upper_lobe": (165, 205, 240),
    "lung_middle_lobe": (120, 215, 200),
    "lung_lower_lobe": (115, 150, 215),
    "lung_nodules": (255, 235, 60),
    "lung_airways": (90, 200, 170),
    "lung_airways_wall": (45, 125, 110),
    "trachea": (80, 215, 190),
    "lung_trachea_bronchia": (80, 215, 190),
    "lung_pleural": (190, 225, 190),
    "pleural_effusion": (70, 150, 250),
    "pericardial_effusion": (60, 215, 250),
    "thoracic_cavity": (170, 205, 225),
    "abdominal_cavity": (225, 195, 150),
    "mediastinum": (225, 150, 165),
    "pericardium": (205, 105, 130),
    "breast": (245, 190, 200),
    "thyroid_gland": (250, 170, 60),
    # The heart and the vessels
    "heart": (190, 35, 55),
    "heart_myocardium": (165, 30, 50),
    "heart_atrium": (215, 95, 110),
    "heart_ventricle": (235, 65, 80),
    "atrial_appendage": (250, 150, 175),
    "aorta": (230, 45, 35),
    "brachiocephalic_trunk": (255, 110, 70),
    "subclavian_artery": (240, 85, 45),
    "common_carotid_artery": (225, 30, 85),
    "internal_carotid_artery": (245, 90, 110),
    "iliac_artery": (250, 95, 75),
    "coronary_arteries": (255, 170, 60),
    "pulmonary_artery": (70, 130, 235),
    "lung_arteries": (70, 130, 235),
    "pulmonary_vein": (205, 75, 140),
    "lung_veins": (205, 75, 140),
    "superior_vena_cava": (40, 80, 200),
    "inferior_vena_cava": (50, 70, 185),
    "brachiocephalic_vein": (85, 115, 250),
    "internal_jugular_vein": (70, 100, 225),
    "iliac_vena": (95, 100, 235),
    "portal_vein_and_splenic_vein": (60, 165, 215),
    "liver_vessels": (60, 115, 215),
    "lung_vessels": (80, 120, 225),
    # The abdomen and the pelvis
    "liver": (140, 70, 50),
    "liver_lesions": (245, 240, 90),
    "liver_tumor": (235, 215, 60),
    "spleen": (140, 75, 150),
    "gallbladder": (100, 175, 70),
    "stomach": (235, 150, 125),
    "pancreas": (240, 200, 95),
    "duodenum": (205, 140, 60),
    "small_bowel": (250, 180, 165),
    "colon": (185, 150, 90),
    "esophagus": (215, 165, 185),
    "kidney": (225, 105, 60),
    "kidney_cyst": (95, 215, 235),
    "adrenal_gland": (250, 225, 60),
    "urinary_bladder": (245, 225, 120),
    "prostate": (225, 120, 180),
    # The head
    "brain": (235, 195, 200),
    "spinal_cord": (250, 245, 130),
    "intracerebral_hemorrhage": (190, 20, 20),
    "ventricle_frontal_horn": (80, 160, 235),
    "ventricle_body": (110, 215, 235),
    "ventricle_trigone": (95, 120, 245),
    "ventricle_occipital_horn": (140, 225, 190),
    "ventricle_temporal_horn": (175, 150, 250),
    "third_ventricle": (45, 195, 160),
    "fourth_ventricle": (40, 130, 150),
    "eyeball": (240, 240, 245),
    "eye": (240, 240, 245),
    "eye_lens": (90, 190, 230),
    "optic_nerve": (250, 235, 110),
    "parotid_gland": (250, 185, 85),
    "submandibular_gland": (245, 145, 60),
    "tongue": (215, 95, 110),
    "soft_palate": (230, 150, 155),
    "hard_palate": (225, 205, 170),
    "nasopharynx": (120, 205, 215),
    "oropharynx": (90, 160, 210),
    "hypopharynx": (150, 190, 240),
    "pharynx": (90, 160, 210),
    "nasal_cavity": (165, 225, 215),
    "auditory_canal": (200, 215, 130),
    "larynx_air": (80, 215, 190),
    "maxillary_sinus": (150, 220, 240),
    "sinus_maxillary": (150, 220, 240),
    "sinus_frontal": (110, 185, 235),
    "head": (235, 190, 165),
    "face": (240, 185, 160),
    "inferior_alveolar_canal": (235, 110, 60),
    "mandibular_incisive_canal": (250, 165, 90),
    "lingual_canal": (215, 75, 95),
    "bridge": (195, 200, 215),
    "crown": (165, 170, 190),
    "implant": (130, 140, 160),
    "hip_implant": (155, 170, 195),
    # The whole
    "body": (222, 178, 150),
    "body_trunc": (222, 178, 150),
    "body_extremities": (190, 140, 110),
    "subcutaneous_fat": (240, 205, 105),
    "torso_fat": (225, 160, 60),
    "intermuscular_fat": (245, 190, 70),
    "skeletal_muscle": (175, 65, 55),
}

_BONES: dict[str, Rgb] = {
    "sacrum": (215, 175, 120),
    "coccyx": (205, 165, 110),
    "vertebrae": (240, 220, 165),
    "vertebrae_body": (240, 220, 165),
    "vertebrae_S1": (240, 230, 220),
    "sternum": (235, 215, 175),
    "costal_cartilages": (195, 220, 205),
    "intervertebral_discs": (135, 195, 205),
    "humerus": (245, 225, 190),
    "scapula": (225, 195, 150),
    "clavicula": (250, 240, 210),
    "femur": (220, 190, 165),
    "hip": (250, 230, 180),
    "patella": (215, 180, 130),
    "skull": (240, 230, 205),
    "mandible": (225, 205, 160),
    "lower_jawbone": (225, 205, 160),
    "upper_jawbone": (245, 230, 200),
    "teeth_lower": (250, 250, 240),
    "teeth_upper": (225, 225, 200),
    "hyoid": (230, 195, 140),
    "zygomatic_arch": (250, 225, 175),
    "styloid_process": (215, 190, 150),
    "thyroid_cartilage": (150, 200, 215),
    "cricoid_cartilage": (105, 165, 190),
}

_ROWS: dict[str, tuple[Rgb, ...]] = {
    # Each of a row is unlike the one before and the one after it.
    "vertebrae": ((250, 235, 185), (215, 180, 115), (235, 215, 215)),
    "rib": ((245, 225, 205), (205, 170, 140), (230, 215, 160)),
    "tooth": ((250, 250, 235), (215, 200, 155), (195, 215, 225)),
    "pulp": ((225, 90, 85), (250, 140, 120), (190, 60, 80)),
    "liver_segment": (
        (150, 60, 45),
        (205, 120, 80),
        (235, 175, 105),
        (175, 95, 115),
        (225, 140, 130),
        (140, 100, 55),
        (195, 155, 85),
        (110, 55, 65),
    ),
    "muscle": (
        (175, 60, 45),
        (205, 100, 75),
        (150, 45, 60),
        (220, 130, 95),
        (185, 75, 85),
        (130, 60, 45),
        (225, 105, 105),
        (165, 95, 60),
        (195, 60, 70),
        (240, 145, 125),
        (145, 75, 75),
        (205, 85, 50),
    ),
}

_MUSCLES = (
    "gluteus_maximus", "gluteus_medius", "gluteus_minimus", "autochthon", "iliopsoas", "pectoralis_major",
    "rectus_abdominis", "serratus_anterior", "latissimus_dorsi", "trapezius", "external_oblique", "internal_oblique",
    "erector_spinae", "transversospinalis", "psoas_major", "quadratus_lumborum", "masseter", "temporalis",
    "lateral_pterygoid", "medial_pterygoid", "digastric", "sternocleidomastoid", "superior_pharyngeal_constrictor",
    "middle_pharyngeal_constrictor", "inferior_pharyngeal_constrictor", "platysma", "levator_scapulae",
    "anterior_scalene", "middle_scalene", "posterior_scalene", "sterno_thyroid", "thyrohyoid", "prevertebral",
    "lateral_rectus_muscle", "superior_oblique_muscle", "levator_palpebrae_superioris", "superior_rectus_muscle",
    "medial_rectus_muscle", "inferior_oblique_muscle", "inferior_rectus_muscle",
)  # fmt: skip
"""In the order in which they take the colours of their row."""


def colour(name: str) -> Rgb:
    """Return the colour of a class, sRGB 0 to 255."""
    stem, side = split_side(name)
    found = _ORGANS.get(stem) or _BONES.get(stem) or _of_row(stem) or _of_name(stem)
    if side != "right":
        return found
    red, green, blue = (round(part * _RIGHT_DARKER) for part in found)
    return red, green, blue


def _of_row(stem: str) -> Rgb | None:
    """Return the colour of one of a row: a vertebra, a rib, a tooth, a segment of the liver, a muscle."""
    if stem in _MUSCLES:
        again, place = divmod(_MUSCLES.index(stem), len(_ROWS["muscle"]))
        red, green, blue = _ROWS["muscle"][place]
        return red - 8 * again, green + 12 * again, blue + 9 * again
    number = _NUMBERED.search(stem)
    if number is None:
        return None
    if "_fdi" in stem:
        row, place = _ROWS["pulp" if "_pulp_" in stem else "tooth"], int(number[1]) % 10
    elif (kin := stem[: number.start()]) in _ROWS:
        row, place = _ROWS[kin], int(number[1]) + _BEFORE.get(stem[number.start() : number.start(1)].strip("_"), 0)
    else:
        return None
    return row[place % len(row)]


_BEFORE = {"T": 7, "L": 19}
"""How many vertebrae stand above the first thoracic and the first lumbar one."""


def _of_name(stem: str) -> Rgb:
    """Return a colour that follows from a name, neither very dark nor very pale."""
    red, green, blue = hashlib.sha256(stem.encode()).digest()[:3]
    return 70 + red % 170, 70 + green % 170, 70 + blue % 170
