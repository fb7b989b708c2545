"""The page in a real Chromium: a folder is uploaded, worked on, looked at; a dead letter is replayed."""

from __future__ import annotations


def test_an_empty_installation_says_what_to_do(visit):
    """The worklist leads to the upload."""
    assert visit["empty"] == "No series yet"


def test_a_folder_is_uploaded_and_each_file_is_accounted_for(visit):
    """Files of a folder within the folder too; what is not taken is named as its owner knows it, with the reason."""
    assert visit["uploaded"].startswith("26 files uploaded")
    assert "cut off.dcm" in visit["refused"]
    assert "truncated" in visit["refused"]


def test_the_stages_are_seen_from_waiting_to_done(visit):
    """Live, without a reload."""
    assert {f"{stage}: done" for stage in ("Pictures", "Segments", "Meshes")} <= set(visit["states"])
    assert {"Meshes: pending", "Pictures: failed"} <= set(visit["states"])
    assert {"Segments: running", "Meshes: running"} & set(visit["states"])


def test_what_is_searched_for_is_not_written_into_the_address(visit):
    """It may be a patient's name, and browsers keep addresses."""
    assert visit["rows"] == 2
    assert "nobody" not in visit["address"]


def test_pictures_are_there_before_the_viewer(visit):
    """Three planes and the surfaces' overview."""
    assert visit["firstPictures"] == 4


def test_segments_are_listed_with_volume_and_mean(visit):
    """The phantom's lungs have some 1.7 litres and air in them."""
    rows = {row.split("\n")[0]: row.split("\n")[1:] for row in visit["segments"]}
    assert set(rows) >= {"Lung left", "Lung right", "Airways", "Bones", "Skin"}
    volume, mean, *formats = rows["Lung left"]
    assert mean[0] == "\N{MINUS SIGN}"
    assert 1000 < int(volume.replace(",", "")) < 2500
    assert -950 < -int(mean[1:]) < -700
    assert set(formats) == {"STL", "PLY", "OBJ"}


def test_slices_follow_window_labels_and_keys(visit):
    """A window preset, a segment's box and a key change what is drawn, each for itself."""
    pixels = visit["window"]["pixels"]
    assert visit["window"]["coloured"] > pixels * 0.05
    assert visit["window"]["different"] > pixels * 0.05
    assert visit["labels"]["different"] > pixels * 0.005
    assert visit["moved"]["different"] > pixels * 0.005
    assert "mm" in visit["spot"]
    assert "HU" in visit["spot"]


def test_a_series_that_is_no_volume_says_so(visit):
    """With the stage that failed, its reason, and the way to its dead letter."""
    assert visit["noVolume"].startswith("No volume")
    assert "Pictures failed" in visit["notes"]
    assert "dead letters of this series" in visit["notes"]


def test_surfaces_are_drawn_in_three_dimensions(visit):
    """Pixels that are not background; without the bones there are others."""
    pixels = visit["surfaces"]["pixels"]
    assert visit["surfaces"]["bright"] > pixels * 0.05
    assert visit["surfaces"]["coloured"] > pixels * 0.02
    assert visit["toggled"]["different"] > pixels * 0.02


def test_every_file_is_linked(visit):
    """Label map, DICOM SEG, meshes, pictures."""
    names = {address.split("/", 3)[3] for address in visit["files"]}
    assert {"segmentation/labelmap.nii.gz", "segmentation/segmentation.dcm", "meshes/bones.stl"} <= names
    assert all(address.startswith("/files/") for address in visit["files"])


def test_a_dead_letter_is_replayed_and_dropped(visit):
    """It is counted first; what fails again comes back and says that it was replayed; dropping leaves none."""
    assert "undecodable-pixels" in visit["letter"]
    assert visit["question"] == "Replay 1 letter?"
    assert visit["replayed"] == "1 letter replayed."
    assert "1 \N{MULTIPLICATION SIGN} replay" in visit["again"]
    assert visit["left"] == 0


def test_what_does_not_exist_says_so(visit):
    """With the next step, and a button that tries again."""
    assert "there is none that you may see" in visit["missing"]
    assert "Try again" in visit["missing"]


def test_nothing_overflows_on_a_phone(visit):
    """At 360 pixels no view scrolls sideways."""
    assert visit["overflow"] == dict.fromkeys(("upload", "worklist", "viewer", "dead-letters"), 0)


def test_the_page_breaks_no_rule(visit):
    """No error of a script, nothing against its Content-Security-Policy, no request to another host."""
    assert visit["errors"] == []
    assert visit["strangers"] == []


def test_pictures_were_taken(visit):
    """For the README, and for whoever looks why a test failed."""
    assert {f"{name}.png" for name in ("viewer", "worklist", "dead-letters")} <= {
        path.name for path in visit["pictures"].iterdir()
    }
